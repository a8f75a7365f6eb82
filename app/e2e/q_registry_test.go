//go:build e2e && linux

package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/covedesk/cove/app/internal/testregistry"
)

// alice is who the test's registries know.
var alice = map[string]string{"alice": "wonder" + rand.Text()}

// client is docker with a configuration of its own, whose credentials docker-credential-cove keeps, in the
// encrypted file of Cove's folder.
type client struct{ folder string }

func newClient(t *testing.T) client {
	t.Helper()
	c := client{t.TempDir()}
	if err := os.WriteFile(c.config(), []byte(`{"credsStore": "cove"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(world.work, "docker", "cli-plugins"), filepath.Join(c.folder, "cli-plugins")); err != nil {
		t.Fatal(err)
	}
	// Not the keyring of whoever runs the tests.
	output(t, command(bin("docker-credential-cove"), "use", "file"))
	return c
}

func (c client) config() string { return filepath.Join(c.folder, "config.json") }

func (c client) docker(args ...string) *exec.Cmd {
	cmd := docker(args...)
	cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+c.folder, "PATH="+filepath.Join(world.work, "bin")+":"+os.Getenv("PATH"))
	return cmd
}

func (c client) login(at, user, password string) *exec.Cmd {
	cmd := c.docker("login", "-u", user, "--password-stdin", at)
	cmd.Stdin = strings.NewReader(password)
	return cmd
}

// aliceAt is a client that is alice at this registry, until the test ends.
func aliceAt(t *testing.T, at string) client {
	t.Helper()
	c := newClient(t)
	output(t, c.login(at, "alice", alice["alice"]))
	t.Cleanup(func() { output(t, c.docker("logout", at)) })
	return c
}

// stored is what docker-credential-cove has for a server: user and secret, or nothing.
func stored(t *testing.T, at string) (user, secret string) {
	t.Helper()
	get := command(bin("docker-credential-cove"), "get")
	get.Stdin = strings.NewReader(at)
	out, err := get.Output()
	if err != nil {
		contains(t, "docker-credential-cove get", string(out), "credentials not found")
		return "", ""
	}
	var found struct{ Username, Secret string }
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatal(err)
	}
	return found.Username, found.Secret
}

// fromVM is a registry's address as the engine reaches it.
func fromVM(r *testregistry.Registry) string { return "host.docker.internal:" + r.Port }

// imported makes an image of one file of random bytes, which is gone when the test ends, and gives its ID.
func imported(t *testing.T, name string, size int) string {
	t.Helper()
	b := make([]byte, size)
	rand.Read(b)
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	w.WriteHeader(&tar.Header{Name: "random", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(size)})
	w.Write(b)
	w.Close()
	load := docker("import", "--change", `CMD ["/random"]`, "-", name)
	load.Stdin = &buf
	id := strings.TrimSpace(output(t, load))
	t.Cleanup(func() { docker("rmi", "-f", name).Run() })
	return id
}

// layers are the digests of an image's content: the same wherever it came from.
func layers(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(output(t, docker("image", "inspect", "-f", "{{json .RootFS.Layers}}", name)))
}

// asked picks requests that one of a registry's servers got.
func asked(r *testregistry.Registry, server, method, part string) []testregistry.Request {
	return slices.DeleteFunc(r.Requests(), func(q testregistry.Request) bool {
		return q.Server != server || q.Method != method || !strings.Contains(q.Path, part)
	})
}

func TestAPrivateRegistry(t *testing.T) {
	r := testregistry.Start(t, testregistry.Options{TLS: true, CA: world.ca, Htpasswd: alice})
	at := fromVM(r)
	app := at + "/team/app"
	imported(t, app, 200_000)
	content := layers(t, app)

	stranger := newClient(t)
	if err := os.WriteFile(stranger.config(), []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	text, _ := failure(t, stranger.docker("push", app))
	contains(t, "docker push of who is not logged in", text, "no basic auth credentials")
	text, _ = failure(t, stranger.login(at, "alice", "wrong"))
	contains(t, "docker login with a wrong password", text, "401 Unauthorized")
	if user, _ := stored(t, at); user != "" {
		t.Errorf("after a wrong password something is stored for %s", user)
	}

	c := aliceAt(t, at)
	if user, secret := stored(t, at); user != "alice" || secret != alice["alice"] {
		t.Errorf("docker-credential-cove has %q, %q; want alice's", user, secret)
	}
	if b, err := os.ReadFile(c.config()); err != nil || bytes.Contains(b, []byte(`"auth":`)) {
		t.Errorf("docker's configuration is %s, %v; want no secret in it", b, err)
	}
	output(t, c.docker("push", app))
	output(t, docker("rmi", app))
	text, _ = failure(t, stranger.docker("pull", app))
	contains(t, "docker pull of who is not logged in", text, "no basic auth credentials")
	contains(t, "docker pull", output(t, c.docker("pull", app)), "Pulling fs layer", "Pull complete", "Downloaded newer image for "+app)
	if got := layers(t, app); got != content {
		t.Errorf("what was pulled has the layers %s; want %s", got, content)
	}
	output(t, docker("rmi", app))

	dir := t.TempDir()
	for name, text := range map[string]string{"Dockerfile": "FROM " + app + "\nCOPY new /new\n", "new": "new", "compose.yaml": "services:\n  app:\n    image: " + at + "/team/built\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	built := at + "/team/built"
	output(t, c.docker("build", "-q", "-t", built, dir))
	output(t, c.docker("push", built))
	output(t, docker("rmi", built))
	output(t, c.docker("compose", "-f", filepath.Join(dir, "compose.yaml"), "pull"))
	output(t, docker("rmi", built))
	for _, q := range r.Requests() {
		if q.Status == 200 && q.Method == "GET" && strings.Contains(q.Path, "/blobs/") && q.User != "alice" {
			t.Errorf("a blob went to somebody else: %+v", q)
		}
	}
	if n := len(asked(r, "registry", "PUT", "/team/built/manifests/")); n == 0 {
		t.Error("the built image's manifest never came")
	}
}

func TestTokensThatEnd(t *testing.T) {
	r := testregistry.Start(t, testregistry.Options{TLS: true, CA: world.ca, Token: alice, IdentityTokens: true})
	at := fromVM(r)
	name := at + "/app"
	imported(t, name, 1000)
	text, _ := failure(t, newClient(t).login(at, "alice", "wrong"))
	contains(t, "docker login with a wrong password", text, "unauthorized: incorrect username or password")
	c := aliceAt(t, at)
	if user, secret := stored(t, at); user != "<token>" || !slices.Contains(r.Tokens(), secret) {
		t.Errorf("stored is %q with %q; want the registry's identity token in the password's place", user, secret)
	}
	output(t, c.docker("push", name))
	output(t, docker("rmi", name))
	r.Forget()
	r.EndTokens("/blobs/")
	output(t, c.docker("pull", name))
	if n := len(asked(r, "token", "POST", "/token")); n < 2 {
		t.Errorf("a pull whose token ended asked for %d; want another one", n)
	}
	refused := slices.ContainsFunc(asked(r, "registry", "GET", "/blobs/"), func(q testregistry.Request) bool { return q.Status == 401 && q.Credential == "Bearer" })
	if !refused {
		t.Errorf("no token was refused: %+v", r.Requests())
	}
	output(t, docker("rmi", name))
	r.ExpireTokens(testregistry.Always)
	text, _ = failure(t, c.docker("pull", name))
	contains(t, "docker pull with tokens that have ended before they come", text, "pull access denied", "docker login")
	r.ExpireTokens(0)
	output(t, c.docker("pull", name))
}

func TestCredentialsDoNotFollowARedirect(t *testing.T) {
	for _, o := range []testregistry.Options{{Htpasswd: alice}, {Token: alice}} {
		o.TLS, o.CA, o.RedirectBlobs = true, world.ca, hostAlias
		r := testregistry.Start(t, o)
		name := fromVM(r) + "/app"
		imported(t, name, 1000)
		c := aliceAt(t, fromVM(r))
		output(t, c.docker("push", name))
		output(t, docker("rmi", name))
		output(t, c.docker("pull", name))
		output(t, docker("rmi", name))
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+name+"\nCOPY Dockerfile /\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		pulled := len(asked(r, "blobs", "GET", ""))
		// For a build, docker itself fetches tokens, and this machine does not know the VM's name for it.
		builds := o.Token == nil
		if builds {
			output(t, c.docker("build", "-q", "--no-cache", dir))
		}
		if n := len(asked(r, "blobs", "GET", "")); pulled == 0 || builds && n == pulled {
			t.Errorf("%d blobs came from elsewhere by a pull, %d after a build; want some", pulled, n)
		}
		// The other server asks for a password outright.
		r.AskElsewhere(true)
		output(t, docker("image", "prune", "-f"))
		output(t, docker("builder", "prune", "-af"))
		failure(t, c.docker("pull", name))
		if builds {
			failure(t, c.docker("build", "-q", "--no-cache", dir))
		}
		if n := len(asked(r, "blobs", "GET", "")); n <= pulled {
			t.Errorf("the server that asks for a password was asked %d times", n-pulled)
		}
		for _, q := range asked(r, "blobs", "GET", "") {
			if q.Credential != "" || q.Host == "" || strings.Contains(strings.Join(q.Headers, " "), "Auth") {
				t.Errorf("a credential went to where the registry sent the client: %+v", q)
			}
		}
		if n := len(asked(r, "registry", "GET", "/v2/")); n == 0 {
			t.Error("the registry saw nothing")
		}
	}
}

// A registry that speaks no TLS, and is not among the insecure ones, gets no credential: whoever is on the
// network would have it.
func TestAPlainRegistryGetsNoCredential(t *testing.T) {
	r := testregistry.Start(t, testregistry.Options{Htpasswd: alice})
	at := fromVM(r)
	c := newClient(t)
	text, _ := failure(t, c.login(at, "alice", alice["alice"]))
	contains(t, "docker login", text, "server gave HTTP response to HTTPS client")
	if user, _ := stored(t, at); user != "" {
		t.Errorf("after a login that failed something is stored for %s", user)
	}
	// As if it had spoken TLS once.
	store := command(bin("docker-credential-cove"), "store")
	store.Stdin = strings.NewReader(fmt.Sprintf(`{"ServerURL":%q,"Username":"alice","Secret":%q}`, at, alice["alice"]))
	output(t, store)
	defer func() { output(t, c.docker("logout", at)) }()
	name := at + "/app"
	imported(t, name, 1000)
	for _, args := range [][]string{{"push", name}, {"pull", name}} {
		text, _ := failure(t, c.docker(args...))
		contains(t, "docker "+args[0], text, "server gave HTTP response to HTTPS client")
	}
	output(t, docker("rmi", name))
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+name+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	failure(t, c.docker("build", dir))
	for _, q := range r.Requests() {
		if q.Credential != "" {
			t.Errorf("a credential went out in the clear: %+v", q)
		}
	}
	// The record would have it.
	q, _ := http.NewRequest("GET", r.URL+"/v2/", nil)
	q.SetBasicAuth("alice", alice["alice"])
	if a, err := http.DefaultClient.Do(q); err != nil || a.StatusCode != 200 {
		t.Fatal(a, err)
	}
	if all := r.Requests(); all[len(all)-1].User != "alice" {
		t.Errorf("a login is recorded as %+v", all[len(all)-1])
	}
}

func TestALayerThatBreaksOff(t *testing.T) {
	r := testregistry.Start(t, testregistry.Options{TLS: true, CA: world.ca})
	name := fromVM(r) + "/app"
	imported(t, name, 1<<20)
	content := layers(t, name)
	output(t, docker("push", name))
	output(t, docker("rmi", name))
	r.Cut(300_000, testregistry.Always)
	text, _ := failure(t, docker("pull", name))
	t.Logf("a registry that always dies in the middle of a layer: %s", text)
	contains(t, "docker pull", text, "unexpected EOF")
	r.Forget()
	r.Cut(700_000, 1)
	output(t, docker("pull", name))
	if got := layers(t, name); got != content {
		t.Errorf("what was pulled has the layers %s; want %s", got, content)
	}
	resumed := slices.ContainsFunc(asked(r, "registry", "GET", "/blobs/"), func(q testregistry.Request) bool {
		return q.Status == http.StatusPartialContent && slices.Contains(q.Headers, "Range")
	})
	if !resumed {
		t.Errorf("nothing was resumed: %+v", r.Requests())
	}
}

// overSocket is a client of the engine's API.
func overSocket() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Dial: func(string, string) (net.Conn, error) { return net.Dial("unix", socket()) }}}
}

func TestPullShowsItsProgress(t *testing.T) {
	const size = 6 << 20 // the engine counts by 1 MiB
	r := testregistry.Start(t, testregistry.Options{TLS: true, CA: world.ca, Htpasswd: alice})
	name := fromVM(r) + "/app"
	imported(t, name, size)
	output(t, aliceAt(t, fromVM(r)).docker("push", name))
	output(t, docker("rmi", name))
	r.Slow(size / 3)

	auth, err := json.Marshal(map[string]string{"username": "alice", "password": alice["alice"], "serveraddress": fromVM(r)})
	if err != nil {
		t.Fatal(err)
	}
	q, err := http.NewRequest("POST", "http://docker/images/create?"+url.Values{"fromImage": {name}, "tag": {"latest"}}.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("X-Registry-Auth", base64.URLEncoding.EncodeToString(auth))
	a, err := overSocket().Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	var between, last int64
	var text bytes.Buffer
	for lines := json.NewDecoder(io.TeeReader(a.Body, &text)); ; {
		var m struct {
			Status, Error  string
			ProgressDetail struct{ Current, Total int64 }
		}
		if err := lines.Decode(&m); err == io.EOF {
			break
		} else if err != nil || m.Error != "" {
			t.Fatalf("the pull says %v:\n%s", err, text.String())
		}
		if d := m.ProgressDetail; m.Status == "Downloading" && d.Total >= size {
			if d.Current < last {
				t.Errorf("progress goes back from %d to %d", last, d.Current)
			}
			if last = d.Current; d.Current > 0 && d.Current < d.Total {
				between++
			}
		}
	}
	if between < 2 {
		t.Errorf("%d times a pull of 3 s said that it was between begin and end; want some:\n%s", between, text.String())
	}
	contains(t, "the pull", text.String(), "Downloading", "Download complete", "Pull complete", "Downloaded newer image")
}
