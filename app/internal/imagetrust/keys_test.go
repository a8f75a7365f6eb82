package imagetrust

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestParseKeys(t *testing.T) {
	alice := somebody(t).pem
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip(err) // a Go that makes no such keys any more
	}
	weak := newSigner(t, short, crypto.SHA256).pem
	one := func(pairs ...string) string {
		m := map[string]string{"for": "a", "key": alice}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		b, _ := json.Marshal([]any{m})
		return string(b)
	}
	for _, c := range []struct{ is, text, refused string }{
		{"no key", "[]", ""},
		{"a key", one(), ""},
		{"a key in a file", one("key", "/etc/cosign.pub"), ""},
		{"both ends", one("from", "2026-01-01", "until", "2027-01-01T00:00:00Z"), ""},
		{"one day", one("from", "2026-01-01", "until", "2026-01-01"), ""},
		{"an end before the beginning", one("from", "2026-01-02", "until", "2026-01-01"), "ends before"},
		{"a date in another form", one("until", "01.02.2026"), "is no date"},
		{"no JSON", "[", "not a list"},
		{"no list", "{}", "not a list"},
		{"two lists", "[][]", "follows"},
		{"a misspelt field", one("util", "2026-01-01"), "util"},
		{"a path that depends on where one is", one("key", "cosign.pub"), "absolute"},
		{"no key at all", one("key", ""), "absolute"},
		{"a private key", one("key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"), "private key"},
		{"cosign's private key", one("key", "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----"), "private key"},
		{"a damaged key", one("key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"), "cannot be used"},
		{"a weak key", one("key", weak), "too few"},
		{"a registry without its repositories", one("for", "registry.example.com"), "write registry.example.com/*"},
		{"nothing", one("for", ""), "names no repositories"},
		{"a tag", one("for", "alpine:3"), "names no repositories"},
		{"a star in the middle", one("for", "a/*/b"), "names no repositories"},
		{"capitals", one("for", "Alpine"), "names no repositories"},
		{"more than are taken", "[" + strings.Repeat(one()[1:len(one())-1]+",", maxKeys) + one()[1:], "more than"},
	} {
		keys, err := ParseKeys(c.text)
		if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("ParseKeys of %s = %v; want an error with %q", c.is, err, c.refused)
		}
		if err != nil {
			continue
		}
		again, err := ParseKeys(FormatKeys(keys))
		if err != nil || FormatKeys(again) != FormatKeys(keys) {
			t.Errorf("%s does not survive its usual form: %v", c.is, err)
		}
	}
}

func TestScope(t *testing.T) {
	for _, c := range []struct {
		scope, name string
		covers      bool
	}{
		{"alpine", "docker.io/library/alpine", true},
		{"docker.io/library/alpine", "docker.io/library/alpine", true},
		{"alpine", "docker.io/library/alpine2", false},
		{"alpine", "registry.example.com/library/alpine", false},
		{"docker.io/*", "docker.io/library/alpine", true},
		{"grafana/*", "docker.io/grafana/loki", true},
		{"registry.example.com/*", "registry.example.com/a/b/c", true},
		{"registry.example.com/*", "registry.example.com.evil.example/a", false},
		{"registry.example.com/team/*", "registry.example.com/team/a/b", true},
		{"registry.example.com/team/*", "registry.example.com/teamwork/a", false},
		{"registry.example.com/team/*", "registry.example.com/team", false},
		{"registry.example.com:5000/*", "registry.example.com:5000/a", true},
		{"registry.example.com:5000/*", "registry.example.com/a", false},
		{"localhost/*", "localhost/a", true},
		{"*", "registry.example.com/a", true},
	} {
		s, err := scope(c.scope)
		if err != nil || covers(s, c.name) != c.covers {
			t.Errorf("%s covers %s: %v, %v; want %v", c.scope, c.name, !c.covers, err, c.covers)
		}
	}
}

func TestTheMostExactScopeCounts(t *testing.T) {
	alice, mallory, carol := somebody(t).pem, somebody(t).pem, somebody(t).pem
	keys := trust(t,
		map[string]string{"for": "*", "key": mallory}, map[string]string{"for": "registry.example.com/*", "key": mallory},
		map[string]string{"for": "registry.example.com/team/app", "key": alice}, map[string]string{"for": "registry.example.com/team/app", "key": carol},
	)
	for name, want := range map[string]string{"registry.example.com/team/app": alice + carol, "registry.example.com/team/other": mallory, "docker.io/library/alpine": mallory} {
		got := ""
		for _, k := range matching(keys, name) {
			got += k.Key + "\n"
		}
		if strings.ReplaceAll(got, "\n", "") != strings.ReplaceAll(want, "\n", "") {
			t.Errorf("the keys for %s are %q; want %q", name, got, want)
		}
	}
	if got := matching(keys[1:], "docker.io/library/alpine"); len(got) != 0 {
		t.Errorf("keys for a name that nothing covers: %v", got)
	}
}

// TestMoment: a day belongs to the key whole.
func TestMoment(t *testing.T) {
	keys := trust(t, map[string]string{"for": "*", "key": somebody(t).pem, "from": "2026-01-01", "until": "2026-01-02"})
	l, err := keys[0].load()
	if err != nil {
		t.Fatal(err)
	}
	from, until := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 1, 2, 23, 59, 59, 0, time.UTC)
	if !l.from.Equal(from) || !l.until.Equal(until) {
		t.Errorf("it holds from %s until %s; want %s and %s", l.from, l.until, from, until)
	}
}
