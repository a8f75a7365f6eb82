//go:build unix

package shares

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/covedesk/cove/app/internal/settings"
)

// tree is a folder with what the tests share of it. Its own path has no links.
func tree(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"home/code/src", "home/.cove/run", "other", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(dir, "home/file"), nil, 0o644)
	for name, to := range map[string]string{
		"home/inward": "code", "home/outward": "../other", "home/toguest": "/etc", "home/broken": "nowhere", "home/tocove": ".cove/run", "link": "home",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestMount(t *testing.T) {
	dir := tree(t)
	set, notices := Resolve([]settings.Share{{Path: dir + "/link"}, {Path: dir + "/data", ReadOnly: true}}, []string{dir + "/home/.cove"})
	if len(notices) != 0 || len(set.Folders) != 2 {
		t.Fatalf("Resolve = %+v, %q; want two folders", set.Folders, notices)
	}
	for _, row := range []struct{ says, path, refused string }{
		{"a folder in a share", "/home/code/src", ""},
		{"a share itself", "/home", ""},
		{"a share by the name that the user gave", "/link/code", ""},
		{"a file", "/home/file", ""},
		{"a read-only share", "/data", ""},
		{"a link to what is shared", "/home/inward/src", ""},
		{"a link to what is not", "/home/outward", "leads to " + dir + "/other, which is not shared"},
		{"a link to what would be the VM's own", "/home/toguest", "leads to /etc, which is not shared"},
		{"a link to nothing", "/home/broken", "does not exist"},
		{"what does not exist", "/home/none", "does not exist"},
		{"what is not shared", "/other", "is not shared"},
		{"what is not shared and does not exist", "/none", "is not shared"},
		{"a way out", "/home/../other", "/other is not shared"},
		{"what only begins alike", "/home2", "is not shared"},
		{"what is above", "", "is not shared"},
		{"Cove's own folder", "/home/.cove", "is Cove's own"},
		{"what is in Cove's own folder, by a link", "/home/tocove", "is Cove's own"},
		{"what is in Cove's own folder and does not exist", "/home/.cove/none", "is Cove's own"},
	} {
		err := set.Mount(dir + row.path)
		if row.refused == "" && err != nil {
			t.Errorf("%s: Mount(%s) = %v; want nil", row.says, row.path, err)
		}
		if row.refused != "" && (err == nil || !strings.Contains(err.Error(), row.refused)) {
			t.Errorf("%s: Mount(%s) = %v; want an error with %q", row.says, row.path, err, row.refused)
		}
	}
	err := set.Mount(dir + "/other")
	for _, part := range []string{dir + "/other", "`cove config set shares " + dir + "/data:ro," + dir + "/home," + dir + "/other`"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("Mount of what is not shared = %v; want %q in it", err, part)
		}
	}
	if err := set.Mount("/etc/passwd"); err == nil || !strings.Contains(err.Error(), "VM's own") || strings.Contains(err.Error(), "config set") {
		t.Errorf("Mount of what can never be shared = %v; want the reason, and no command", err)
	}
}

func TestResolve(t *testing.T) {
	dir := tree(t)
	share := func(path string, ro bool) settings.Share { return settings.Share{Path: dir + path, ReadOnly: ro} }
	for _, row := range []struct {
		says    string
		wanted  []settings.Share
		want    string // paths below dir, in order
		notices []string
	}{
		{"one in another adds nothing", []settings.Share{share("/home/code", false), share("/home", false)}, "/home", nil},
		{"one to write in one to read is a share", []settings.Share{share("/home/code", false), share("/home", true)}, "/home:ro /home/code", nil},
		{"one that has gone is left out", []settings.Share{share("/gone", false), share("/data", false)}, "/data", []string{"it does not exist"}},
		{"a file is left out", []settings.Share{share("/home/file", false)}, "", []string{"it is not a folder"}},
		{"a link to the VM's own is left out", []settings.Share{share("/home/toguest", false)}, "", []string{"leads to /etc"}},
		{"two names of a folder are one share", []settings.Share{share("/home", false), share("/link", false)}, "/home", nil},
		{"Cove's own is left out", []settings.Share{share("/home/.cove/run", false)}, "", []string{"Cove's own"}},
	} {
		set, notices := Resolve(row.wanted, []string{dir + "/home/.cove"})
		var got []string
		for _, f := range set.Folders {
			got = append(got, strings.TrimPrefix(settings.Share{Path: f.Path, ReadOnly: f.ReadOnly}.String(), dir))
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("%s: %q; want %q", row.says, strings.Join(got, " "), row.want)
		}
		if len(notices) != len(row.notices) {
			t.Errorf("%s: notices %q; want %d", row.says, notices, len(row.notices))
			continue
		}
		for i, part := range row.notices {
			if !strings.Contains(notices[i], part) {
				t.Errorf("%s: notice %q; want %q in it", row.says, notices[i], part)
			}
		}
	}
}

func TestStill(t *testing.T) {
	now := &Set{Folders: []Folder{{Path: "/home/u"}, {Path: "/home/u/ro", ReadOnly: true}, {Path: "/tmp"}}}
	had := []Folder{{Path: "/gone"}, {Path: "/home/u/code", Names: []string{"/code"}}, {Path: "/home/u/ro/x"}, {Path: "/home/user"}, {Path: "/tmp", ReadOnly: true}}
	got := fmt.Sprintf("%+v", now.Still(had).Folders)
	want := fmt.Sprintf("%+v", []Folder{
		{Path: "/home/u/code", Names: []string{"/code"}}, // in a larger folder
		{Path: "/home/u/ro/x", ReadOnly: true},           // which is read-only
		{Path: "/tmp", ReadOnly: true},                   // as it was made
	})
	if got != want {
		t.Errorf("Still = %s; want %s", got, want)
	}
}
