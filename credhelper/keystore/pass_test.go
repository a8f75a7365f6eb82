//go:build !windows

package keystore

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker-credential-helpers/credentials"
)

// gpg makes a GNUPGHOME of the test's own with one key, and a password store for it. Nobody is there to
// type a passphrase.
func gpg(t *testing.T, passphrase string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "cove-gpg-") // the agent's socket is in it, whose path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GNUPGHOME", dir)
	t.Setenv("HOME", t.TempDir())
	t.Setenv("PASSWORD_STORE_DIR", filepath.Join(t.TempDir(), "store"))
	t.Cleanup(func() {
		forget(t)
		os.RemoveAll(dir)
	})
	// Without a count the agent measures the machine first, for seconds when it is busy.
	if err := os.WriteFile(filepath.Join(dir, "gpg-agent.conf"), []byte("pinentry-program /bin/false\ns2k-count 65536\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(in string, args ...string) string {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v (make deps installs what is missing)\n%s", args, err, out)
		}
		return string(out)
	}
	run(passphrase, "gpg", "--batch", "--quiet", "--pinentry-mode=loopback", "--passphrase-fd=0", "--quick-gen-key", "cove test <t@example.invalid>", "future-default", "default", "never")
	// By its fingerprint: gpg looks for an address on the network when it does not have the key.
	keys := run("", "gpg", "--batch", "--with-colons", "--list-keys")
	_, fpr, _ := strings.Cut(keys, "\nfpr:")
	fpr, _, _ = strings.Cut(strings.TrimLeft(fpr, ":"), ":")
	run("", "pass", "init", fpr)
	forget(t)
}

// forget ends the agent, and with it what it remembers of passphrases.
func forget(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("gpgconf", "--kill", "all").CombinedOutput(); err != nil {
		t.Errorf("gpgconf --kill all: %v\n%s", err, out)
	}
}

func TestPassKeepsTheContract(t *testing.T) {
	gpg(t, "")
	contract(t, newPass(false))
	contract(t, newPass(true))
	var left []string
	err := filepath.WalkDir(os.Getenv("PASSWORD_STORE_DIR"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != ".gpg-id" {
			left = append(left, path)
		}
		return err
	})
	if err != nil || len(left) > 0 {
		t.Errorf("the password store has %v, %v; want nothing left", left, err)
	}
}

func TestPassWithALockedKey(t *testing.T) {
	gpg(t, "a passphrase")
	s := newPass(false)
	add(t, s, "ghcr.io", "alice", "secret") // encrypting asks nothing
	for _, ask := range []bool{false, true} {
		s := newPass(ask)
		if _, _, err := s.Get("ghcr.io"); !IsLocked(err) {
			t.Errorf("Get with a locked key, ask %v = %v; want Locked", ask, err)
		}
		if err := Probe(s); !IsLocked(err) {
			t.Errorf("Probe with a locked key, ask %v = %v; want Locked", ask, err)
		}
	}
	holds(t, s, map[string]string{"ghcr.io": "alice"})
}

func TestPassThatIsNotSetUp(t *testing.T) {
	t.Setenv("PASSWORD_STORE_DIR", t.TempDir())
	s := newPass(true)
	says := func(want string) {
		t.Helper()
		var p *Problem
		if err := Probe(s); !errors.As(err, &p) || !strings.Contains(p.Why, want) || p.Remedy == "" {
			t.Errorf("Probe = %v; want a problem with %q", err, want)
		}
		missing(t, s, "ghcr.io")
		holds(t, s, map[string]string{})
	}
	says("no key yet")
	t.Setenv("PATH", t.TempDir())
	says("not in PATH")
}

func TestPassKeyIsGone(t *testing.T) {
	gpg(t, "")
	s := newPass(false)
	add(t, s, "ghcr.io", "alice", "secret")
	empty := t.TempDir()
	if err := os.Chmod(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GNUPGHOME", empty)
	defer forget(t)
	var p *Problem
	if _, _, err := s.Get("ghcr.io"); !errors.As(err, &p) || !strings.Contains(p.Why, "secret key") {
		t.Errorf("Get without the key = %v; want a problem that says so", err)
	}
	if err := s.Add(&credentials.Credentials{ServerURL: "quay.io", Username: "bob", Secret: "x"}); !errors.As(err, &p) || !strings.Contains(p.Why, "cannot encrypt") {
		t.Errorf("Add without the key = %v; want a problem that says so", err)
	}
}

// A user's name becomes a file's name in the password store.
func TestPassStaysInItsFolder(t *testing.T) {
	gpg(t, "")
	for _, user := range []string{"../../mail", "a/b", "..", `a\b`} {
		if err := newPass(true).Add(&credentials.Credentials{ServerURL: "ghcr.io", Username: user, Secret: "x"}); err == nil {
			t.Errorf("Add for the user %q = nil; want an error", user)
		}
	}
}
