package main_test

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// dockerCLI is the one that was built into bin/, else the machine's.
func dockerCLI(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"../../../bin/docker", "docker"} {
		if path, err := exec.LookPath(name); err == nil {
			if path, err = filepath.Abs(path); err == nil {
				return path
			}
		}
	}
	t.Skip("there is no docker CLI: make tools builds it")
	return ""
}

// docker login stores with us, config.json has no secret, and docker logout erases.
func TestDockerLogin(t *testing.T) {
	const password = "c4nary password"
	registry := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, given, _ := r.BasicAuth(); user != "alice" || given != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer registry.Close()
	server := strings.TrimPrefix(registry.URL, "https://")

	docker := dockerCLI(t)
	m := headless(t)
	m.run("", "use", "file")
	dir := t.TempDir()
	config := filepath.Join(dir, "config.json")
	if err := os.WriteFile(config, []byte(`{"credsStore":"cove"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	// Without an engine the CLI logs in by itself, and then not by plain http.
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: registry.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	m = m.with("DOCKER_CONFIG", dir, "SSL_CERT_FILE", ca, "DOCKER_HOST", "unix://"+filepath.Join(dir, "nobody.sock"),
		"PATH", filepath.Dir(program)+string(os.PathListSeparator)+os.Getenv("PATH"))
	run := func(in string, args ...string) (string, error) {
		cmd := m.command(docker, args...)
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("wrong", "login", "--username", "alice", "--password-stdin", server); err == nil {
		t.Errorf("docker login with a wrong password succeeds:\n%s", out)
	}
	m.run(server, "get").is(t, notFound, "", 1)
	if out, err := run(password, "login", "--username", "alice", "--password-stdin", server); err != nil || !strings.Contains(out, "Login Succeeded") {
		t.Fatalf("docker login: %v\n%s", err, out)
	}
	m.run(server, "get").is(t, credential(server, "alice", password), "", 0)
	m.run("", "list").is(t, `{"`+server+`":"alice"}`+"\n", "", 0)
	b, err := os.ReadFile(config)
	if err != nil || !strings.Contains(string(b), server) || strings.Contains(string(b), "auth\":") || strings.Contains(string(b), "c4nary") {
		t.Errorf("config.json holds %s, %v; want the server and no secret", b, err)
	}
	// The CLI finds what it stored. With that it logs in through an engine, and here is none.
	if out, _ := run("", "login", server); !strings.Contains(out, "Username: alice") {
		t.Errorf("docker login a second time does not find the user:\n%s", out)
	}
	if out, err := run("", "logout", server); err != nil {
		t.Errorf("docker logout: %v\n%s", err, out)
	}
	m.run(server, "get").is(t, notFound, "", 1)
	if left := m.files(); len(left) != 1 {
		t.Errorf("after the logout Cove's folder has %v; want the choice alone", left)
	}
}
