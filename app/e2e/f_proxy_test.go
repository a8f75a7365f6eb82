//go:build e2e && linux

package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/covedesk/cove/app/internal/testregistry"
	"golang.org/x/sys/unix"
)

// corporate is the proxy of a company, on the host's loopback as a local helper (cntlm, px) would be. It
// lets in who logs in, and is itself what lies behind it: a registry and a file server that no name server
// knows.
type corporate struct {
	login string            // what Proxy-Authorization must be
	files map[string][]byte // by URL
	types map[string]string
	real  map[string]string // addresses of real servers, by the host:port that it knows them by

	mu    sync.Mutex
	asked []string
}

func (c *corporate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.asked = append(c.asked, fmt.Sprintf("%s %s %v", r.Method, r.URL, r.Header.Get("Proxy-Authorization") == c.login))
	c.mu.Unlock()
	if r.Header.Get("Proxy-Authorization") != c.login {
		w.Header().Set("Proxy-Authenticate", `Basic realm="corporate"`)
		http.Error(w, "log in", http.StatusProxyAuthRequired)
		return
	}
	if r.Method == http.MethodConnect && r.Host == registry {
		speakNoTLS(w)
		return
	}
	if to := c.real[r.Host]; r.Method == http.MethodConnect && to != "" {
		tunnel(w, to)
		return
	}
	b, is := c.files[r.URL.String()]
	if !is || r.Method == http.MethodConnect {
		http.Error(w, "the company does not allow this", http.StatusForbidden)
		return
	}
	if t := c.types[r.URL.String()]; t != "" {
		w.Header().Set("Content-Type", t)
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	if r.Method != http.MethodHead {
		w.Write(b)
	}
}

// speakNoTLS is a tunnel to a server that answers TLS in plain HTTP. The engine then leaves TLS out.
func speakNoTLS(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	io.ReadFull(conn, make([]byte, 5)) // a record's header
	io.WriteString(conn, "HTTP/1.0 400 Bad Request\r\n\r\n")
}

// tunnel joins a client with a server.
func tunnel(w http.ResponseWriter, to string) {
	server, err := net.Dial("tcp", to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer server.Close()
	client, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer client.Close()
	io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		io.Copy(server, client)
		server.Close()
	}()
	io.Copy(client, server)
}

// heard says how often the proxy was asked something of this form, and whether always by who was logged in.
func (c *corporate) heard(part string) (times int, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known = true
	for _, a := range c.asked {
		if strings.Contains(a, part) {
			times++
			known = known && strings.HasSuffix(a, " true")
		}
	}
	return times, known
}

// registry is the address of a registry that speaks no TLS, which the engine is told.
const registry = "registry.test:5000"

// push puts an image with one file in it behind the proxy (opencontainers/distribution-spec, "Pull").
func (c *corporate) push(t *testing.T, name string) {
	t.Helper()
	const kind = "application/vnd.docker.distribution.manifest.v2+json"
	var plain, layer bytes.Buffer
	w := tar.NewWriter(&plain)
	w.WriteHeader(&tar.Header{Name: "hello", Typeflag: tar.TypeReg, Mode: 0o644, Size: 5})
	w.Write([]byte("hello"))
	w.Close()
	z := gzip.NewWriter(&layer)
	z.Write(plain.Bytes())
	z.Close()
	put := func(path, kind string, b []byte) string {
		digest := sha256.Sum256(b)
		at := "sha256:" + hex.EncodeToString(digest[:])
		for _, ref := range []string{at, "latest"} {
			url := "http://" + registry + "/v2/" + name + path + ref
			c.files[url], c.types[url] = b, kind
		}
		return at
	}
	diff := sha256.Sum256(plain.Bytes())
	config, err := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"/hello"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(diff[:])}}})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": kind,
		"config": map[string]any{"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": put("/blobs/", "application/octet-stream", config)},
		"layers": []any{map[string]any{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": layer.Len(), "digest": put("/blobs/", "application/octet-stream", layer.Bytes())}}})
	if err != nil {
		t.Fatal(err)
	}
	put("/manifests/", kind, manifest)
	c.files["http://"+registry+"/v2/"] = []byte("{}")
}

// theHostsProxy is set, and seen by all that the engine fetches; its password is seen nowhere.
func theHostsProxy(t *testing.T) atStart {
	canary := "canary" + rand.Text()
	login := "user:" + canary
	proxy := &corporate{login: "Basic " + base64.StdEncoding.EncodeToString([]byte(login)), types: map[string]string{},
		files: map[string][]byte{"http://files.test/hello": []byte("by the proxy")}}
	proxy.push(t, "app")
	proxy.push(t, "base")
	behind := testregistry.Start(t, testregistry.Options{TLS: true, CA: world.ca, Htpasswd: alice})
	proxy.real = map[string]string{testregistry.Behind + ":443": behind.Addr}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := http.Server{Handler: proxy}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })

	return atStart{
		says: "the engine goes by the host's proxy",
		keys: []string{"proxy.http", "proxy.https", "engine.insecure-registries"},
		set: func(t *testing.T) {
			url := "http://" + login + "@" + l.Addr().String()
			for _, key := range []string{"proxy.http", "proxy.https"} {
				set := cove("config", "set", key, "-")
				set.Stdin = strings.NewReader(url + "\n")
				contains(t, "cove config set", output(t, set), "user:xxxxx@127.0.0.1", "cove restart")
			}
			output(t, cove("config", "set", "engine.insecure-registries", `["`+registry+`"]`))
		},
		seen: func(t *testing.T) { proxy.isUsed(t, canary) },
	}
}

func (proxy *corporate) isUsed(t *testing.T, canary string) {
	output(t, docker("pull", registry+"/app"))
	if n, known := proxy.heard("GET http://" + registry + "/v2/app/blobs/"); n < 2 || !known {
		t.Errorf("docker pull took %d blobs by the proxy, logged in: %v; want 2, always\n%s", n, known, strings.Join(proxy.asked, "\n"))
	}
	name := testregistry.Behind + "/app"
	imported(t, name, 1000)
	c := aliceAt(t, testregistry.Behind)
	output(t, c.docker("push", name))
	output(t, docker("rmi", name))
	output(t, c.docker("pull", name))
	if n, known := proxy.heard("CONNECT //" + testregistry.Behind + ":443"); n == 0 || !known {
		t.Errorf("login, push and pull asked the proxy %d times, logged in: %v\n%s", n, known, strings.Join(proxy.asked, "\n"))
	}
	text, _ := failure(t, docker("pull", "refused.test/app"))
	contains(t, "docker pull of what the proxy refuses", text, "Forbidden")
	if n, known := proxy.heard("CONNECT //refused.test:443"); n == 0 || !known {
		t.Errorf("the refused pull asked the proxy %d times, logged in: %v\n%s", n, known, strings.Join(proxy.asked, "\n"))
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+registry+"/base\nADD http://files.test/hello /fetched\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	output(t, docker("build", "-q", dir))
	if n, known := proxy.heard("GET http://files.test/hello"); n == 0 || !known {
		t.Errorf("a build's ADD asked the proxy %d times, logged in: %v\n%s", n, known, strings.Join(proxy.asked, "\n"))
	}

	info := output(t, docker("info"))
	contains(t, "docker info", info, "HTTPS Proxy: http://xxxxx:xxxxx@host.docker.internal:", "docker.internal")
	container := output(t, docker("run", "--rm", image, "env"))
	for what, text := range map[string]string{
		"docker info": info, "a container's environment": container,
		"cove config list": output(t, cove("config", "list")), "cove config list --json": output(t, cove("config", "list", "--json")),
		"cove status": output(t, cove("status", "--json", "--timeline")), "the refused pull": text,
		"docker events": output(t, docker("system", "events", "--since", "10m", "--until", "0s")),
	} {
		if strings.Contains(text, canary) {
			t.Errorf("%s shows the proxy's password:\n%s", what, text)
		}
	}
	for _, name := range []string{"coved", "console", "guestd", "containerd", "dockerd", "kernel"} {
		if strings.Contains(output(t, cove("logs", name)), canary) {
			t.Errorf("the log of %s shows the proxy's password", name)
		}
	}
	contains(t, "cove logs coved", output(t, cove("logs", "coved")), "http://user:xxxxx@127.0.0.1")
	onlyIn(t, canary, filepath.Join(world.home, "settings.json"))
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range commands {
		if b, _ := os.ReadFile(name); bytes.Contains(b, []byte(canary)) {
			t.Errorf("%s has the proxy's password: %q", name, b)
		}
	}
}

// containersProxies are given to containers by docker's own way, and taken away at the start without them. Nobody
// listens where the proxy is said to be.
func containersProxies(t *testing.T) atStart {
	canary := "canary" + rand.Text()
	port := unused(t)
	settings := filepath.Join(world.work, "docker", "config.json")
	var before []byte
	return atStart{
		says: "containers get the proxies where they are told to",
		keys: []string{"proxy.https", "proxy.no-proxy", "proxy.containers"},
		set: func(t *testing.T) {
			for key, value := range map[string]string{"proxy.https": "http://user:" + canary + "@localhost:" + port, "proxy.no-proxy": "corp.example", "proxy.containers": "true"} {
				output(t, cove("config", "set", key, value))
			}
			before = []byte(read(t, settings))
		},
		seen: func(t *testing.T) {
			env := output(t, docker("run", "--rm", image, "env"))
			contains(t, "a container's environment", env, "HTTPS_PROXY=http://user:"+canary+"@host.docker.internal:"+port+"\n", "https_proxy=", "NO_PROXY=corp.example,localhost,")
			text, _ := failure(t, docker("pull", "refused.test/app"))
			contains(t, "docker pull by a proxy that is not there", text, "proxyconnect", "connection refused")
			if strings.Contains(text, canary) {
				t.Errorf("docker pull by a proxy that is not there shows its password:\n%s", text)
			}
			for _, name := range []string{"coved", "guestd", "dockerd", "containerd"} {
				if strings.Contains(output(t, cove("logs", name)), canary) {
					t.Errorf("the log of %s shows the proxy's password", name)
				}
			}
			onlyIn(t, canary, settings, filepath.Join(world.home, "settings.json"), filepath.Join(world.home, "vm", "default", "data.raw"))
		},
		gone: func(t *testing.T) {
			if after, err := os.ReadFile(settings); err != nil || !bytes.Equal(before, after) {
				t.Errorf("docker's settings end as %s, %v; want %s", after, err, before)
			}
			if strings.Contains(output(t, docker("run", "--rm", image, "env")), "PROXY") {
				t.Error("a container gets proxies after they are unset")
			}
		},
	}
}

// onlyIn fails the test if another file than these has the text in it. They may: what a container has in
// its environment is on the data disk as long as it is there.
func onlyIn(t *testing.T, text string, may ...string) {
	t.Helper()
	output(t, cove("shell", "--", "sync"))
	for _, name := range holders(t, text) {
		if !slices.Contains(may, name) {
			t.Errorf("%s has the proxy's password in it", name)
		}
	}
}

// holders are the files of Cove's folder and of docker's with a text in them, the data disk's included.
func holders(t *testing.T, text string) []string {
	t.Helper()
	var found []string
	for _, dir := range []string{world.home, filepath.Join(world.work, "docker")} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			is, err := holds(path, []byte(text))
			if is {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func holds(path string, text []byte) (is bool, err error) {
	err = chunks(path, func(part []byte) { is = is || bytes.Contains(part, text) })
	return is, err
}

const (
	chunk = 4 << 20 // what is read at once
	lap   = 4 << 10 // and once more with the next, as a text may lie across
)

// chunks reads what a sparse file has.
func chunks(path string, look func([]byte)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, lap+chunk)
	kept := 0 // of the read before, at the buffer's begin
	for at := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if err != nil {
			return nil // ENXIO: no data from here on
		}
		if data != at {
			at, kept = data, 0
		}
		n, err := f.ReadAt(buf[kept:kept+chunk], at)
		whole := buf[:kept+n]
		look(whole)
		kept = copy(buf, whole[max(0, len(whole)-lap):])
		if at += int64(n); n == 0 || err != nil {
			return nil
		}
	}
}
