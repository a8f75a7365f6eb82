//go:build unix

package credentials

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/covedesk/cove/app/internal/testregistry"
)

// docker is the CLI that ships, or the system's.
func docker(t *testing.T) string {
	t.Helper()
	if path, err := filepath.Abs("../../../bin/docker"); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("no docker CLI to ask: make build")
	}
	return path
}

// trust makes docker trust the registry's CA. Without an engine it logs in by itself, and then not by plain
// http, which it would speak to loopback through one.
func trust(t *testing.T, r *testregistry.Registry) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	write(t, ca, string(r.CA.PEM), 0o600)
	t.Setenv("SSL_CERT_FILE", ca)
}

// allOf gives all that a program says.
func allOf(stdin, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// A user whose settings name a helper that is gone logs in, with docker and cove as they ship.
func TestDockerLogsInAgain(t *testing.T) {
	cli := docker(t)
	r := testregistry.Start(t, testregistry.Options{TLS: true, Htpasswd: map[string]string{"alice": "s3cret-word"}})
	s := user(t, "{\n\t\"auths\": {},\n\t\"credsStore\": \"desktop\"\n}")
	trust(t, r)
	login := []string{"login", "--username", "alice", "--password-stdin", r.Addr}
	cove := filepath.Join(built, "cove")

	if out, err := allOf("s3cret-word", cli, login...); err == nil || !strings.Contains(out, "docker-credential-desktop") {
		t.Errorf("with a helper that is gone docker login = %v\n%s", err, out)
	}
	if out, err := allOf("", cove, "credentials", "doctor"); err == nil || !strings.Contains(out, "docker-credential-desktop") {
		t.Errorf("cove credentials doctor = %v\n%s", err, out)
	}
	if out, err := allOf("", cove, "credentials", "doctor", "--fix"); err != nil {
		t.Errorf("cove credentials doctor --fix = %v\n%s", err, out)
	}
	if out, err := allOf("s3cret-word", cli, login...); err != nil || strings.Contains(out, "unencrypted") {
		t.Errorf("docker login = %v\n%s", err, out)
	}
	if got := held(t, r.Addr); got != "alice:s3cret-word" {
		t.Errorf("the keystore has %s", got)
	}
	if got := read(t, s.Docker.Path()); strings.Contains(got, auth("alice", "s3cret-word")) || !strings.Contains(got, r.Addr) {
		t.Errorf("after the login the settings are %s", got)
	}
	if out, err := allOf("", cove, "credentials", "status"); err != nil || !strings.Contains(out, "alice at "+r.Addr) || strings.Contains(out, "s3cret-word") {
		t.Errorf("cove credentials status = %v\n%s", err, out)
	}
	if out, err := allOf("", cli, "logout", r.Addr); err != nil {
		t.Errorf("docker logout = %v\n%s", err, out)
	}
	if got := held(t, r.Addr); !strings.HasPrefix(got, "none") {
		t.Errorf("after the logout the keystore has %s", got)
	}
}

// A login in plain text, as docker writes it without a helper, is moved, and docker uses what was moved.
func TestWhatDockerKeptInPlainTextIsMoved(t *testing.T) {
	cli := docker(t)
	r := testregistry.Start(t, testregistry.Options{TLS: true, Token: map[string]string{"alice": "s3cret-word"}})
	s := user(t, "")
	trust(t, r)
	if out, err := allOf("s3cret-word", cli, "login", "--username", "alice", "--password-stdin", r.Addr); err != nil {
		t.Fatalf("docker login = %v\n%s", err, out)
	}
	before := read(t, s.Docker.Path())
	if !strings.Contains(before, `"auth": "`) {
		t.Fatalf("docker does not keep it in plain text: %s", before)
	}
	if out, err := allOf("", filepath.Join(built, "cove"), "credentials", "use", "file", "--yes"); err != nil {
		t.Fatalf("cove credentials use = %v\n%s", err, out)
	}
	if got := read(t, s.Docker.Path()); strings.Contains(got, `"auth"`) || strings.Contains(got, "identitytoken") {
		t.Errorf("the settings are %s", got)
	}
	if got := held(t, r.Addr); strings.HasPrefix(got, "none") {
		t.Errorf("the keystore has %s", got)
	}
	// A login without a word takes what is kept; without an engine it gets no further.
	if out, _ := allOf("", cli, "login", r.Addr); !strings.Contains(out, "Authenticating with existing credentials... [Username: alice]") {
		t.Errorf("docker does not find what was moved: %s", out)
	}
}
