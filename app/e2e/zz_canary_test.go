//go:build e2e && linux

package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/covedesk/cove/app/internal/testregistry"
)

// A canary is a secret that is looked for. Its text has signs that URLs and JSON write otherwise, and a core
// that they leave as it is.
type canary struct {
	name, text, core string
}

// birds are all canaries of a run. Their cores begin alike, so that one search finds any of them.
type birds struct {
	mark string
	all  []canary
}

func newBirds() *birds { return &birds{mark: "CN" + rand.Text()[:10]} }

func (b *birds) secret(name string) string {
	core := b.mark + rand.Text()[:14]
	b.all = append(b.all, canary{name, core + `"/+ %&<\é`, core})
	return b.all[len(b.all)-1].text
}

// made adds one that others made, whose core is its longest part of letters and digits.
func (b *birds) made(name, text string) {
	core := ""
	for _, part := range regexp.MustCompile(`[A-Za-z0-9]+`).FindAllString(text, -1) {
		if len(part) > len(core) {
			core = part
		}
	}
	b.all = append(b.all, canary{name, text, core})
}

// forms are what a text may be written as: itself, in a URL, in JSON, in hex, and in base64 at each of the
// three places in which it may stand to the groups of three bytes, in both alphabets. Of base64 only the
// part that does not hang on the neighbours is in it.
func forms(text string) map[string]string {
	quoted, _ := json.Marshal(text)
	var bare bytes.Buffer
	e := json.NewEncoder(&bare)
	e.SetEscapeHTML(false)
	e.Encode(text)
	all := map[string]string{"raw": text, "a URL's query": url.QueryEscape(text), "a URL's path": url.PathEscape(text), "a URL's user": strings.TrimPrefix(url.UserPassword("", text).String(), ":"),
		"JSON": string(quoted[1 : len(quoted)-1]), "JSON for people": strings.Trim(strings.TrimSpace(bare.String()), `"`),
		"hex": hex.EncodeToString([]byte(text)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(text)))}
	for at := range 3 {
		std := base64.StdEncoding.EncodeToString(append(make([]byte, at), text...))
		std = std[(at*8+5)/6 : (at+len(text))*8/6]
		all[fmt.Sprint("base64 ", at)] = std
		all[fmt.Sprint("base64 for URLs ", at)] = strings.NewReplacer("+", "-", "/", "_").Replace(std)
	}
	return all
}

// needles are the forms of a text, each once: one of letters and digits alone has few.
func needles(text string) map[string]string {
	by := map[string]string{}
	all := forms(text)
	for _, form := range slices.Sorted(maps.Keys(all)) {
		by[all[form]] = form
	}
	return by
}

// in says which canaries a text has in it, and in which form.
func (b *birds) in(text []byte) []string {
	found := map[string]bool{}
	look := func(c canary) {
		for needle, form := range needles(c.core) {
			if bytes.Contains(text, []byte(needle)) {
				found[c.name+", as "+form] = true
			}
		}
	}
	for needle := range needles(b.mark) {
		if bytes.Contains(text, []byte(needle)) {
			for _, c := range b.all {
				look(c)
			}
			if len(found) == 0 {
				found["a marked secret of a registry"] = true
			}
			break
		}
	}
	for _, c := range b.all {
		if !strings.HasPrefix(c.core, b.mark) {
			look(c)
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// nest is where canaries were found: name and form by place.
type nest struct {
	mu    sync.Mutex
	found map[string]bool // "place: canary, as form"
}

func (n *nest) add(place string, what []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range what {
		n.found[place+": "+w] = true
	}
}

// files searches all files below some folders, and what sparse files have.
func (n *nest) files(t *testing.T, b *birds, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return nil // gone meanwhile
			}
			return chunks(path, func(part []byte) { n.add(path, b.in(part)) })
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// process searches what others see of a process.
func (n *nest) process(b *birds, pid int, name string, parts ...string) {
	for _, part := range parts {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, part))
		n.add(part+" of "+name, b.in(text))
	}
}

// watch searches, again and again, the command lines of all of this user's processes, and the environment
// too of what coved started.
func (n *nest) watch(b func() *birds, coved int, done <-chan struct{}) {
	for {
		all, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, path := range all {
			stat, err := os.ReadFile(path)
			if err != nil {
				continue
			}
			name := string(stat[bytes.IndexByte(stat, '(')+1 : bytes.LastIndexByte(stat, ')')])
			fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			parts := []string{"cmdline"}
			if fields[1] == strconv.Itoa(coved) {
				parts = append(parts, "environ")
			}
			n.process(b(), pid, name, parts...)
		}
		select {
		case <-done:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// TestCanary goes through a day with 17 secrets, in which much goes wrong and coved dies of a signal as of a
// panic, and looks for them where they must not be: what Cove's programs print, logs, state, temporary files,
// the data disk, environments and command lines. It comes last, and leaves coved dead.
func TestCanary(t *testing.T) {
	output(t, cove("quit"))
	b := newBirds()
	var mu sync.Mutex // guards b: tokens come late
	own := t.TempDir()
	at := &nest{found: map[string]bool{}}

	// Servers of the day.
	carol, dave := b.secret("password in config.json"), b.secret("X-Registry-Auth")
	password := b.secret("registry's password")
	files := testregistry.Start(t, testregistry.Options{TLS: true, CA: world.ca, Htpasswd: map[string]string{"alice": password, "carol": carol, "dave": dave}, RedirectBlobs: hostAlias, Mark: b.mark})
	tokens := testregistry.Start(t, testregistry.Options{TLS: true, CA: world.ca, Token: map[string]string{"bob": b.secret("token server's password")}, IdentityTokens: true, Mark: b.mark})
	bob := b.all[len(b.all)-1].text
	certs := testregistry.Start(t, testregistry.Options{TLS: true, CA: world.ca, ClientCert: true})
	cert, key, err := world.ca.Client()
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(world.work, "docker", "certs.d", fromVM(certs))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"client.cert": cert, "client.key": key} {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The second line begins in the secret number (RFC 5915, of 32 bytes); what is public follows.
	b.made("client's key", strings.Split(string(key), "\n")[2][:24])
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Proxy-Authenticate", `Basic realm="corporate"`)
		http.Error(w, "log in", http.StatusProxyAuthRequired)
	}))
	defer refuses.Close()
	dead := unused(t)
	// said is a command of Cove's own. What it prints is looked at; that it works is not asked.
	said := func(cmd *exec.Cmd) string {
		out, _ := cmd.CombinedOutput()
		at.add("output of "+strings.Join(cmd.Args[:min(3, len(cmd.Args))], " "), b.in(out))
		return string(out)
	}
	with := func(cmd *exec.Cmd, input string) *exec.Cmd {
		cmd.Stdin = strings.NewReader(input)
		return cmd
	}
	logins := func(secret string) string {
		u := url.URL{Scheme: "http", User: url.UserPassword("user", secret), Host: strings.TrimPrefix(refuses.URL, "http://")}
		return u.String()
	}

	// The morning: coved starts with a proxy in its environment, and a mirror that nobody serves.
	proxy := "HTTPS_PROXY=" + logins(b.secret("proxy's password in the environment"))
	for _, cmd := range []*exec.Cmd{cove("config", "set", "registry.mirrors", "http://host.docker.internal:"+dead), cove("start")} {
		cmd.Env = append(cmd.Env, proxy, "NO_PROXY="+hostAlias)
		said(cmd)
	}
	contains(t, "cove logs coved", said(cove("logs", "coved")), "from=environment")
	coved := one(t, "bin/coved")
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		at.watch(func() *birds {
			mu.Lock()
			defer mu.Unlock()
			return &birds{b.mark, slices.Clone(b.all)}
		}, coved, done)
	})
	secret := func(name string) string {
		mu.Lock()
		defer mu.Unlock()
		return b.secret(name)
	}

	// Settings: one that is taken, two that are refused.
	for _, set := range [][2]string{
		{"proxy.https", logins(secret("proxy's password in the settings"))},
		{"proxy.http", "http://user:" + secret("password in a setting that is refused") + "@host name:x"},
		{"registry.mirrors", "https://user:" + url.QueryEscape(secret("password of a mirror")) + "@mirror.test"},
	} {
		said(with(cove("config", "set", set[0], "--dry-run", "-"), set[1]))
		said(with(cove("config", "set", set[0], "-"), set[1]))
	}
	for _, args := range [][]string{{"config", "list"}, {"config", "list", "--json"}, {"config", "get", "proxy.https"}, {"status"}} {
		said(cove(args...))
	}

	// Logins, into the encrypted file with a passphrase.
	memory, err := os.MkdirTemp("/dev/shm", "cove-e2e")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(memory)
	os.Setenv("XDG_RUNTIME_DIR", memory)
	defer os.Unsetenv("XDG_RUNTIME_DIR")
	phrase := secret("passphrase") + "\n"
	helper := func(args ...string) *exec.Cmd { return command(bin("docker-credential-cove"), args...) }
	c := client{filepath.Join(own, "docker")}
	if err := os.MkdirAll(c.folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(world.work, "docker", "cli-plugins"), filepath.Join(c.folder, "cli-plugins")); err != nil {
		t.Fatal(err)
	}
	configure := func(text string) {
		if err := os.WriteFile(c.config(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure(`{"credsStore": "cove"}`)
	said(with(helper("use", "file", "--passphrase"), phrase))
	said(with(helper("unlock"), "wrong\n"))
	if out, err := with(helper("unlock"), phrase).CombinedOutput(); err != nil {
		t.Fatalf("unlock: %v\n%s", err, out)
	}
	app, other, third := fromVM(files)+"/app", fromVM(tokens)+"/app", fromVM(certs)+"/app"
	for _, name := range []string{app, other, third} {
		imported(t, name, 1<<19)
	}
	said(with(c.docker("login", "-u", "alice", "--password-stdin", fromVM(files)), secret("wrong password")))
	output(t, with(c.docker("login", "-u", "alice", "--password-stdin", fromVM(files)), password))
	output(t, with(c.docker("login", "-u", "bob", "--password-stdin", fromVM(tokens)), bob))
	for _, name := range []string{app, other, third} {
		output(t, c.docker("push", name))
		output(t, docker("rmi", name))
	}
	output(t, c.docker("pull", other))
	said(helper("list"))
	said(helper("status"))

	// Failures: a layer that never comes whole, tokens that have ended, servers that are not there.
	files.Cut(100_000, testregistry.Always)
	failure(t, c.docker("pull", app))
	files.Cut(0, 0)
	output(t, docker("rmi", other))
	tokens.ExpireTokens(testregistry.Always)
	failure(t, c.docker("pull", other))
	configure(fmt.Sprintf(`{"auths": {%q: {"auth": %q}, %q: {"auth": %[2]q}}}`, fromVM(files), base64.StdEncoding.EncodeToString([]byte("carol:"+carol)), "host.docker.internal:"+dead))
	output(t, c.docker("pull", app))
	failure(t, c.docker("pull", "host.docker.internal:"+dead+"/app"))
	failure(t, c.docker("pull", "refused.test/app"))
	failure(t, c.docker("pull", "nobody/app"))
	auth := fmt.Sprintf(`{"serveraddress": %q, "username": "dave", "password": %q}`, fromVM(files), dave)
	for _, auth := range []string{base64.URLEncoding.EncodeToString([]byte(auth)), base64.URLEncoding.EncodeToString([]byte(auth))[:120]} {
		q, _ := http.NewRequest("POST", "http://docker/images/create?fromImage="+url.QueryEscape(fromVM(files)+"/none"), nil)
		q.Header.Set("X-Registry-Auth", auth)
		if a, err := overSocket().Do(q); err == nil {
			io.Copy(io.Discard, a.Body)
			a.Body.Close()
		}
	}

	// Builds and containers.
	dockerfile := func(text string) string {
		path := filepath.Join(own, "Dockerfile")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return own + "/empty"
	}
	os.Mkdir(own+"/empty", 0o700)
	if err := os.WriteFile(own+"/secret", []byte(secret("build's secret")), 0o600); err != nil {
		t.Fatal(err)
	}
	context := dockerfile("FROM " + image + "\nRUN --mount=type=secret,id=s test -s /run/secrets/s\n")
	output(t, c.docker("build", "-q", "-f", own+"/Dockerfile", "--secret", "id=s,src="+own+"/secret", context))
	from := url.URL{Scheme: "http", User: url.UserPassword("user", secret("password of a build's context")), Host: "host.docker.internal:" + dead, Path: "/context.tar"}
	failure(t, c.docker("build", from.String()))
	// The engine has the URL of a layer in the error of a build, with what opens it.
	dockerfile("FROM " + app + "\n")
	output(t, docker("rmi", app))
	files.AskElsewhere(true)
	failure(t, c.docker("build", "--no-cache", "-f", own+"/Dockerfile", context))
	failure(t, c.docker("pull", app))
	run := c.docker("run", "-d", "--name", "canary", "--stop-timeout", "1", "-e", "CANARY", image, "sleep", "1000000")
	run.Env = append(run.Env, "CANARY="+secret("container's environment"))
	output(t, run)
	at.add("the guest's processes", b.in([]byte(output(t, cove("shell", "--", "sh", "-c", `for p in /proc/[0-9]*; do cat $p/cmdline $p/environ; done 2>/dev/null; true`)))))

	mu.Lock()
	for i, s := range files.Signatures() {
		b.made("URL's signature "+strconv.Itoa(i), s)
	}
	for _, s := range tokens.Tokens() {
		if strings.HasPrefix(s, b.mark) {
			b.made("identity token", s)
		}
	}
	// All the others are found by their marks.
	first := tokens.Tokens()[0]
	b.made("token", first[strings.LastIndex(first, ".")+1:])
	mu.Unlock()
	kinds := map[string]bool{}
	for _, c := range b.all {
		kinds[strings.TrimRight(c.name, " 0123456789")] = true
	}
	if len(kinds) < 14 {
		t.Errorf("%d secrets went through the day; want 14 at least: %v", len(kinds), slices.Sorted(maps.Keys(kinds)))
	}
	selfCheck(t, b)

	// The evening: what Cove's programs tell, then the end.
	for _, name := range []string{"coved", "console", "guestd", "containerd", "kernel"} {
		said(cove("logs", name))
	}
	contains(t, "cove logs dockerd", said(cove("logs", "dockerd")), "signature=xxxxx")
	for _, args := range [][]string{{"status", "--json", "--timeline"}, {"ports"}, {"disk", "usage"}, {"image", "info"}} {
		said(cove(args...))
	}
	at.process(b, coved, "coved", "cmdline", "environ")
	close(done)
	watching.Wait()
	vm := one(t, "qemu-system")
	syscall.Kill(coved, syscall.SIGQUIT)
	eventually(t, "coved's end, and its VM's", func() bool { return gone(coved) && gone(vm) })
	dump, err := os.ReadFile(filepath.Join(world.home, "log", "coved.stderr"))
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "what coved left", string(dump), "SIGQUIT", "goroutine ")
	at.files(t, b, world.work, memory)

	// may says where a secret is meant to be, and why.
	may := []struct{ place, canary, because string }{
		{own, "", "the test's own files"},
		{"cmdline of docker", "password of a build's context", "the user gave it there"},
		{"environ of coved", "proxy's password in the environment", "whoever starts coved gave it"},
		{filepath.Join(world.home, "settings.json"), "proxy's password in the settings", "docs/host.md: it is kept there, 0600"},
		{folder, "client's key", "the user's own folder"},
		{"the guest's processes", "container's environment", "the container has it"},
		{filepath.Join(world.home, "vm", "default", "data.raw"), "container's environment", "the engine keeps containers' settings on its disk"},
		{filepath.Join(world.home, "vm", "default", "data.raw"), "URL's signature", "BuildKit keeps the errors of builds in its history; signatures end by themselves"},
	}
	for _, f := range slices.Sorted(maps.Keys(at.found)) {
		ok := slices.ContainsFunc(may, func(m struct{ place, canary, because string }) bool {
			return strings.HasPrefix(f, m.place) && strings.Contains(f, ": "+m.canary)
		})
		if !ok {
			t.Errorf("found in %s", f)
		}
	}
	for _, m := range may[1:] {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(at.found)), func(f string) bool { return strings.HasPrefix(f, m.place) && strings.Contains(f, ": "+m.canary) }) {
			t.Errorf("%s does not have the %s, where it is meant to be: the search is blind, or the exception needless", m.place, m.canary)
		}
	}
}

// selfCheck plants each secret in each form, and looks for it as the day's end does.
func selfCheck(t *testing.T, b *birds) {
	t.Helper()
	dir := t.TempDir()
	noise := make([]byte, 5000)
	rand.Read(noise)
	for i, c := range b.all {
		f, err := os.Create(filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			t.Fatal(err)
		}
		for form, text := range forms(c.text) {
			if got := b.in([]byte("a" + text + "z")); !slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, c.name+", ") }) {
				t.Errorf("planted as %s, %q is not found: %v", form, c.name, got)
			}
			f.Write(noise)
			f.WriteString(text)
			f.Write(noise)
		}
		// As on a data disk: after a hole, across the border of two reads.
		f.WriteAt([]byte(c.text), 64<<20+chunk-3)
		f.WriteAt(noise, 64<<20+chunk-3-int64(len(noise)))
		f.Close()
		n := &nest{found: map[string]bool{}}
		n.files(t, b, f.Name())
		forms := 0
		for found := range n.found {
			if strings.HasPrefix(found, f.Name()+": "+c.name+", ") {
				forms++
			}
		}
		if forms < 6 {
			t.Errorf("%q, planted in a file in all forms, is found in %d: %v", c.name, forms, n.found)
		}
		os.Truncate(f.Name(), 0)
		if err := os.Remove(f.Name()); err != nil {
			t.Fatal(err)
		}
	}
	first, second := b.all[0], b.all[1]
	planted := exec.Command("sh", "-c", "sleep 1000000; exit", first.text)
	planted.Env = append(os.Environ(), "PLANTED="+second.text)
	planted.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := planted.Start(); err != nil {
		t.Fatal(err)
	}
	n := &nest{found: map[string]bool{}}
	done := make(chan struct{})
	close(done)
	n.watch(func() *birds { return b }, os.Getpid(), done)
	syscall.Kill(-planted.Process.Pid, syscall.SIGKILL)
	planted.Wait()
	for _, want := range []string{"cmdline of sh: " + first.name + ", as raw", "environ of sh: " + second.name + ", as raw"} {
		if !n.found[want] {
			t.Errorf("a process with secrets is not found: no %q in %v", want, n.found)
		}
	}
}
