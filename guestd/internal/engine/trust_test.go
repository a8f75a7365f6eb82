//go:build linux

package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/covedesk/cove/guestd/protocol"
)

func TestRegistriesAreWrittenAsTheEngineReadsThem(t *testing.T) {
	dir := t.TempDir()
	err := WriteRegistries(dir, []protocol.Registry{
		{Host: "docker.io", Mirrors: []string{"https://mirror:5000/hub", "http://plain:80"}, Insecure: true},
		{Host: "mirror:5000", Authorities: "CA", Clients: []protocol.ClientPair{{Certificate: "CERT", Key: protocol.NewSecret("KEY")}}, Insecure: true},
		{Host: "r:1", Mirrors: []string{"https://mirror:5000"}, Insecure: true},
		{Host: "nothing:1", Insecure: true}, // daemon.json says it
	})
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, "mirror:5000")
	mirror := `capabilities = ["pull", "resolve", "referrers"]` + "\nskip_verify = true\n" +
		`ca = ["` + at + `/ca.crt"]` + "\n" + `client = [["` + at + `/client0.cert", "` + at + `/client0.key"]]` + "\n"
	for name, want := range map[string]string{
		"mirror:5000/ca.crt":       "CA",
		"mirror:5000/client0.cert": "CERT",
		"mirror:5000/client0.key":  "KEY",
		"docker.io/hosts.toml":     "skip_verify = true\n" + `[host."https://mirror:5000/hub"]` + "\n" + mirror + `[host."http://plain:80"]` + "\n" + `capabilities = ["pull", "resolve", "referrers"]` + "\n",
		"r:1/hosts.toml":           `server = "http://r:1"` + "\nskip_verify = true\n" + `[host."https://mirror:5000"]` + "\n" + mirror,
	} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want 0600", name, st, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "nothing:1")); !os.IsNotExist(err) {
		t.Errorf("a registry without files has a folder: %v", err)
	}
}

func TestARegistrysNameLeadsNowhereElse(t *testing.T) {
	for _, host := range []string{"", "..", "../x", "a/b", "/etc", ".x"} {
		if err := WriteRegistries(t.TempDir(), []protocol.Registry{{Host: host, Authorities: "CA"}}); err == nil || !strings.Contains(err.Error(), "not the name") {
			t.Errorf("WriteRegistries of %q = %v; want a refusal", host, err)
		}
	}
}
