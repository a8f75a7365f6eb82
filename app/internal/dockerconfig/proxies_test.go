//go:build unix

package dockerconfig

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const engineHost = "unix:///home/some.body/.cove/run/docker.sock"

func TestProxiesComeAndGo(t *testing.T) {
	const mine = "{\n\t\"auths\": {\"x.example\": {}},\n\t\"proxies\": {\"default\": {\"httpProxy\": \"http://mine:1\"}}\n}\n"
	want := &Proxies{HTTPS: "http://user:secret@proxy:3128", No: "localhost"}
	for _, c := range []struct{ is, before, after, space string }{
		{"nothing was there", "", "{}", ""},
		{"others' entries stay byte for byte", mine, mine, " "},
	} {
		dir := t.TempDir()
		path, memo := filepath.Join(dir, "config.json"), filepath.Join(dir, "memo")
		if c.before != "" {
			if err := os.WriteFile(path, []byte(c.before), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // a second start finds its own
			if err := (Docker{Dir: dir}).SetProxies(engineHost, want, memo); err != nil {
				t.Fatalf("%s: SetProxies: %v", c.is, err)
			}
		}
		set, _ := os.ReadFile(path)
		if !strings.Contains(string(set), `"`+engineHost+`":`+c.space+`{"httpsProxy":"http://user:secret@proxy:3128","noProxy":"localhost"}`) {
			t.Errorf("%s: the settings are %s", c.is, set)
		}
		if b, err := os.ReadFile(memo); err != nil || strings.Contains(string(b), "secret") {
			t.Errorf("%s: the memo is %q, %v; want no password in it", c.is, b, err)
		}
		if err := (Docker{Dir: dir}).SetProxies(engineHost, &Proxies{HTTP: "http://other:1"}, memo); err != nil {
			t.Errorf("%s: our own cannot be changed: %v", c.is, err)
		}
		if err := (Docker{Dir: dir}).SetProxies(engineHost, nil, memo); err != nil {
			t.Errorf("%s: SetProxies to none: %v", c.is, err)
		}
		after, _ := os.ReadFile(path)
		if string(after) != c.after {
			t.Errorf("%s: the settings end as %q; want %q", c.is, after, c.after)
		}
		if _, err := os.Stat(memo); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the memo stays", c.is)
		}
	}
}

func TestProxiesOfSomebodyElseStay(t *testing.T) {
	dir := t.TempDir()
	path, memo := filepath.Join(dir, "config.json"), filepath.Join(dir, "memo")
	theirs := `{"proxies":{"` + engineHost + `":{"httpProxy":"http://theirs:1"}}}`
	if err := os.WriteFile(path, []byte(theirs), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (Docker{Dir: dir}).SetProxies(engineHost, &Proxies{HTTP: "http://ours:1"}, memo); !errors.Is(err, ErrForeign) {
		t.Errorf("SetProxies over somebody else's = %v; want that they are taken", err)
	}
	if err := (Docker{Dir: dir}).SetProxies(engineHost, nil, memo); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(path); string(b) != theirs {
		t.Errorf("the settings are %s now", b)
	}
}

func TestAPasswordIsNotPutWhereOthersRead(t *testing.T) {
	dir := t.TempDir()
	path, memo := filepath.Join(dir, "config.json"), filepath.Join(dir, "memo")
	if err := os.WriteFile(path, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := (Docker{Dir: dir}).SetProxies(engineHost, &Proxies{HTTP: "http://u:p@ours:1"}, memo); !errors.Is(err, ErrReadable) || strings.Contains(err.Error(), "u:p") {
		t.Errorf("SetProxies = %v; want that others can read it", err)
	}
	if err := (Docker{Dir: dir}).SetProxies(engineHost, &Proxies{HTTP: "http://ours:1"}, memo); err != nil {
		t.Errorf("without a password: %v", err)
	}
}
