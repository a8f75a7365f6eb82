//go:build linux

package share

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func setgroups(gids []uint32) error {
	var p unsafe.Pointer
	if len(gids) > 0 {
		p = unsafe.Pointer(&gids[0])
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(gids)), uintptr(p), 0); e != 0 {
		return e
	}
	return nil
}

func TestAFileGoesBothWays(t *testing.T) {
	_, host, guest := one(t)
	if err := os.WriteFile(filepath.Join(guest, "g"), []byte("from the guest"), 0644); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(host, "g")); err != nil || string(b) != "from the guest" {
		t.Errorf("on the host: %q, %v", b, err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	if err := os.WriteFile(filepath.Join(host, "h"), big, 0600); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(guest, "h")); err != nil || !bytes.Equal(b, big) {
		t.Errorf("in the guest: %d bytes, %v; want %d", len(b), err, len(big))
	}
}

func TestSharesOfMissingThingsAreNamed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	os.WriteFile(file, nil, 0600)
	for _, path := range []string{filepath.Join(dir, "missing"), file, filepath.Join(dir, "a:b\nc")} {
		if _, err := New([]Share{{Path: path}}, Options{}); err == nil || !bytes.Contains([]byte(err.Error()), []byte(path)) {
			t.Errorf("New(%q) = %v; want an error that names it", path, err)
		}
	}
}

func TestAReadOnlyShareIsRead(t *testing.T) {
	host := t.TempDir()
	os.WriteFile(filepath.Join(host, "f"), []byte("x"), 0644)
	_, guest := mounted(t, Share{Path: host, ReadOnly: true})
	f := filepath.Join(guest, "f")
	if b, err := os.ReadFile(f); err != nil || string(b) != "x" {
		t.Errorf("read: %q, %v", b, err)
	}
	for what, err := range map[string]error{
		"write":    os.WriteFile(f, nil, 0644),
		"create":   os.WriteFile(f+"2", nil, 0644),
		"mkdir":    os.Mkdir(f+"d", 0755),
		"unlink":   os.Remove(f),
		"rename":   os.Rename(f, f+"3"),
		"chmod":    os.Chmod(f, 0600),
		"chown":    os.Chown(f, 1, 1),
		"truncate": os.Truncate(f, 0),
		"symlink":  os.Symlink("a", f+"l"),
		"link":     os.Link(f, f+"h"),
		"xattr":    unix.Setxattr(f, "user.a", []byte("b"), 0),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v; want EROFS", what, err)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(host, "f")); string(b) != "x" {
		t.Error("the host's file changed")
	}
}

func TestSharesAreApart(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	_, guest := mounted(t, Share{Path: a}, Share{Path: b})
	other := filepath.Join(filepath.Dir(guest), "1")
	f := filepath.Join(guest, "f")
	os.WriteFile(f, nil, 0644)
	if err := os.Rename(f, filepath.Join(other, "f")); !errors.Is(err, unix.EXDEV) {
		t.Errorf("rename across shares: %v; want EXDEV", err)
	}
	if err := os.Link(f, filepath.Join(other, "f")); !errors.Is(err, unix.EXDEV) {
		t.Errorf("link across shares: %v; want EXDEV", err)
	}
	entries, err := os.ReadDir(filepath.Dir(guest))
	if err != nil || len(entries) != 2 {
		t.Errorf("the root lists %v, %v; want 0 and 1", entries, err)
	}
	if err := os.Mkdir(filepath.Join(filepath.Dir(guest), "2"), 0755); err == nil {
		t.Error("the root took a folder")
	}
}
