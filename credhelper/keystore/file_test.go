package keystore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker-credential-helpers/credentials"
)

// inMemory is an encrypted file whose unlocked identity is kept in a folder of the test's.
func inMemory(t *testing.T) *AgeFile {
	t.Helper()
	f := NewAgeFile(filepath.Join(t.TempDir(), "credentials"))
	memory := t.TempDir()
	f.runtime = func() (string, error) { return memory, nil }
	f.work = 10 // milliseconds
	return f
}

func TestFileKeepsTheContract(t *testing.T) {
	f := inMemory(t)
	contract(t, f)
	entries, err := os.ReadDir(f.dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != lockName {
		t.Errorf("%v is left behind, %v; want the lock alone", entries, err)
	}
}

func TestFileWithAPassphrase(t *testing.T) {
	f := inMemory(t)
	add(t, f, "ghcr.io", "alice", "secret")
	before, err := os.ReadFile(f.path(identityFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.SetPassphrase("correct horse"); err != nil {
		t.Fatal(err)
	}
	gives(t, f, "ghcr.io", "alice", "secret")
	if err := f.LockAgain(); err != nil {
		t.Fatal(err)
	}
	waits := func() {
		t.Helper()
		if _, _, err := f.Get("ghcr.io"); !IsLocked(err) {
			t.Errorf("Get = %v; want Locked", err)
		}
		if err := f.Add(&credentials.Credentials{ServerURL: "quay.io", Username: "u", Secret: "s"}); !IsLocked(err) {
			t.Errorf("Add = %v; want Locked", err)
		}
		if err := f.SetPassphrase("another one"); !IsLocked(err) {
			t.Errorf("SetPassphrase = %v; want Locked", err)
		}
		if err := Probe(f); !IsLocked(err) {
			t.Errorf("Probe = %v; want Locked", err)
		}
	}
	waits()
	for _, wrong := range []string{"", "incorrect horse"} {
		if err := f.Unlock(wrong); !errors.Is(err, ErrPassphrase) {
			t.Errorf("Unlock(%q) = %v; want ErrPassphrase", wrong, err)
		}
	}
	waits()
	// The identity from before the passphrase, in somebody's backup, opens nothing any more.
	id, err := parseIdentity(before)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := os.ReadFile(f.path(secretsFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(sealed, id); err == nil {
		t.Error("the old identity opens the file after a passphrase was set")
	}
	if err := f.Unlock("correct horse"); err != nil {
		t.Fatal(err)
	}
	gives(t, f, "ghcr.io", "alice", "secret")
	if err := f.Delete("ghcr.io"); err != nil {
		t.Fatal(err)
	}
	contract(t, f)
	if has, err := f.HasPassphrase(); !has || err != nil {
		t.Errorf("HasPassphrase after all entries went = %v, %v; want it to stay", has, err)
	}
	if err := f.SetPassphrase(""); err != nil {
		t.Fatal(err)
	}
	if err := f.LockAgain(); err != nil {
		t.Fatal(err)
	}
	contract(t, f)
}

func TestFileIsForItsUserAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes: the folder above says who may read")
	}
	f := inMemory(t)
	add(t, f, "ghcr.io", "alice", "secret")
	if err := f.SetPassphrase("correct horse"); err != nil {
		t.Fatal(err)
	}
	unlocked, err := f.unlockedPath()
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{f.dir: 0o700, f.path(secretsFile): 0o600, f.path(identityFile): 0o600, unlocked: 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, %v; want %v", path, info.Mode().Perm(), err, mode)
		}
		b, _ := os.ReadFile(path)
		if bytes.Contains(b, []byte("secret")) || bytes.Contains(b, []byte("ghcr")) || bytes.Contains(b, []byte("alice")) {
			t.Errorf("%s holds an entry in the clear", path)
		}
	}
}

// Readers go on while others store and the identity changes.
func TestFileWhileItChanges(t *testing.T) {
	f := inMemory(t)
	add(t, f, "ghcr.io", "alice", "secret")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					gives(t, f, "ghcr.io", "alice", "secret")
				}
			}
		})
	}
	for i := range 20 {
		add(t, f, fmt.Sprintf("r%d.example.com", i), "u", "s")
		if i%5 == 0 {
			if err := f.SetPassphrase(""); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	wg.Wait()
	if users, err := f.List(); err != nil || len(users) != 21 {
		t.Errorf("List() = %d entries, %v; want 21", len(users), err)
	}
}

func TestFileThatIsDamaged(t *testing.T) {
	for _, row := range []struct {
		what   string
		damage func(f *AgeFile) error
		says   string
	}{
		{"the identity is gone", func(f *AgeFile) error { return os.Remove(f.path(identityFile)) }, "put the identity back"},
		{"the identity is another one's", func(f *AgeFile) error {
			return os.WriteFile(f.path(identityFile), []byte("AGE-SECRET-KEY-1QQQQ"), 0o600)
		}, "the identity is damaged"},
		{"the file is cut off", func(f *AgeFile) error { return os.Truncate(f.path(secretsFile), 100) }, "decrypt"},
		{"the file is empty", func(f *AgeFile) error { return os.Truncate(f.path(secretsFile), 0) }, "decrypt"},
		{"the file is of a newer version", func(f *AgeFile) error {
			id, err := f.identity()
			if err != nil {
				return err
			}
			return f.write(&secrets{Version: 2, Servers: map[string]entry{}}, id.Recipient())
		}, "newer Cove"},
	} {
		t.Run(row.what, func(t *testing.T) {
			f := inMemory(t)
			add(t, f, "ghcr.io", "alice", "secret")
			if err := row.damage(f); err != nil {
				t.Fatal(err)
			}
			damaged, err := os.ReadFile(f.path(secretsFile))
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = f.Get("ghcr.io")
			var p *Problem
			if !errors.As(err, &p) || p.Remedy == "" || !strings.Contains(err.Error(), row.says) || strings.Contains(err.Error(), "QQQQ") {
				t.Errorf("Get = %v; want a problem with %q", err, row.says)
			}
			if err := f.Add(&credentials.Credentials{ServerURL: "quay.io", Username: "u", Secret: "s"}); err == nil {
				t.Error("Add = nil; want an error")
			}
			after, err := os.ReadFile(f.path(secretsFile))
			if err != nil || !bytes.Equal(damaged, after) {
				t.Error("a file that cannot be read was replaced")
			}
		})
	}
}
