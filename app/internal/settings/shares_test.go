package settings

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestSharesAreRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the paths are those of a Unix")
	}
	h := Host{CPUs: 4, Memory: 8 * gib, Home: "/home/me", Temp: "/tmp"}
	for _, row := range []struct{ value, form, refused string }{
		{"", "", ""},
		{"[]", "", ""},
		{"/data", "/data", ""},
		{" /data , /srv/x ", "/data,/srv/x", ""},
		{"/data/:ro", "/data:ro", ""},
		{"/data:rw", "/data", ""},
		{"~", "/home/me", ""},
		{"~/code:ro,~", "", "lies in /home/me"},
		{"~:ro,~/code", "/home/me:ro,/home/me/code", ""},
		{"~:ro,~/code:ro", "/home/me:ro,/home/me/code:ro", ""},
		{"/a/b,/a", "/a/b,/a", ""},
		{`["~/code","/data:ro"]`, "/home/me/code,/data:ro", ""},
		{`["/a,b"]`, "", "has a comma"},
		{`[1]`, "", "folders"},
		{"/a,,/b", "", "is empty"},
		{"/a,/a:ro", "", "there twice"},
		{"code", "", "not an absolute path"},
		{"./code", "", "not an absolute path"},
		{"/a:b", "", "has a colon"},
		{"/a\n/b", "", "line break"},
		{"/", "", "VM's own"},
		{"/usr/share/x", "", "/usr in the VM"},
		{"/etc", "", "/etc in the VM"},
		{"/run/user/1000", "", "/run in the VM"},
		{"/var", "", "/var/lib/docker in the VM"},
		{"/var/lib", "", "VM's own"},
		{"/var/lib/docker/x", "", "VM's own"},
		{"/home/../etc", "", "/etc in the VM"},
		{"/var/www", "/var/www", ""},
		{"/usrlocal", "/usrlocal", ""},
		{"/opt/mine", "/opt/mine", ""},
		{"/opt", "", "/opt/cni in the VM"},
	} {
		form, err := sharesKey.parse(h, row.value)
		if row.refused == "" && (err != nil || form != row.form) {
			t.Errorf("shares %q = %q, %v; want %q", row.value, form, err, row.form)
		}
		if row.refused != "" && (err == nil || !errors.Is(err, errRange) && !strings.Contains(err.Error(), row.refused)) {
			t.Errorf("shares %q = %q, %v; want a refusal with %q", row.value, form, err, row.refused)
		}
	}
}

func TestSharesByDefault(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the paths are those of a Unix")
	}
	for _, row := range []struct{ home, temp, want string }{
		{"/home/me", "/tmp", "/home/me,/tmp"},
		{"/home/me", "/home/me/tmp", "/home/me"},
		{"", "/tmp", "/tmp"},
		{"/", "/tmp", "/tmp"},
		{"/var/lib/cove", "/var/tmp", ""},
		{"/home/a,b", "/tmp", "/tmp"},
	} {
		if got := defaultShares(Host{Home: row.home, Temp: row.temp}); got != row.want {
			t.Errorf("with the home %q and the temporary folder %q: %q; want %q", row.home, row.temp, got, row.want)
		}
	}
}

// What is set is looked at; what the file says of a folder that has gone is not a fault of the file.
func TestSharesAreLookedAtWhenTheyAreSet(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the paths are those of a Unix")
	}
	dir := t.TempDir()
	folder, file := filepath.Join(dir, "folder"), filepath.Join(dir, "file")
	if err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(file, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "settings.json")
	open := func() *Store {
		t.Helper()
		s, err := Open(path, Host{CPUs: 4, Memory: 8 * gib, Home: folder})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for value, want := range map[string]string{folder + "x": "does not exist", file: "is not a folder"} {
		if _, err := open().Set("shares", value); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Set shares %q: %v; want a refusal with %q", value, err, want)
		}
	}
	if _, err := open().Set("shares", "~:ro"); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(path)
	var all struct{ Shares []string }
	if err := json.Unmarshal(text, &all); err != nil || !slices.Equal(all.Shares, []string{folder + ":ro"}) {
		t.Errorf("settings.json is %s; want shares as an array of one", text)
	}
	os.Remove(folder)
	if got := open().Values().Shares; len(got) != 1 || got[0] != (Share{folder, true}) {
		t.Errorf("with the folder gone, the shares are %v; want it still", got)
	}
	if _, err := open().Set("shares", ""); err != nil {
		t.Fatal(err)
	}
	if got := open().Values().Shares; len(got) != 0 {
		t.Errorf("after setting nothing, the shares are %v", got)
	}
}
