package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/covedesk/cove/vmhost"
	"golang.org/x/sys/unix"
)

// small is a file system with the options given, gone after the test.
func small(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("mount a small file system: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	return dir
}

func TestImportToASmallDisk(t *testing.T) {
	dir := small(t, "size=1m")
	err := Import(t.Context(), source(t, "qcow2"), filepath.Join(dir, "data.raw"), 8*mib)
	if problem(t, err) != vmhost.ProblemNoDisk || !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "1 MiB are free, and about 3 MiB are needed") {
		t.Errorf("Import = %v; want ProblemNoDisk with the numbers", err)
	}
	alone(t, dir)
}

// The room ends while the image is written: somebody else took it after it was counted.
func TestTheDiskFillsDuringAnImport(t *testing.T) {
	dir := small(t, "size=1m")
	err := convert(t.Context(), source(t, "qcow2"), filepath.Join(dir, "data.raw"), 8*mib, 3*mib)
	if problem(t, err) != vmhost.ProblemNoDisk || !errors.Is(err, ErrNoSpace) {
		t.Errorf("convert = %v; want ProblemNoDisk", err)
	}
	alone(t, dir)
}

func TestEnsureOnAFullDisk(t *testing.T) {
	dir := small(t, "size=1m,nr_inodes=2")
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(t.Context(), filepath.Join(dir, "data.raw"), 8*mib); problem(t, err) != vmhost.ProblemNoDisk || !errors.Is(err, ErrNoSpace) {
		t.Errorf("Ensure = %v; want ProblemNoDisk", err)
	}
}
