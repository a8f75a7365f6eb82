//go:build linux

package share

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAFullDiskOfTheHostsIsSaidToBeFull(t *testing.T) {
	host := t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("a small disk needs root; CI runs as root")
	}
	if err := unix.Mount("tmpfs", host, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("no tmpfs can be mounted: ", err)
	}
	t.Cleanup(func() { unix.Unmount(host, unix.MNT_DETACH) })
	_, guest := mounted(t, Share{Path: host})
	f := filepath.Join(guest, "f")
	if err := os.WriteFile(f, make([]byte, 4<<20), 0644); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("4 MB on a disk of 1 MB: %v; want ENOSPC", err)
	}
	if err := os.Remove(f); err != nil {
		t.Error(err)
	}
	// The removed file's room is there when the kernel and the server have let go of it, which is after the call.
	waitFor(t, "a write when there is room again", func() bool { return os.WriteFile(f, []byte("fits"), 0644) == nil })
}

func TestWhatTheHostTakesAwayGivesErrorsAndHangsNothing(t *testing.T) {
	base := t.TempDir()
	host := filepath.Join(base, "share")
	os.MkdirAll(host+"/d", 0755)
	os.WriteFile(host+"/d/f", []byte("old"), 0644)
	_, guest := mounted(t, Share{Path: host})
	open, err := os.OpenFile(guest+"/d/f", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()

	os.WriteFile(host+"/d/new", []byte("new"), 0644)
	os.Rename(host+"/d/new", host+"/d/f")
	waitFor(t, "a file that the host replaced is the new one", func() bool {
		b, err := os.ReadFile(guest + "/d/f")
		return err == nil && string(b) == "new"
	})
	b := make([]byte, 3)
	if _, err := open.ReadAt(b, 0); err != nil || string(b) != "old" {
		t.Errorf("the old one, which is open: %q, %v", b, err)
	}

	os.RemoveAll(host)
	waitFor(t, "a share that was removed gives errors", func() bool {
		_, err := os.ReadFile(guest + "/d/f")
		return err != nil
	})
	if err := os.WriteFile(guest+"/x", nil, 0644); err == nil {
		t.Error("a file was made in a share that is gone")
	}
	if _, err := open.WriteAt([]byte("still"), 0); err != nil {
		t.Errorf("a file that is open: %v", err)
	}
}

// Few descriptors are kept, so that most files are found again by their names; renames of the guest's are
// followed, and a file with another in its place is not taken for it.
func TestFilesAreFoundAgainWithFewDescriptors(t *testing.T) {
	host := t.TempDir()
	f, guest := mountedWith(t, Options{Descriptors: 3}, Share{Path: host})
	want := map[string]string{}
	for i := range 50 {
		d := fmt.Sprint("d", i%7, "/e", i%3)
		os.MkdirAll(filepath.Join(guest, d), 0755)
		name := fmt.Sprint(d, "/f", i)
		want[name] = fmt.Sprint("content ", i)
		os.WriteFile(filepath.Join(guest, name), []byte(want[name]), 0644)
	}
	for i := range 7 {
		os.Rename(fmt.Sprint(guest, "/d", i), fmt.Sprint(guest, "/r", i))
	}
	for name, content := range want {
		b, err := os.ReadFile(filepath.Join(guest, "r"+name[1:]))
		if err != nil || !bytes.Equal(b, []byte(content)) {
			t.Errorf("%s: %q, %v; want %q", name, b, err, content)
		}
	}
	f.nodes.mu.Lock()
	kept := f.nodes.recent.Len()
	f.nodes.mu.Unlock()
	if kept > 3 {
		t.Errorf("%d descriptors are kept; want at most 3", kept)
	}
}

// A disk below a share that nobody uses can be unmounted: what is kept to be quick must not keep it busy.
func TestADiskBelowAShareCanBeUnmounted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a disk needs root; CI runs as root")
	}
	host := t.TempDir()
	disk := filepath.Join(host, "disk")
	os.Mkdir(disk, 0755)
	_, guest := mounted(t, Share{Path: host})
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, ""); err != nil {
		t.Skip("no tmpfs can be mounted: ", err)
	}
	defer unix.Unmount(disk, unix.MNT_DETACH)
	waitFor(t, "a file on the disk", func() bool {
		os.MkdirAll(guest+"/disk/a/b", 0755)
		os.WriteFile(guest+"/disk/a/b/f", []byte("x"), 0644)
		_, err := os.Stat(disk + "/a/b/f")
		return err == nil
	})
	waitFor(t, "the disk is free", func() bool { return unix.Unmount(disk, 0) == nil })
}
