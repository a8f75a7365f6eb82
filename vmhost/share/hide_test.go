//go:build linux

package share

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What is hidden is not there for the guest by any name, and its name cannot be taken.
func TestHiddenPlaces(t *testing.T) {
	home := t.TempDir()
	own := filepath.Join(home, ".cove")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(own, "run"), 0o700))
	must(os.WriteFile(filepath.Join(own, "settings.json"), []byte("{}"), 0o600))
	must(os.MkdirAll(filepath.Join(home, "disks"), 0o755))
	disk := filepath.Join(home, "disks", "data.raw")
	must(os.WriteFile(disk, []byte("disk"), 0o600))
	must(os.WriteFile(filepath.Join(home, "notes"), nil, 0o644))
	_, at := mountedWith(t, Options{Hide: []string{own, disk, filepath.Join(home, "later")}}, Share{Path: home})

	for _, row := range []struct {
		says string
		do   func() error
		want error
	}{
		{"the folder is not found", func() error { _, err := os.Stat(filepath.Join(at, ".cove")); return err }, unix.ENOENT},
		{"nor what is in it", func() error { _, err := os.ReadFile(filepath.Join(at, ".cove/settings.json")); return err }, unix.ENOENT},
		{"nor the file in a folder that is shown", func() error { _, err := os.ReadFile(filepath.Join(at, "disks/data.raw")); return err }, unix.ENOENT},
		{"its name cannot be made a folder", func() error { return os.Mkdir(filepath.Join(at, ".cove"), 0o700) }, unix.EACCES},
		{"nor a file", func() error { return os.WriteFile(filepath.Join(at, "disks/data.raw"), nil, 0o600) }, unix.EACCES},
		{"nor one that does not exist yet", func() error { return os.Mkdir(filepath.Join(at, "later"), 0o700) }, unix.EACCES},
		{"nothing can be moved over it", func() error { return os.Rename(filepath.Join(at, "notes"), filepath.Join(at, ".cove")) }, unix.EACCES},
		{"it cannot be moved away", func() error { return os.Rename(filepath.Join(at, ".cove"), filepath.Join(at, "mine")) }, unix.ENOENT},
		{"it cannot be removed", func() error { return os.Remove(filepath.Join(at, "disks/data.raw")) }, unix.ENOENT},
	} {
		if err := row.do(); !errors.Is(err, row.want) {
			t.Errorf("%s: %v; want %v", row.says, err, row.want)
		}
	}
	entries, err := os.ReadDir(at)
	must(err)
	for _, e := range entries {
		if e.Name() == ".cove" {
			t.Error("a list of the folder names .cove")
		}
	}
	if len(entries) != 2 {
		t.Errorf("a list of the folder has %d names; want notes and disks", len(entries))
	}

	// The host gives them other names.
	must(os.Rename(own, filepath.Join(home, "moved")))
	must(os.Link(disk, filepath.Join(home, "linked")))
	for _, name := range []string{"moved", "moved/run", "linked"} {
		if _, err := os.Stat(filepath.Join(at, name)); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s, by a new name: %v; want ENOENT", name, err)
		}
	}
}
