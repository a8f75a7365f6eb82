//go:build !windows

package keystore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/covedesk/cove/credhelper/internal/desktop"
	"github.com/docker/docker-credential-helpers/credentials"
)

func TestPassKeepsTheContract(t *testing.T) {
	desktop.GPG(t, "")
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
	desktop.GPG(t, "a passphrase")
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

// gpg that waits for a window that nobody sees holds up nobody for long.
func TestPassThatWaits(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PASSWORD_STORE_DIR", dir)
	bin := t.TempDir()
	for path, text := range map[string]string{filepath.Join(dir, ".gpg-id"): "id\n", filepath.Join(bin, "pass"): "#!/bin/sh\nexec sleep 5\n"} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	s := newPass(true)
	s.within = 100 * time.Millisecond
	var p *Problem
	if err := s.Add(&credentials.Credentials{ServerURL: "ghcr.io", Username: "alice", Secret: "x"}); !errors.As(err, &p) || !strings.Contains(p.Why, "did not answer within 100ms") {
		t.Errorf("Add = %v; want a problem that says so", err)
	}
}

func TestPassKeyIsGone(t *testing.T) {
	desktop.GPG(t, "")
	s := newPass(false)
	add(t, s, "ghcr.io", "alice", "secret")
	empty := t.TempDir()
	if err := os.Chmod(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GNUPGHOME", empty)
	defer desktop.ForgetPassphrases(t)
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
	desktop.GPG(t, "")
	for _, user := range []string{"../../mail", "a/b", "..", `a\b`} {
		if err := newPass(true).Add(&credentials.Credentials{ServerURL: "ghcr.io", Username: user, Secret: "x"}); err == nil {
			t.Errorf("Add for the user %q = nil; want an error", user)
		}
	}
}
