//go:build e2e && linux

package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/covedesk/cove/app/internal/testregistry"
	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// loggedIn is docker with a folder of its own, which has a credential for one registry in it.
func loggedIn(t *testing.T, registry, user, password string, args ...string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	config, err := json.Marshal(map[string]any{
		"auths":               map[string]any{registry: map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password))}},
		"cliPluginsExtraDirs": []string{filepath.Join(world.work, "docker", "cli-plugins")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := docker(args...)
	cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+dir)
	return cmd
}

func dockerfile(t *testing.T, lines ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Whom the engine believes, and how it treats a registry, for pulls, pushes and builds: one start of the engine
// for all of it.
func TestRegistriesAsTheSettingsSay(t *testing.T) {
	users := map[string]string{"alice": "opensesame"}
	private := testregistry.Start(t, testregistry.Options{TLS: true, Htpasswd: users})      // its CA is in registry.ca
	token := testregistry.Start(t, testregistry.Options{TLS: true, Token: users})           // its CA is in certs.d
	mutual := testregistry.Start(t, testregistry.Options{TLS: true, ClientCert: true})      // its CA and a client's certificate are in certs.d
	plain := testregistry.Start(t, testregistry.Options{})                                  // insecure
	unknown := testregistry.Start(t, testregistry.Options{TLS: true})                       // nobody said anything
	strict := testregistry.Start(t, testregistry.Options{})                                 // http, and not insecure
	at := func(r *testregistry.Registry) string { return "host.docker.internal:" + r.Port } // as the VM knows it

	folder := t.TempDir()
	write := func(path string, text []byte) string {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certs := filepath.Join(world.work, "docker", "certs.d")
	cert, key, err := mutual.CA.Client()
	if err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(certs, at(mutual), "ca.crt"), mutual.CA.PEM)
	write(filepath.Join(certs, at(mutual), "client.cert"), cert)
	write(filepath.Join(certs, at(mutual), "client.key"), key)
	write(filepath.Join(certs, at(token), "ca.crt"), token.CA.PEM)
	write(filepath.Join(certs, "broken.test", "ca.crt"), mutual.CA.PEM[:len(mutual.CA.PEM)/2])
	write(filepath.Join(certs, "lost.test", "client.cert"), cert)

	text, _ := failure(t, cove("config", "set", "registry.ca", filepath.Join(folder, "none.pem")))
	contains(t, "a file that is not there", text, "none.pem: no such file")
	text, _ = failure(t, cove("config", "set", "registry.insecure", "http://"+at(plain)))
	contains(t, "a URL for an insecure registry", text, "is a URL")
	keys := map[string]string{
		"registry.ca":                write(filepath.Join(folder, "ca.pem"), private.CA.PEM),
		"registry.insecure":          at(plain),
		"registry.mirrors":           "https://" + at(mutual) + ",registry.test=http://" + at(plain) + ",secure.test=https://" + at(private),
		"engine.insecure-registries": `["other.test:5000"]`,
		"engine.registry-mirrors":    `["https://` + at(unknown) + `"]`,
	}
	for key, value := range keys {
		contains(t, "cove config set --dry-run", output(t, cove("config", "set", key, value, "--dry-run")), "cove restart")
		output(t, cove("config", "set", key, value))
	}
	defer func() {
		os.RemoveAll(certs)
		for key := range keys {
			output(t, cove("config", "unset", key)) // from the next start on: what the engine believes till then is for registries that have gone
		}
		if err := trust(); err != nil {
			t.Error(err)
		}
	}()
	output(t, cove("restart"))

	status := output(t, cove("status"))
	contains(t, "cove status", status, "broken.test/ca.crt: it is damaged", "lost.test/client.cert: its key is missing")
	contains(t, "docker info", output(t, docker("info")), at(plain), "other.test:5000", "https://"+at(mutual), "https://"+at(unknown))

	t.Run("push and pull", func(t *testing.T) {
		for _, r := range []*testregistry.Registry{private, token, mutual, plain} {
			name := at(r) + "/app"
			output(t, docker("tag", image, name))
			output(t, loggedIn(t, at(r), "alice", "opensesame", "push", "-q", name))
			output(t, docker("rmi", name))
			output(t, loggedIn(t, at(r), "alice", "opensesame", "pull", "-q", name))
			output(t, docker("rmi", name))
		}
		text, _ := failure(t, docker("pull", at(private)+"/app"))
		contains(t, "docker pull without a credential", text, "no basic auth credentials")
		text, _ = failure(t, docker("pull", at(unknown)+"/app"))
		contains(t, "docker pull from an authority that nobody knows", text, "signed by unknown authority")
		text, _ = failure(t, loggedIn(t, at(strict), "alice", "opensesame", "pull", at(strict)+"/app"))
		contains(t, "docker pull by http", text, "HTTP response to HTTPS client")
		if n := len(strict.Requests()); n != 0 {
			t.Errorf("a registry that speaks http and is not insecure was asked %d times", n)
		}
	})

	t.Run("build", func(t *testing.T) {
		// Not token: for a build, docker itself fetches tokens, and this machine does not know the VM's name for it.
		for _, r := range []*testregistry.Registry{private, mutual, plain} {
			name := at(r) + "/app"
			output(t, loggedIn(t, at(r), "alice", "opensesame", "build", "-q", "-t", name+":built", dockerfile(t, "FROM "+name, "LABEL built=yes")))
			output(t, loggedIn(t, at(r), "alice", "opensesame", "push", "-q", name+":built"))
			output(t, docker("rmi", name+":built"))
		}
		text, _ := failure(t, docker("build", dockerfile(t, "FROM "+at(private)+"/app:built")))
		contains(t, "docker build without a credential", text, "401 Unauthorized")
	})

	t.Run("mirrors", func(t *testing.T) {
		// What the mirrors have goes by another registry's name: nobody else has it.
		for name, mirror := range map[string]*testregistry.Registry{"docker.io/someone/thing": mutual, "registry.test/thing": plain} {
			path := name[strings.Index(name, "/")+1:]
			output(t, docker("tag", image, at(mirror)+"/"+path))
			output(t, docker("push", "-q", at(mirror)+"/"+path))
			output(t, docker("rmi", at(mirror)+"/"+path))
			mirror.Forget()
			output(t, docker("pull", "-q", name))
			if len(mirror.Requests()) == 0 {
				t.Errorf("docker pull %s did not ask its mirror", name)
			}
			output(t, docker("rmi", name))
			output(t, docker("build", "-q", dockerfile(t, "FROM "+name, "LABEL built=yes")))
		}
		// A registry's credential is not for its mirror.
		private.Forget()
		loggedIn(t, "secure.test", "alice", "opensesame", "pull", "-q", "secure.test/app").Run()
		asked := private.Requests()
		if len(asked) == 0 {
			t.Error("docker pull did not ask the mirror of secure.test")
		}
		for _, q := range asked {
			if q.Credential != "" || q.User != "" {
				t.Errorf("the mirror got the registry's credential: %+v", q)
			}
		}
	})

	t.Run("cove registry", func(t *testing.T) {
		dir := t.TempDir()
		run := func(stdin string, args ...string) *exec.Cmd {
			cmd := cove(append([]string{"registry"}, args...)...)
			cmd.Stdin = strings.NewReader(stdin)
			// Docker's settings of its own, with the same certificates; helpers in PATH; no session's keystore.
			cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+dir, "PATH="+filepath.Join(world.work, "bin")+":/usr/bin:/bin", "DBUS_SESSION_BUS_ADDRESS=")
			return cmd
		}
		if err := os.CopyFS(filepath.Join(dir, "certs.d"), os.DirFS(certs)); err != nil {
			t.Fatal(err)
		}
		text, _ := failure(t, run("wrong\n", "login", "-u", "alice", "--password-stdin", at(private)))
		contains(t, "a wrong password", text, "does not take this login", "cove registry login")
		if b, err := os.ReadFile(filepath.Join(dir, "config.json")); err == nil {
			t.Errorf("a login that was refused left %s", b)
		}
		text, _ = failure(t, run("opensesame\n", "login", "-u", "alice", "--password-stdin", at(unknown)))
		contains(t, "an authority that nobody knows", text, "registry.ca")
		for _, r := range []*testregistry.Registry{private, token} {
			contains(t, "cove registry login", output(t, run("opensesame\n", "login", "-u", "alice", "--password-stdin", at(r))), "alice is let in", "docker-credential-cove")
			pull := docker("pull", "-q", at(r)+"/app")
			pull.Env = append(pull.Env, "DOCKER_CONFIG="+dir, "PATH="+filepath.Join(world.work, "bin")+":/usr/bin:/bin")
			output(t, pull)
			output(t, docker("rmi", at(r)+"/app"))
		}
		if b, err := os.ReadFile(filepath.Join(dir, "config.json")); err != nil || strings.Contains(string(b), "opensesame") || strings.Contains(string(b), base64.StdEncoding.EncodeToString([]byte("alice:opensesame"))) {
			t.Errorf("docker's settings are %s, %v", b, err)
		}
		asked := func(answer string) (string, *exec.Cmd, bool) {
			t.Helper()
			cmd := run("", "login", "-u", "alice", at(private))
			cmd.Stdin = nil
			tty, err := pty.Start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			defer tty.Close()
			var seen bytes.Buffer
			b := make([]byte, 1024)
			for !strings.Contains(seen.String(), "Password") {
				n, err := tty.Read(b)
				if seen.Write(b[:n]); err != nil {
					t.Fatalf("cove registry login ended: %v\n%s", err, seen.String())
				}
			}
			// The question comes before the echo is off.
			state := func() bool {
				s, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
				return err == nil && s.Lflag&unix.ECHO != 0
			}
			eventually(t, "a terminal that does not echo", func() bool { return !state() })
			tty.WriteString(answer)
			rest := make(chan struct{})
			go func() { io.Copy(&seen, tty); close(rest) }()
			cmd.Wait()
			echoes := state()
			<-rest
			return seen.String(), cmd, echoes
		}
		if text, cmd, echoes := asked("opensesame\n"); cmd.ProcessState.ExitCode() != 0 || strings.Contains(text, "opensesame") || !strings.Contains(text, "alice is let in") || !echoes {
			t.Errorf("a login at a terminal ends with %v, and it echoes: %v\n%s", cmd.ProcessState, echoes, text)
		}
		if text, cmd, echoes := asked("open\x03"); cmd.ProcessState.ExitCode() != 130 || !strings.Contains(text, "interrupted") || !echoes {
			t.Errorf("a login that is interrupted ends with %v, and the terminal echoes: %v\n%s", cmd.ProcessState, echoes, text)
		}
		list := output(t, run("", "list"))
		contains(t, "cove registry list", list, "alice, by cove", at(plain), "insecure", "mirrors: https://"+at(mutual), "certs.d/"+at(mutual), "broken.test/ca.crt")
		contains(t, "cove registry list --json", output(t, run("", "list", "--json")), `"user": "alice"`, `"faults"`)
		for r, want := range map[*testregistry.Registry][]string{
			private: {"ok", "host    login", "engine  engine", "alice is let in"},
			mutual:  {"ok", "lets everybody in", "engine reaches it"},
			plain:   {"plain http, as registry.insecure allows", "engine reaches it"},
		} {
			contains(t, "cove registry test", output(t, run("", "test", at(r))), want...)
		}
		for r, want := range map[*testregistry.Registry][]string{
			unknown: {"fail  host    tls", "fail  engine  engine", "the engine does not know who signed"},
			strict:  {"speaks plain http to the engine", "cove config set registry.insecure " + at(strict)},
		} {
			text, code := failure(t, run("", "test", at(r)))
			contains(t, "cove registry test", text, want...)
			if code != 1 {
				t.Errorf("cove registry test of %s ends with %d; want 1", at(r), code)
			}
		}
		contains(t, "cove registry test --json", output(t, run("", "test", "--json", at(private))), `"ok": true`, `"from": "engine"`)
		contains(t, "cove registry logout", output(t, run("", "logout", at(private))), "forgotten")
		text, _ = failure(t, run("", "test", at(private)))
		contains(t, "cove registry test without a login", text, "fail  host    login", "fail  engine  engine", "cove registry login "+at(private))
		output(t, run("", "logout", at(token)))
		if b, err := os.ReadFile(filepath.Join(dir, "config.json")); err != nil || strings.Contains(string(b), "auths") || strings.Contains(string(b), "credHelpers") {
			t.Errorf("docker's settings after the logouts are %s, %v", b, err)
		}
	})

	t.Run("a client's key is on no disk", func(t *testing.T) {
		line := strings.Split(string(key), "\n")[1]
		contains(t, "the key in the VM", output(t, cove("shell", "--", "cat", "/etc/docker/certs.d/"+at(mutual)+"/client0.key")), line)
		// Nor could it come there by the swap, which is a file on the data disk.
		run := output(t, cove("shell", "--", "grep", " /run tmpfs ", "/proc/mounts"))
		contains(t, "what /run is", run, "noswap")
		if most := output(t, cove("shell", "--", "cat", "/sys/fs/cgroup/cove/dockerd/memory.swap.max")); most != "0\n" {
			t.Errorf("dockerd may have %q bytes of swap; want none", most)
		}
		output(t, cove("shell", "--", "sync"))
		if found, want := holders(t, line), filepath.Join(certs, at(mutual), "client.key"); len(found) != 1 || found[0] != want {
			t.Errorf("the client's key is in %q; want it in %s alone", found, want)
		}
		password := base64.StdEncoding.EncodeToString([]byte("alice:opensesame"))
		for _, form := range []string{"opensesame", password} {
			for _, path := range holders(t, form) {
				t.Errorf("%s has the password in it, as %s", path, form)
			}
		}
	})
}
