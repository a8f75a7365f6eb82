//go:build unix

package saved

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestMake(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "saved")
	if err := os.MkdirAll(filepath.Join(dir+".new", "of", "a crash"), 0o700); err != nil {
		t.Fatal(err)
	}
	nope := errors.New("nope")
	if err := Make(dir, func(making string) error { return errors.Join(Bind(making, 1), nope) }); !errors.Is(err, nope) {
		t.Errorf("Make whose fill fails = %v; want its error", err)
	}
	if rest, _ := filepath.Glob(dir + "*"); rest != nil {
		t.Errorf("a Make that failed leaves %q", rest)
	}
	if err := Make(dir, func(making string) error {
		if _, err := os.Lstat(dir); err == nil {
			t.Error("the folder has its name before it is whole")
		}
		if e, err := os.ReadDir(making); err != nil || len(e) > 0 {
			t.Errorf("fill begins with %v, %v; want an empty folder", e, err)
		}
		return Bind(making, []string{"a"})
	}); err != nil {
		t.Fatal("Make:", err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, machineFile): 0o600} {
		if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	var was []string
	if err := Bound(dir, &was); err != nil || len(was) != 1 || was[0] != "a" {
		t.Errorf("Bound = %q, %v; want what Bind wrote", was, err)
	}
	if err := Make(dir, func(string) error { t.Error("fill is called for a folder that is there"); return nil }); err == nil {
		t.Error("Make of a folder that is there = nil; want an error")
	}
	if err := Bound(dir, &was); err != nil {
		t.Error("the folder that was there is gone:", err)
	}
}

func TestUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "saved")
	if err := Make(dir, func(making string) error { return Bind(making, 1) }); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir+".used", "of a crash"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Use(dir); err != nil {
		t.Fatal("Use:", err)
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Error("a used folder has its name still")
	}
	if err := Use(dir); err == nil {
		t.Error("Use, twice = nil; want an error")
	}
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, err := os.Lstat(dir + ".used"); err != nil {
			return
		}
		if time.Since(begun) > time.Minute {
			t.Fatal("a used folder is not removed")
		}
	}
}
