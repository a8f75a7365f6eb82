package credentials

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/covedesk/cove/app/internal/dockerconfig"
	"github.com/covedesk/cove/app/internal/secret"
)

// keeper is a credential helper that keeps its logins in a folder, a file for each server, by the protocol.
const keeper = `#!/bin/sh
set -eu
cd "$(dirname "$0")/$(basename "$0").kept"
name() { printf %s "$1" | tr '/:' '__'; }
case "$1" in
version) echo "keeper (test) v1" ;;
store) read -r line; server=$(printf %s "$line" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); printf %s "$line" > "$(name "$server")" ;;
get) read -r server || true; f=$(name "$server"); if [ -e "$f" ]; then cat "$f"; else echo "credentials not found in native keychain"; exit 1; fi ;;
erase) read -r server || true; rm -f "$(name "$server")" ;;
list) printf '{'; comma=; for f in *; do [ -e "$f" ] || continue; sed 's/.*"ServerURL":\("[^"]*"\),"Username":\("[^"]*"\).*/'"$comma"'\1:\2/' "$f" | tr -d '\n'; comma=,; done; printf '}\n' ;;
esac
`

// loginWorld is a user whose PATH holds helpers of these names, with this config.json.
func loginWorld(t *testing.T, config string, helpers ...string) (Setup, string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the helpers of this test are shell scripts")
	}
	bin := t.TempDir()
	for _, h := range helpers {
		path := filepath.Join(bin, programOf(h))
		if err := os.WriteFile(path, []byte(keeper), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(path+".kept", 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	dir := t.TempDir()
	if config != "" {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Setup{Docker: dockerconfig.Docker{Dir: dir}, Memo: filepath.Join(dir, "memo"), Beside: t.TempDir()}, filepath.Join(dir, "config.json")
}

func TestALoginIsKeptWhereDockerLooks(t *testing.T) {
	ctx := context.Background()
	const hub = "https://index.docker.io/v1/"
	for _, c := range []struct {
		is, config, server string
		helper             string
		want               string // config.json after it
	}{
		{"Cove's where none is named, and docker is told", ``, "r:1", "cove", `{"credHelpers":{"r:1":"cove"},"auths":{"r:1":{}}}`},
		{"the credsStore", `{"credsStore":"other"}`, "r:1", "other", `{"credsStore":"other","auths":{"r:1":{}}}`},
		{"the registry's own", `{"credsStore":"cove","credHelpers":{"r:1":"other"}}`, "r:1", "other", `{"credsStore":"cove","credHelpers":{"r:1":"other"},"auths":{"r:1":{}}}`},
		{"a password in the settings goes", `{"credsStore":"other","auths":{"r:1":{"auth":"YTpi"}}}`, "r:1", "other", `{"credsStore":"other","auths":{"r:1":{}}}`},
		{"Docker Hub by docker's key for it", `{"credsStore":"other"}`, hub, "other", `{"credsStore":"other","auths":{"` + hub + `":{}}}`},
	} {
		t.Run(c.is, func(t *testing.T) {
			s, path := loginWorld(t, c.config, "cove", "other")
			const password = `o"p\en "ü`
			helper, err := s.Login(ctx, c.server, "alice", secret.New(password))
			if err != nil || helper != c.helper {
				t.Fatalf("Login = %q, %v; want %q", helper, err, c.helper)
			}
			got, err := os.ReadFile(path)
			if squeezed := strings.Join(strings.Fields(string(got)), ""); err != nil || squeezed != c.want {
				t.Errorf("config.json is %s, %v; want %s", squeezed, err, c.want)
			}
			k, there, err := s.Find(ctx, c.server)
			if err != nil || !there || k.User != "alice" || k.Secret.RevealSecret() != password || k.Helper != c.helper {
				t.Errorf("Find = %+v, %v, %v", k, there, err)
			}
			all, err := s.Logins(ctx)
			if err != nil || len(all) != 1 || all[0].Server != c.server || all[0].User != "alice" || all[0].Helper != c.helper || !all[0].Secret.IsZero() {
				t.Errorf("Logins = %+v, %v", all, err)
			}
			if there, err := s.Logout(ctx, c.server); err != nil || !there {
				t.Errorf("Logout = %v, %v", there, err)
			}
			if _, there, err := s.Find(ctx, c.server); err != nil || there {
				t.Errorf("Find after Logout = %v, %v", there, err)
			}
			if there, err := s.Logout(ctx, c.server); err != nil || there {
				t.Errorf("a second Logout = %v, %v", there, err)
			}
			if got, err := os.ReadFile(path); err != nil || strings.Contains(string(got), "auths") || strings.Contains(string(got), `"r:1":"cove"`) {
				t.Errorf("config.json after Logout is %s, %v", got, err)
			}
		})
	}
}

func TestALoginThatCannotBeKeptChangesNothing(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct{ is, config, says string }{
		{"a helper that is not there", `{"credsStore":"gone"}`, "doctor"},
		{"a cloud's", `{"credHelpers":{"r:1":"ecr-login"}}`, "by itself"},
		{"settings that are none", `{"credsStore":`, "config.json"},
	} {
		s, path := loginWorld(t, c.config, "cove", "ecr-login")
		helper, err := s.Login(ctx, "r:1", "alice", secret.New("hunter2"))
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(fmt.Sprint(err), "hunter2") {
			t.Errorf("%s: Login = %q, %v; want an error with %q", c.is, helper, err, c.says)
		}
		if got, _ := os.ReadFile(path); string(got) != c.config {
			t.Errorf("%s: config.json is %s", c.is, got)
		}
	}
}

func TestLoginsInDockersSettingsAreFound(t *testing.T) {
	s, _ := loginWorld(t, `{"auths":{"r:1":{"auth":"YWxpY2U6b3Blbg=="},"r:2":{}}}`)
	k, there, err := s.Find(context.Background(), "r:1")
	if err != nil || !there || k.User != "alice" || k.Secret.RevealSecret() != "open" || k.Helper != "" {
		t.Errorf("Find = %+v, %v, %v", k, there, err)
	}
	if all, err := s.Logins(context.Background()); err != nil || len(all) != 1 || all[0].Server != "r:1" || all[0].Helper != "" {
		t.Errorf("Logins = %+v, %v", all, err)
	}
	if there, err := s.Logout(context.Background(), "r:1"); err != nil || !there {
		t.Errorf("Logout = %v, %v", there, err)
	}
	if _, there, err := s.Find(context.Background(), "r:1"); err != nil || there {
		t.Errorf("Find after Logout = %v, %v", there, err)
	}
}
