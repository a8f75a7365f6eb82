package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// program is the helper, built as it ships.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "cove-credhelper-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	program = filepath.Join(dir, "docker-credential-cove")
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-X github.com/docker/docker-credential-helpers/credentials.Version=v1.2.3", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// machine is a user's folder and environment, with nothing of the tester's own in it.
type machine struct {
	t   *testing.T
	env map[string]string
}

// headless is a machine without a desktop and without pass.
func headless(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{t: t, env: map[string]string{
		"HOME": dir, "COVE_HOME": filepath.Join(dir, "cove"), "XDG_RUNTIME_DIR": filepath.Join(dir, "run"),
		"PASSWORD_STORE_DIR": filepath.Join(dir, "pass"), "PATH": os.Getenv("PATH"),
	}}
	if err := os.Mkdir(m.env["XDG_RUNTIME_DIR"], 0o700); err != nil {
		t.Fatal(err)
	}
	return m
}

// with is the same machine with other variables.
func (m *machine) with(env ...string) *machine {
	other := &machine{t: m.t, env: maps.Clone(m.env)}
	for i := 0; i < len(env); i += 2 {
		other.env[env[i]] = env[i+1]
	}
	return other
}

func (m *machine) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	for k, v := range m.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}

// answer is what a run of the program came to.
type answer struct {
	call        string
	out, errOut string
	code        int
}

func (m *machine) run(in string, args ...string) answer {
	m.t.Helper()
	cmd := m.command(program, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &errOut
	err := cmd.Run()
	if cmd.ProcessState == nil {
		m.t.Fatal(err)
	}
	return answer{fmt.Sprintf("%q | %s", in, strings.Join(args, " ")), out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

// is checks an answer to the byte.
func (a answer) is(t *testing.T, out, errOut string, code int) {
	t.Helper()
	if a.out != out || a.errOut != errOut || a.code != code {
		t.Errorf("%s:\nout  %q\nerr  %q\ncode %d\nwant\nout  %q\nerr  %q\ncode %d", a.call, a.out, a.errOut, a.code, out, errOut, code)
	}
}

// says checks that an answer is one line with all of these in it, on one of the two outputs.
func (a answer) says(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s: %q does not say %q", a.call, text, p)
		}
	}
	if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
		t.Errorf("%s: %q is not one line", a.call, text)
	}
}

func (m *machine) store(server, user, secret string) answer {
	b, err := json.Marshal(map[string]string{"ServerURL": server, "Username": user, "Secret": secret})
	if err != nil {
		m.t.Fatal(err)
	}
	return m.run(string(b), "store")
}

// files are those in Cove's folder, but for the locks.
func (m *machine) files() []string {
	m.t.Helper()
	var files []string
	err := filepath.WalkDir(m.env["COVE_HOME"], func(path string, d os.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !d.IsDir() && !strings.HasSuffix(path, ".lock") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return files
}

func credential(server, user, secret string) string {
	var b bytes.Buffer
	_ = json.NewEncoder(&b).Encode(struct{ ServerURL, Username, Secret string }{server, user, secret})
	return b.String()
}

const notFound = "credentials not found in native keychain\n"

func TestProtocol(t *testing.T) {
	m := headless(t)
	m.run("", "use", "file").is(t, "Credentials are kept in file from now on.\n", "", 0)
	m.run("ghcr.io", "get").is(t, notFound, "", 1)
	m.run("", "list").is(t, "{}\n", "", 0)
	m.run("ghcr.io", "erase").is(t, "", "", 0)

	m.store("ghcr.io", "alice", "s3cret").is(t, "", "", 0)
	m.run("ghcr.io\n", "get").is(t, credential("ghcr.io", "alice", "s3cret"), "", 0)
	m.store("ghcr.io", "bob", "0ther").is(t, "", "", 0)
	m.run("ghcr.io", "get").is(t, credential("ghcr.io", "bob", "0ther"), "", 0)
	m.store("127.0.0.1:5000", "<token>", "an identity token").is(t, "", "", 0)
	m.run("127.0.0.1:5000", "get").is(t, credential("127.0.0.1:5000", "<token>", "an identity token"), "", 0)
	m.run("unused", "list").is(t, `{"127.0.0.1:5000":"\u003ctoken\u003e","ghcr.io":"bob"}`+"\n", "", 0)

	m.run("ghcr.io", "erase").is(t, "", "", 0)
	m.run("ghcr.io", "erase").is(t, "", "", 0)
	m.run("ghcr.io", "get").is(t, notFound, "", 1)

	m.run("", "version").is(t, "docker-credential-cove (github.com/covedesk/cove/credhelper) v1.2.3\n", "", 0)
	m.run("", "--version").is(t, "docker-credential-cove (github.com/covedesk/cove/credhelper) v1.2.3\n", "", 0)
	m.run(`{"Username":"u","Secret":"s"}`, "store").is(t, "no credentials server URL\n", "", 1)
	m.run(`{"ServerURL":"ghcr.io","Secret":"s"}`, "store").is(t, "no credentials username\n", "", 1)
	m.run("\n", "get").is(t, "no credentials server URL\n", "", 1)
	m.run("", "erase").is(t, "no credentials server URL\n", "", 1)
	m.run("", "sing").is(t, "docker-credential-cove: unknown action: sing\n", "", 1)
}

func TestDockerHubIsOneServer(t *testing.T) {
	m := headless(t)
	m.run("", "use", "file")
	names := []string{"docker.io", "index.docker.io", "index.docker.io/v1/", "registry-1.docker.io", "https://docker.io",
		"https://index.docker.io/v1/", "https://registry-1.docker.io", "https://registry-1.docker.io/v2/", "Docker.io/"}
	for _, stored := range names {
		m.store(stored, "alice", "for "+stored).is(t, "", "", 0)
		m.run("", "list").is(t, `{"https://index.docker.io/v1/":"alice"}`+"\n", "", 0)
		for _, asked := range names {
			m.run(asked, "get").is(t, credential(asked, "alice", "for "+stored), "", 0)
		}
		m.run(names[len(names)-1], "erase").is(t, "", "", 0)
		m.run("", "list").is(t, "{}\n", "", 0)
	}
	m.store("docker.io", "alice", "s").is(t, "", "", 0)
	for _, other := range []string{"http://docker.io", "http://index.docker.io/v1/", "docker.io.example.com", "https://index.docker.io/v1/access-token", "index.docker.io:5000"} {
		m.run(other, "get").is(t, notFound, "", 1)
	}
}
