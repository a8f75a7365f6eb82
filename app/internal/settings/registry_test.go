package settings

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestRegistriesInTheirUsualForm(t *testing.T) {
	h := Host{Home: "/home/me"}
	for _, c := range []struct {
		key, given, want string
		refused          string
	}{
		{"registry.insecure", "r.example:5000, 10.1.2.3/8,r.example:5000", "r.example:5000,10.0.0.0/8", ""},
		{"registry.insecure", `["[fd00::1]:5000","fd00::/8"]`, "[fd00::1]:5000,fd00::/8", ""},
		{"registry.insecure", "", "", ""},
		{"registry.insecure", "http://r.example:5000", "", "is a URL"},
		{"registry.insecure", "r.example/path", "", "host:port"},
		{"registry.insecure", "r.example:99999", "", "host:port"},
		{"registry.insecure", "-r.example", "", "host:port"},
		{"registry.insecure", "index.docker.io", "", "Docker Hub"},
		{"registry.mirrors", "https://m.example/", "https://m.example", ""},
		{"registry.mirrors", "https://m.example:5000/hub,ghcr.io=http://m.example/ghcr/", "https://m.example:5000/hub,ghcr.io=http://m.example/ghcr", ""},
		{"registry.mirrors", "index.docker.io=https://m.example", "https://m.example", ""},
		{"registry.mirrors", "m.example:5000", "", "URL"},
		{"registry.mirrors", "ftp://m.example", "", "URL"},
		{"registry.mirrors", "https://m.example?x=y", "", "query"},
		{"registry.mirrors", "https://user:hunter2@m.example", "", "password"},
		{"registry.mirrors", "http://localhost:5000", "", "host.docker.internal"},
		{"registry.mirrors", "a/b=https://m.example", "", "URL"},
		{"registry.ca", "~/ca.pem,/etc//x.pem", "/home/me/ca.pem,/etc/x.pem", ""},
		{"registry.ca", "ca.pem", "", "absolute"},
	} {
		k, err := find(c.key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.parse(h, c.given)
		switch {
		case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused) || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("%s = %q: %q, %v; want a refusal with %q", c.key, c.given, got, err, c.refused)
		case c.refused == "" && (err != nil || got != c.want):
			t.Errorf("%s = %q: %q, %v; want %q", c.key, c.given, got, err, c.want)
		}
		if again, err := k.parse(h, got); c.refused == "" && (err != nil || again != got) {
			t.Errorf("%s: the usual form %q becomes %q, %v", c.key, got, again, err)
		}
	}
}

func TestRegistriesComeBackFromTheFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "settings.json")
	s, err := Open(path, Host{CPUs: 1, Memory: gib})
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{"registry.insecure": "a:1,10.0.0.0/8", "registry.mirrors": "https://m,ghcr.io=https://g"} {
		if c, err := s.Set(k, v); err != nil || !c.Restart {
			t.Errorf("Set(%s) = %+v, %v; want a restart", k, c, err)
		}
	}
	if _, err := s.Set("registry.ca", filepath.Join(dir, "none.pem")); err == nil || !strings.Contains(err.Error(), "none.pem: no such file") {
		t.Errorf("a file that is not there: %v", err)
	}
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Set("registry.ca", empty); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Errorf("a file without a certificate: %v", err)
	}
	if s, err = Open(path, Host{CPUs: 1, Memory: gib}); err != nil {
		t.Fatal(err)
	}
	want := Registry{Insecure: []string{"a:1", "10.0.0.0/8"}, Mirrors: []Mirror{{"docker.io", "https://m"}, {"ghcr.io", "https://g"}}, CA: []string{}}
	if got := s.Values().Registry; !reflect.DeepEqual(got, want) {
		t.Errorf("Values = %+v; want %+v", got, want)
	}
}
