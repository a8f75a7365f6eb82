//go:build linux

package share

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The rules of docs/files.md for owners. They are seen from both sides.
func TestOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root; CI runs as root")
	}
	host := t.TempDir()
	f, err := New([]Share{{Path: host}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	f.uid = 1 // as if an ordinary user served: root's files are somebody else's
	guest := serve(t, f)
	os.Chmod(host, 0777)
	h, g := func(n string) string { return filepath.Join(host, n) }, func(n string) string { return filepath.Join(guest, n) }
	want := func(sentence, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s; want %s", sentence, got, want)
		}
	}

	as(t, 999, 999, nil, func() {
		os.WriteFile(g("made"), []byte("x"), 0644)
		unix.Chmod(g("made"), 0)
		unix.Mkdir(g("folder"), 0555)
	})
	want("in the guest it is the maker's", look(g("made")), "file 0000 999 999")
	want("on the host it is the server's, who can open it", look(h("made")), "file 0600 0 0")
	want("a folder too", look(h("folder")), "folder 0755 0 0")

	unix.Chmod(g("made"), 06755)
	want("the host sees no setuid", look(h("made")), "file 0755 0 0")
	want("the guest does", look(g("made")), "file 6755 999 999")

	unix.Chmod(h("made"), 0640)
	waitFor(t, "a chmod on the host counts", func() bool { return look(g("made")) == "file 0640 999 999" })

	if n, _ := unix.Listxattr(g("made"), make([]byte, 100)); n != 0 {
		t.Error("the guest sees our attribute")
	}
	if _, err := unix.Getxattr(g("made"), ownerXattr, make([]byte, 100)); err != unix.ENODATA {
		t.Errorf("the guest reads our attribute: %v; want ENODATA", err)
	}
	if err := unix.Setxattr(g("made"), ownerXattr, []byte("1 0 0 4755 755"), 0); err != unix.ENOTSUP {
		t.Errorf("the guest sets our attribute: %v; want ENOTSUP", err)
	}
	for _, junk := range []string{"", "1", "2 0 0 0 0", "1 -1 0 0 0", "1 0 0 77777 0", strings.Repeat("1 ", 100)} {
		unix.Setxattr(h("made"), ownerXattr, []byte(junk), 0)
		if _, err := os.Stat(g("made")); err != nil {
			t.Errorf("with %q for an owner: %v", junk, err)
		}
	}

	os.WriteFile(h("hosts"), []byte("x"), 0600)
	os.Chown(h("hosts"), 1, 2)
	want("a file of the host's user lets everybody do what that user may", look(g("hosts")), "file 0666 1 2")
	os.WriteFile(h("roots"), []byte("x"), 0640)
	os.Chown(h("roots"), 0, 77)
	want("a file of somebody else's on the host stays as it is", look(g("roots")), "file 0640 0 77")
	unix.Chown(g("hosts"), 999, 999)
	want("until somebody in the guest says whose it is", look(g("hosts")), "file 0600 999 999")
}

func TestAnyUserWorksInAFolderOfTheHosts(t *testing.T) {
	_, host, guest := one(t)
	os.Mkdir(filepath.Join(host, "src"), 0700)
	os.WriteFile(filepath.Join(host, "src", "main.go"), []byte("x"), 0600)
	as(t, 4321, 4321, nil, func() {
		d := filepath.Join(guest, "src")
		for what, err := range map[string]error{
			"write": os.WriteFile(filepath.Join(d, "main.go"), []byte("y"), 0),
			"make":  os.WriteFile(filepath.Join(d, "new"), nil, 0644),
			"mkdir": os.Mkdir(filepath.Join(d, "sub"), 0755),
		} {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
	if s := look(filepath.Join(host, "src", "new")); s != "file 0644 0 0" {
		t.Errorf("on the host: %s", s)
	}
}

func TestOwnersSurviveTheServer(t *testing.T) {
	host := t.TempDir()
	t.Run("first", func(t *testing.T) {
		_, guest := mounted(t, Share{Path: host})
		os.WriteFile(filepath.Join(guest, "f"), nil, 0644)
		os.Chown(filepath.Join(guest, "f"), 70, 71)
		unix.Chmod(filepath.Join(guest, "f"), 04700)
	})
	_, guest := mounted(t, Share{Path: host})
	if s := look(filepath.Join(guest, "f")); s != "file 4700 70 71" {
		t.Errorf("after a new start: %s", s)
	}
}

// A database's image: root gives the data folder away and closes it, the database works in it.
func TestADatabasesFolder(t *testing.T) {
	_, host, guest := one(t)
	os.MkdirAll(filepath.Join(host, "data", "base"), 0755)
	os.WriteFile(filepath.Join(host, "data", "base", "PG_VERSION"), []byte("15"), 0644)
	d := filepath.Join(guest, "data")
	filepath.WalkDir(d, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		return os.Chown(p, 999, 999)
	})
	os.Chmod(d, 0700)
	as(t, 999, 999, nil, func() {
		if s := look(d); s != "folder 0700 999 999" {
			t.Errorf("the database sees %s and does not start", s)
		}
		f, err := os.OpenFile(d+"/wal", os.O_CREATE|os.O_RDWR|os.O_EXCL, 0600)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		f.Write(make([]byte, 1<<20))
		if err := f.Sync(); err != nil {
			t.Error(err)
		}
		dir, _ := os.Open(d)
		if err := dir.Sync(); err != nil {
			t.Error(err)
		}
		dir.Close()
		os.Chmod(d+"/base/PG_VERSION", 0400)
	})
	as(t, 1000, 1000, nil, func() {
		if _, err := os.Stat(d + "/wal"); !os.IsPermission(err) {
			t.Errorf("another user: %v; want permission denied", err)
		}
	})
	if s := fmt.Sprint(look(filepath.Join(host, "data")), look(filepath.Join(host, "data", "wal"))); s != "folder 0700 0 0file 0600 0 0" {
		t.Errorf("on the host: %s", s)
	}
}
