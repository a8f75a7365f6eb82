package keystore

import (
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/credhelper/internal/desktop"
	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/godbus/dbus/v5"
)

func TestSecretServiceKeepsTheContract(t *testing.T) {
	desktop.Keyring(t, desktop.Bus(t))
	contract(t, newSecretService(false))
	if left := desktop.SecretTool(t, "", "search", "--all", "docker_cli", "1"); left != "" {
		t.Errorf("items are left behind:\n%s", left)
	}
}

// libsecret's client finds our items by the attributes of the official helper, and we find its.
func TestSecretServiceSharesItsItems(t *testing.T) {
	desktop.Keyring(t, desktop.Bus(t))
	s := newSecretService(false)
	official := func(server, user string) []string {
		return []string{"xdg:schema", "io.docker.Credentials", "label", "Docker Credentials", "server", server, "username", user, "docker_cli", "1"}
	}
	add(t, s, "ghcr.io", "alice", "ours")
	if got := desktop.SecretTool(t, "", append([]string{"lookup"}, official("ghcr.io", "alice")...)...); got != "ours" {
		t.Errorf("secret-tool lookup gives %q; want what we stored", got)
	}
	if got := desktop.SecretTool(t, "", "search", "server", "ghcr.io"); !strings.Contains(got, "label = Registry credentials for ghcr.io\n") || !strings.Contains(got, "schema = io.docker.Credentials\n") {
		t.Errorf("secret-tool search gives\n%s", got)
	}
	// What the official helper does at a second login leaves both users' items; the label is no key.
	desktop.SecretTool(t, "old", append([]string{"store", "--label", "Registry credentials for quay.io"}, official("quay.io", "zoe")...)...)
	stored := time.Now().Unix() // the service counts in seconds
	desktop.Until(t, "another second", func() bool { return time.Now().Unix() > stored })
	desktop.SecretTool(t, "new", append([]string{"store", "--label", "Registry credentials for quay.io"}, official("quay.io", "bob")...)...)
	gives(t, s, "quay.io", "bob", "new")
	holds(t, s, map[string]string{"ghcr.io": "alice", "quay.io": "bob"})
	add(t, s, "quay.io", "carol", "newest")
	gives(t, s, "quay.io", "carol", "newest")
	if n := strings.Count(desktop.SecretTool(t, "", "search", "--all", "server", "quay.io"), "[/"); n != 1 {
		t.Errorf("quay.io has %d items after a login as another user; want 1", n)
	}
	add(t, s, "quay.io", "bob", "again")
	desktop.SecretTool(t, "", append([]string{"clear"}, official("quay.io", "bob")...)...)
	missing(t, s, "quay.io")
}

// A prompter is not there, as over ssh.
func TestLockedKeyring(t *testing.T) {
	conn := desktop.Bus(t)
	desktop.Keyring(t, conn)
	add(t, newSecretService(false), "ghcr.io", "alice", "ours")
	desktop.Lock(t, conn)
	for _, ask := range []bool{false, true} {
		s := newSecretService(ask)
		if err := Probe(s); !IsLocked(err) {
			t.Errorf("Probe of a locked keyring, ask %v = %v; want Locked", ask, err)
		}
		if _, _, err := s.Get("ghcr.io"); !IsLocked(err) {
			t.Errorf("Get of a locked keyring, ask %v = %v; want Locked", ask, err)
		}
		if err := s.Delete("ghcr.io"); !IsLocked(err) {
			t.Errorf("Delete of a locked keyring, ask %v = %v; want Locked", ask, err)
		}
		missing(t, s, "public.example.com") // nothing is asked for what is not there
	}
}

func TestNoKeyring(t *testing.T) {
	s := newSecretService(true)
	says := func(want string) {
		t.Helper()
		var p *Problem
		if _, _, err := s.Get("ghcr.io"); !errors.As(err, &p) || !strings.Contains(p.Why, want) || p.Remedy == "" {
			t.Errorf("Get = %v; want a problem with %q", err, want)
		}
	}
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	says("no session bus")

	desktop.Bus(t)
	says("No keyring runs")

	s.callWithin = 200 * time.Millisecond
	silent, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+silent.Addr().String())
	says("bus does not answer")
}

// service stands in for a keyring whose window somebody sees. It has one item, which is locked, and knows
// no encryption of secrets.
type service struct {
	conn *dbus.Conn

	mu     sync.Mutex
	answer string // what happens to the window: "types", "closes", "leaves it"
	locked bool
	asked  int
	silent chan struct{} // not nil: nothing is answered until it is closed
}

const (
	itemPath   = dbus.ObjectPath("/org/freedesktop/secrets/collection/c/1")
	promptPath = dbus.ObjectPath("/org/freedesktop/secrets/prompt/p")
)

func (f *service) OpenSession(algorithm string, _ dbus.Variant) (dbus.Variant, dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	silent := f.silent
	f.mu.Unlock()
	if silent != nil {
		<-silent
	}
	if algorithm != "plain" {
		return dbus.Variant{}, "", dbus.NewError(notSupported, nil)
	}
	return dbus.MakeVariant(""), "/org/freedesktop/secrets/session/s", nil
}

func (f *service) SearchItems(map[string]string) (open, locked []dbus.ObjectPath, _ *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.locked {
		return []dbus.ObjectPath{}, []dbus.ObjectPath{itemPath}, nil
	}
	return []dbus.ObjectPath{itemPath}, []dbus.ObjectPath{}, nil
}

func (f *service) Unlock([]dbus.ObjectPath) ([]dbus.ObjectPath, dbus.ObjectPath, *dbus.Error) {
	return []dbus.ObjectPath{}, promptPath, nil
}

func (f *service) Prompt(string) *dbus.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	answer := f.answer
	if answer == "types" {
		f.locked = false
	}
	go func() { // after our own answer
		switch answer {
		case "types":
			_ = f.conn.Emit(promptPath, ssPrompt+".Completed", false, dbus.MakeVariant([]dbus.ObjectPath{itemPath}))
		case "closes":
			_ = f.conn.Emit(promptPath, ssPrompt+".Completed", true, dbus.MakeVariant(""))
		}
	}()
	return nil
}

func (f *service) Dismiss() *dbus.Error { return nil }

func (f *service) GetSecret(session dbus.ObjectPath) (secretValue, *dbus.Error) {
	return secretValue{session, []byte{}, []byte("opened"), "text/plain"}, nil
}

func (f *service) GetAll(string) (map[string]dbus.Variant, *dbus.Error) {
	return map[string]dbus.Variant{"Attributes": dbus.MakeVariant(map[string]string{"server": "ghcr.io", "username": "alice"})}, nil
}

func TestPrompt(t *testing.T) {
	f := &service{conn: desktop.Bus(t)}
	for path, iface := range map[dbus.ObjectPath]string{ssPath: ssService, promptPath: ssPrompt, itemPath: ssItem} {
		if err := f.conn.Export(f, path, iface); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.conn.Export(f, itemPath, "org.freedesktop.DBus.Properties"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.conn.RequestName(ssName, dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		what, answer string
		ask          bool
		why          string // empty: the secret comes
		asked        int
	}{
		{"the user types the password", "types", true, "", 1},
		{"the user closes the window", "closes", true, "was closed", 1},
		{"nobody sees the window", "leaves it", true, "nobody answered", 1},
		{"a probe asks nobody", "types", false, "is locked", 0},
	} {
		t.Run(row.what, func(t *testing.T) {
			f.mu.Lock()
			f.answer, f.locked, f.asked = row.answer, true, 0
			f.mu.Unlock()
			s := newSecretService(row.ask)
			if row.answer == "leaves it" {
				s.askWithin = 200 * time.Millisecond
			}
			user, secret, err := s.Get("ghcr.io")
			if row.why == "" && (err != nil || user != "alice" || secret != "opened") {
				t.Errorf("Get = %q, %q, %v; want alice's secret", user, secret, err)
			}
			if row.why != "" && (!IsLocked(err) || !strings.Contains(err.Error(), row.why)) {
				t.Errorf("Get = %v; want Locked, because %q", err, row.why)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.asked != row.asked {
				t.Errorf("%d windows were shown; want %d", f.asked, row.asked)
			}
		})
	}
	silent := make(chan struct{})
	defer close(silent)
	f.mu.Lock()
	f.silent = silent
	f.mu.Unlock()
	s := newSecretService(true)
	s.callWithin = 200 * time.Millisecond
	var p *Problem
	if _, _, err := s.Get("ghcr.io"); !errors.As(err, &p) || !strings.Contains(p.Why, "did not answer in time") || credentials.IsErrCredentialsNotFound(err) {
		t.Errorf("Get of a keyring that hangs = %v", err)
	}
}
