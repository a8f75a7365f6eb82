package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/covedesk/cove/credhelper"
)

func (m *machine) status() credhelper.Status {
	m.t.Helper()
	a := m.run("", "status", "--json")
	var st credhelper.Status
	if err := json.Unmarshal([]byte(a.out), &st); err != nil || a.code != 0 {
		m.t.Fatalf("status --json gives %q, %q, %d: %v", a.out, a.errOut, a.code, err)
	}
	return st
}

func (m *machine) keystore(name string) credhelper.Keystore {
	m.t.Helper()
	for _, k := range m.status().Keystores {
		if k.Name == name {
			return k
		}
	}
	m.t.Fatalf("status knows no keystore %q", name)
	return credhelper.Keystore{}
}

// fallback is what the first login on a headless machine says.
const fallback = "docker-credential-cove: the Secret Service does not work here, so credentials are kept in the keystore \"file\" from now on; docker-credential-cove status says more.\n"

func TestStatusOfAHeadlessMachine(t *testing.T) {
	m := headless(t)
	st := m.status()
	if st.Choice.Keystore != "" || len(st.Keystores) == 0 {
		t.Errorf("status = %+v; want no choice", st)
	}
	for _, k := range st.Keystores {
		if k.Usable != (k.Name == "file") || k.Chosen || k.Why == "" || !k.Usable && k.Remedy == "" {
			t.Errorf("%+v: only the file is usable, and the others say why not and what to do", k)
		}
	}
	if left := m.files(); len(left) != 0 {
		t.Errorf("a test of the keystores left %v", left)
	}
	m.store("ghcr.io", "alice", "s").is(t, "", fallback, 0)
	if st := m.status(); st.Choice != (credhelper.Choice{Keystore: "file", By: "test"}) || !m.keystore("file").Chosen {
		t.Errorf("status after a store = %+v; want the file, by test", st)
	}
	m.run("ghcr.io", "get").is(t, credential("ghcr.io", "alice", "s"), "", 0)
	a := m.run("", "status")
	if !strings.Contains(a.out, "* file ") || !strings.Contains(a.out, "secret-service  does not work") {
		t.Errorf("status prints\n%s", a.out)
	}
}

func TestUse(t *testing.T) {
	m := headless(t)
	a := m.run("", "use", "pass")
	a.says(t, a.errOut, "pass has no key yet.", "pass init")
	if a.code != 1 || m.status().Choice.Keystore != "" {
		t.Errorf("%s: exit %d, and %+v is chosen; want an error and no choice", a.call, a.code, m.status().Choice)
	}
	a = m.run("", "use", "safe")
	a.says(t, a.errOut, `no keystore "safe"`, "secret-service, pass, file")
	m.run("", "use", "file", "--json").is(t, `{"keystore":"file","by":"user"}`+"\n", "", 0)
	m.run("", "use", "auto", "--json").is(t, `{"keystore":"file","by":"test"}`+"\n", "", 0)
	for _, wrong := range [][]string{{"use"}, {"use", "a", "b"}, {"use", "file", "--what"}, {"status", "now"}, {"get", "ghcr.io"}, {}} {
		if a := m.run("", wrong...); a.code == 0 || !strings.Contains(a.out+a.errOut, "Usage: docker-credential-cove") {
			t.Errorf("%s: exit %d, %q, %q; want the usage and an error", a.call, a.code, a.out, a.errOut)
		}
	}
}

// Where Cove's folder cannot be used, public images are pulled all the same, and a login says why.
func TestNoFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m := headless(t).with("COVE_HOME", filepath.Join(file, "cove"))
	if a := m.run("ghcr.io", "get"); a.out != notFound || a.code != 1 {
		t.Errorf("%s: %q, %d; want not found", a.call, a.out, a.code)
	}
	a := m.run("", "list")
	a.says(t, a.errOut, "Cove's folder")
	if a.out != "{}\n" || a.code != 0 {
		t.Errorf("%s: %q, %d; want an empty list", a.call, a.out, a.code)
	}
	a = m.store("ghcr.io", "alice", "c4nary")
	a.says(t, a.out, "not stored", "Cove's folder "+filepath.Join(file, "cove"), "COVE_HOME")
	if a.code != 1 {
		t.Errorf("%s: exit %d; want 1", a.call, a.code)
	}
}

func TestDamagedChoice(t *testing.T) {
	m := headless(t)
	m.store("ghcr.io", "alice", "s").is(t, "", fallback, 0)
	path := filepath.Join(m.env["COVE_HOME"], "credentials", "keystore.json")
	for _, damage := range []string{"", "{", "[]", `{"keystore":""}`, `{"keystore":"safe"}`} {
		if err := os.WriteFile(path, []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		a := m.run("ghcr.io", "get")
		a.says(t, a.errOut, "use NAME")
		if a.out != notFound || a.code != 1 {
			t.Errorf("%s with the choice %q: %q, %d; want not found", a.call, damage, a.out, a.code)
		}
		a = m.store("ghcr.io", "bob", "c4nary")
		a.says(t, a.out, "not stored", "use NAME")
		if a.code != 1 {
			t.Errorf("%s with the choice %q: exit %d; want 1", a.call, damage, a.code)
		}
	}
	if a := m.run("", "use", "auto"); a.code != 0 {
		t.Errorf("%s: %d, %q", a.call, a.code, a.errOut)
	}
	m.run("ghcr.io", "get").is(t, credential("ghcr.io", "alice", "s"), "", 0)
}

// What is wrong with the input is said without quoting it.
func TestErrorsQuoteNoSecret(t *testing.T) {
	m := headless(t)
	m.run("", "use", "file")
	for _, in := range []string{
		`{"ServerURL":"ghcr.io","Username":"alice","Secret":"c4nary`,
		`{"ServerURL":"ghcr.io","Username":7,"Secret":"c4nary"}`,
		`{"ServerURL":"ghcr.io","Username":"al\u0000ice","Secret":"c4nary"}`,
		`{"ServerURL":"gh\ncr.io","Username":"alice","Secret":"c4nary"}`,
		`"c4nary"`, `c4nary`,
		`{"ServerURL":"ghcr.io","Username":"alice","Secret":"` + strings.Repeat("c4nary", 20000) + `"}`,
	} {
		a := m.run(in, "store")
		a.says(t, a.out)
		if a.code != 1 || strings.Contains(a.out+a.errOut, "c4nary") {
			t.Errorf("%.80q | store: exit %d, %q, %q; want an error without the secret", in, a.code, a.out, a.errOut)
		}
	}
}

func TestWithoutHome(t *testing.T) {
	m := headless(t).with("COVE_HOME", "", "HOME", "")
	// The user's own folder is found by the user database then; what is asked for is in nobody's keystore.
	if a := m.run("nobody.invalid", "get"); a.out != notFound || a.code != 1 {
		t.Errorf("%s: %q, %d; want not found", a.call, a.out, a.code)
	}
}
