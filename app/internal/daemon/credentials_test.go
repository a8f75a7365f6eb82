//go:build unix

package daemon

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/covedesk/cove/vmhost/fakevm"
)

// A first start sets docker's credsStore where docker would keep passwords in plain text, and the end takes
// it back.
func TestAStartKeepsLoginsOutOfPlainText(t *testing.T) {
	bin := t.TempDir()
	cmd := exec.Command("go", "build", "-o", bin, "github.com/covedesk/cove/credhelper/cmd/docker-credential-cove")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, off := range []bool{false, true} {
		name := "auto"
		if off {
			name = "off"
		}
		t.Run(name, func(t *testing.T) {
			t.Setenv("PATH", bin)
			t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
			w := newWorld(t, &fakevm.Driver{})
			t.Setenv("COVE_HOME", string(w.home))
			config := filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json")
			if off {
				if _, err := w.Set(t.Context(), "credentials.docker", "off", false); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			log := w.home.Dir("log", "coved.log")
			holds := func(path, what string) bool {
				b, _ := os.ReadFile(path)
				return strings.Contains(string(b), what)
			}
			for end := time.Now().Add(patience); !off && !holds(config, `"credsStore":"cove"`); time.Sleep(20 * time.Millisecond) {
				if time.Now().After(end) {
					b, _ := os.ReadFile(log)
					t.Fatalf("docker's settings are not changed; coved's log:\n%s", b)
				}
			}
			if err := w.Quit(t.Context()); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(patience); !holds(log, "coved ends"); time.Sleep(20 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("coved does not end")
				}
			}
			if holds(config, "credsStore") {
				b, _ := os.ReadFile(config)
				t.Errorf("after coved's end docker's settings are %s", b)
			}
			if off && holds(log, "docker keeps logins") {
				t.Error("credentials.docker is off, and docker's settings were changed")
			}
		})
	}
}
