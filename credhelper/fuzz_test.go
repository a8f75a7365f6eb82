package credhelper

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/covedesk/cove/credhelper/keystore"
	"github.com/docker/docker-credential-helpers/credentials"
)

// memory is a keystore without anything behind it.
type memory map[string]credentials.Credentials

func (memory) Name() string  { return "memory" }
func (memory) Title() string { return "memory" }

func (m memory) Add(c *credentials.Credentials) error { m[c.ServerURL] = *c; return nil }
func (m memory) Delete(server string) error           { delete(m, server); return nil }

func (m memory) Get(server string) (string, string, error) {
	c, ok := m[server]
	if !ok {
		return "", "", credentials.NewErrCredentialsNotFound()
	}
	return c.Username, c.Secret, nil
}

func (m memory) List() (map[string]string, error) {
	users := map[string]string{}
	for server, c := range m {
		users[server] = c.Username
	}
	return users, nil
}

// Whatever comes on the standard input: an answer is one line, of JSON or of an error; an error leaves
// nothing stored; what was stored is given back to the same name, listed, and gone when it is erased.
func FuzzInput(f *testing.F) {
	for _, seed := range []string{
		`{"ServerURL":"docker.io","Username":"alice","Secret":"s"}`, `{"ServerURL":" ghcr.io","Username":"<token>","Secret":"\u0000\n"}`,
		`{"ServerURL":"https://INDEX.docker.io/v1","Username":"a","Secret":""}`, "", "\n\n", "{", "null", `[]`, "ghcr.io", "https://docker.io/v2/\r\n", "\xff\xfe",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m := memory{}
		h := &Helper{dir: t.TempDir(), warn: io.Discard, stores: func(bool) []keystore.Store { return []keystore.Store{m} }}
		run := func(action, in string) (string, int) {
			var out bytes.Buffer
			code := protocol(h, action, strings.NewReader(in), &out)
			if s := out.String(); s != "" && (strings.Count(s, "\n") != 1 || !strings.HasSuffix(s, "\n")) || code == 1 && s == "" {
				t.Errorf("%s answers %d, %q; want one line", action, code, s)
			}
			return out.String(), code
		}
		for _, action := range []string{"get", "erase"} {
			run(action, string(in))
		}
		if _, code := run("store", string(in)); code != 0 {
			if len(m) != 0 {
				t.Errorf("store failed and left %v", m)
			}
			return
		}
		if len(m) != 1 {
			t.Fatalf("store came to %d entries; want 1", len(m))
		}
		for server, c := range m {
			if strings.TrimSpace(server) != server || !utf8.ValidString(server) {
				return // a client that asks for it loses the blanks: the protocol trims them
			}
			out, code := run("get", server)
			var got credentials.Credentials
			if err := json.Unmarshal([]byte(out), &got); code != 0 || err != nil || got != c {
				t.Errorf("get of %q gives %d, %q, %v; want what was stored", server, code, out, err)
			}
			out, _ = run("list", "")
			var users map[string]string
			if err := json.Unmarshal([]byte(out), &users); err != nil || users[server] != c.Username {
				t.Errorf("list gives %q, %v; want %q", out, err, server)
			}
			if out, code := run("erase", server); code != 0 || len(m) != 0 {
				t.Errorf("erase of %q gives %d, %q, and leaves %v", server, code, out, m)
			}
		}
	})
}
