package credhelper

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/covedesk/cove/credhelper/keystore"
	"github.com/docker/docker-credential-helpers/credentials"
)

// sealed is a keystore that is locked, and counts the questions that nobody answers.
type sealed struct {
	memory
	ask   bool
	asked *int
}

func (s sealed) locked() error {
	if s.ask {
		*s.asked++
	}
	return &keystore.Problem{Why: "It is locked.", Remedy: "Unlock it.", Locked: true}
}

func (s sealed) Add(*credentials.Credentials) error            { return s.locked() }
func (s sealed) Delete(string) error                           { return s.locked() }
func (s sealed) Get(string) (username, secret string, _ error) { return "", "", s.locked() }
func (s sealed) List() (map[string]string, error)              { return nil, s.locked() }

func TestNobodyIsAskedAgainAndAgain(t *testing.T) {
	asked := 0
	h := &Helper{dir: t.TempDir(), ask: true, warn: io.Discard, stores: func(ask bool) []keystore.Store {
		return []keystore.Store{sealed{memory{}, ask, &asked}}
	}}
	if err := h.remember(Choice{Keystore: "memory", By: "user"}); err != nil {
		t.Fatal(err)
	}
	questions := func(what string, want int, do func()) {
		t.Helper()
		asked = 0
		do()
		if asked != want {
			t.Errorf("%s asks %d times; want %d", what, asked, want)
		}
	}
	pulls := func() {
		for range 20 {
			if _, _, err := h.Get("ghcr.io"); !credentials.IsErrCredentialsNotFound(err) {
				t.Errorf("Get = %v; want not found", err)
			}
			if users, err := h.List(); err != nil || len(users) != 0 {
				t.Errorf("List() = %v, %v; want nothing", users, err)
			}
		}
	}
	questions("twenty pulls", 1, pulls)
	questions("a login after them", 1, func() { _ = h.Add(&credentials.Credentials{ServerURL: "ghcr.io", Username: "a"}) })
	questions("a logout", 1, func() { _ = h.Delete("ghcr.io") })
	past := time.Now().Add(-quiet - time.Second)
	if err := os.Chtimes(filepath.Join(h.dir, unansweredFile), past, past); err != nil {
		t.Fatal(err)
	}
	questions("twenty pulls later on", 1, pulls)
}
