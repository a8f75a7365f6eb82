package main_test

import (
	"os"
	"strings"
	"testing"

	"github.com/covedesk/cove/credhelper"
	"github.com/covedesk/cove/credhelper/internal/desktop"
)

// The keyring is chosen where there is one. When it is away, pulls go on and a login fails, and nothing
// goes elsewhere; when it is back, what it held is there.
func TestChoiceStays(t *testing.T) {
	m := headless(t)
	conn := desktop.Bus(t)
	desktop.Keyring(t, conn)
	at := m.with("DBUS_SESSION_BUS_ADDRESS", os.Getenv("DBUS_SESSION_BUS_ADDRESS"))
	at.store("ghcr.io", "alice", "s3cret").is(t, "", "", 0)
	if st := at.status(); st.Choice != (credhelper.Choice{Keystore: "secret-service", By: "test"}) {
		t.Errorf("%+v is chosen; want the secret service, by test", st.Choice)
	}

	a := m.run("ghcr.io", "get") // as over ssh
	a.says(t, a.errOut, "There is no session bus here", "use file")
	if a.out != notFound || a.code != 1 {
		t.Errorf("%s: %q, %d; want not found", a.call, a.out, a.code)
	}
	a = m.run("", "list")
	a.says(t, a.errOut, "There is no session bus here")
	if a.out != "{}\n" || a.code != 0 {
		t.Errorf("%s: %q, %d; want an empty list", a.call, a.out, a.code)
	}
	a = m.store("quay.io", "alice", "c4nary")
	a.says(t, a.out, "not stored", "There is no session bus here", "use file")
	b := m.run("ghcr.io", "erase")
	b.says(t, b.out, "not erased", "There is no session bus here")
	if a.code != 1 || b.code != 1 || strings.Contains(a.out+a.errOut, "c4nary") {
		t.Errorf("store and erase: exit %d and %d; want 1, and no secret", a.code, b.code)
	}
	if k := m.keystore("secret-service"); !k.Chosen || k.Usable || k.Remedy == "" {
		t.Errorf("status without the bus: %+v; want it chosen and not usable, with a remedy", k)
	}
	if len(m.files()) != 1 {
		t.Errorf("Cove's folder has %v; want the choice alone", m.files())
	}

	desktop.Lock(t, conn)
	a = at.with("COVE_ASK", "no").run("", "list")
	if a.says(t, a.errOut, "The keyring is locked."); strings.Contains(a.errOut, "window") {
		t.Errorf("%s: %q: it asked, and was told not to", a.call, a.errOut)
	}
	a = at.run("", "list")
	a.says(t, a.errOut, "The keyring is locked, and the window")
	if k := at.keystore("secret-service"); !k.Locked || k.Usable {
		t.Errorf("status with a locked keyring: %+v; want it locked", k)
	}
	a = at.run("ghcr.io", "get")
	a.says(t, a.errOut, "The keyring is locked")
	at.run("public.example.com", "get").is(t, notFound, "", 1) // and nothing is said of it for others
}

// Before there is a choice, what docker's own helper has stored is found.
func TestEntriesOfTheOfficialHelper(t *testing.T) {
	m := headless(t)
	desktop.Keyring(t, desktop.Bus(t))
	m = m.with("DBUS_SESSION_BUS_ADDRESS", os.Getenv("DBUS_SESSION_BUS_ADDRESS"))
	desktop.SecretTool(t, "theirs", "store", "--label", "Registry credentials for docker.io",
		"xdg:schema", "io.docker.Credentials", "label", "Docker Credentials", "server", "docker.io", "username", "alice", "docker_cli", "1")
	m.run("https://index.docker.io/v1/", "get").is(t, credential("https://index.docker.io/v1/", "alice", "theirs"), "", 0)
	m.run("", "list").is(t, `{"https://index.docker.io/v1/":"alice"}`+"\n", "", 0)
	if left := m.files(); len(left) != 0 {
		t.Errorf("a get left %v", left)
	}
	m.run("docker.io", "erase").is(t, "", "", 0)
	m.run("docker.io", "get").is(t, notFound, "", 1)
}

func TestPassWhereItIsSetUp(t *testing.T) {
	m := headless(t)
	desktop.GPG(t, "")
	m = m.with("GNUPGHOME", os.Getenv("GNUPGHOME"), "PASSWORD_STORE_DIR", os.Getenv("PASSWORD_STORE_DIR"))
	m.store("docker.io", "<token>", "s3cret")
	if st := m.status(); st.Choice != (credhelper.Choice{Keystore: "pass", By: "test"}) {
		t.Errorf("%+v is chosen; want pass, by test", st.Choice)
	}
	m.run("index.docker.io", "get").is(t, credential("index.docker.io", "<token>", "s3cret"), "", 0)
	a := m.with("PATH", t.TempDir()).run("docker.io", "get")
	a.says(t, a.errOut, "pass is not in PATH")
	if a.out != notFound {
		t.Errorf("%s: %q; want not found", a.call, a.out)
	}
}

// A passphrase is typed once, unseen, and then every process reads, until lock.
func TestPassphrase(t *testing.T) {
	memory, err := os.MkdirTemp("/dev/shm", "cove-test-") // as XDG_RUNTIME_DIR is: in memory, and the user's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(memory) })
	m := headless(t)
	m.store("ghcr.io", "alice", "s3cret").is(t, "", fallback, 0)
	a := m.run("correct horse\n", "use", "file", "--passphrase")
	a.says(t, a.errOut, "is on a disk", "--no-passphrase")
	m.run("ghcr.io", "get").is(t, credential("ghcr.io", "alice", "s3cret"), "", 0)

	m = m.with("XDG_RUNTIME_DIR", memory)
	shown, code, echo := m.converse("use file --passphrase", "New passphrase: ", "correct horse\n", "The same again: ", "correct horse\n")
	if strings.Contains(shown, "horse") || !strings.Contains(shown, "kept in file from now on") || code != 0 || !echo {
		t.Errorf("use --passphrase: exit %d, echo %v, shows %q", code, echo, shown)
	}
	m.run("ghcr.io", "get").is(t, credential("ghcr.io", "alice", "s3cret"), "", 0)
	m.run("", "lock").is(t, "The encrypted file is locked.\n", "", 0)
	a = m.run("ghcr.io", "get")
	a.says(t, a.errOut, "The encrypted file is locked.", "docker-credential-cove unlock")
	a = m.store("quay.io", "bob", "c4nary")
	a.says(t, a.out, "not stored", "docker-credential-cove unlock")
	if k := m.keystore("file"); !k.Locked || k.Usable || !k.Chosen {
		t.Errorf("status of the locked file: %+v", k)
	}
	a = m.run("incorrect horse\n", "unlock")
	a.says(t, a.errOut, "not the passphrase")
	shown, code, echo = m.converse("unlock", "Passphrase of the encrypted file: ", "\x03") // Ctrl-C
	if code != 130 || !echo {
		t.Errorf("unlock, interrupted: exit %d, echo %v, shows %q; want 130 and the terminal as it was", code, echo, shown)
	}
	shown, code, echo = m.converse("unlock", "Passphrase of the encrypted file: ", "correct horse\n")
	if strings.Contains(shown, "horse") || !strings.Contains(shown, "is unlocked until logout") || code != 0 || !echo {
		t.Errorf("unlock: exit %d, echo %v, shows %q", code, echo, shown)
	}
	m.run("ghcr.io", "get").is(t, credential("ghcr.io", "alice", "s3cret"), "", 0)
	a = m.run("short\n", "use", "file", "--passphrase")
	a.says(t, a.errOut, "8 characters")
	m.run("", "use", "file", "--no-passphrase").is(t, "Credentials are kept in file from now on.\n", "", 0)
	m.run("", "lock")
	m.run("ghcr.io", "get").is(t, credential("ghcr.io", "alice", "s3cret"), "", 0)
}
