package disk

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/covedesk/cove/vmhost"
)

const mib = 1 << 20

// problem is the ID of a *vmhost.Problem, which has to be in two sentences.
func problem(t *testing.T, err error) string {
	t.Helper()
	var p *vmhost.Problem
	if !errors.As(err, &p) {
		return ""
	}
	if !strings.HasSuffix(p.Summary, ".") || !strings.HasSuffix(p.Remedy, ".") {
		t.Errorf("%+v is not in sentences", p)
	}
	return p.ID
}

func write(t *testing.T, path, text string, size int64) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if size > 0 {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
	}
}

// alone fails if there is more in the folder than the names given.
func alone(t *testing.T, dir string, names ...string) {
	t.Helper()
	var got []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("the folder holds %q; want %q", got, names)
	}
}

func TestEnsure(t *testing.T) {
	for _, c := range []struct {
		says  string
		have  int64 // bytes of the disk before; none if negative
		asked int64
		want  Change
		size  int64
	}{
		{"a new disk is made", -1, 64 * mib, Created, 64 * mib},
		{"a new disk has whole sectors", -1, 64*mib + 1, Created, 64*mib + 512},
		{"a smaller disk grows", 4 * mib, 64 * mib, Grown, 64 * mib},
		{"an empty file grows", 0, 64 * mib, Grown, 64 * mib},
		{"a disk of the size is kept", 64 * mib, 64 * mib, Kept, 64 * mib},
		{"a larger disk never shrinks", 96 * mib, 64 * mib, Kept, 96 * mib},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "data.raw")
		const mark = "the user's data"
		if c.have >= 0 {
			write(t, path, "", c.have)
		}
		if c.have > 0 {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteAt([]byte(mark), 1<<20)
			f.WriteAt([]byte("\x53\xef"), 0x438) // an ext4 file system of ours
			f.WriteAt([]byte(label), 0x478)
			f.Close()
		}
		got, err := Ensure(t.Context(), path, c.asked)
		if err != nil || got != c.want {
			t.Errorf("%s: Ensure = %s, %v; want %s", c.says, got, err, c.want)
			continue
		}
		u, err := UsageOf(path)
		if err != nil || u.Size != c.size || u.Allocated > mib {
			t.Errorf("%s: UsageOf = %+v, %v; want a sparse disk of %d bytes", c.says, u, err, c.size)
		}
		st, _ := os.Stat(path)
		if runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
			t.Errorf("%s: its mode is %s", c.says, st.Mode())
		}
		if c.have > 0 {
			f, _ := os.Open(path)
			b := make([]byte, len(mark))
			f.ReadAt(b, 1<<20)
			f.Close()
			if string(b) != mark {
				t.Errorf("%s: its data became %q", c.says, b)
			}
		}
		alone(t, dir, "data.raw")
	}
}

func TestAnAlienDiskKeepsItsSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.raw")
	write(t, path, strings.Repeat("somebody's data ", 4096), 0)
	before, _ := os.ReadFile(path)
	got, err := Ensure(t.Context(), path, 64*mib)
	after, _ := os.ReadFile(path)
	if got != Kept || err != nil || string(after) != string(before) {
		t.Errorf("Ensure = %s, %v, and the disk has %d bytes; want it kept with %d", got, err, len(after), len(before))
	}
}

func TestEnsureAfterACrash(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, ".data.raw.part"), "half of one", 0)
	if got, err := Ensure(t.Context(), filepath.Join(dir, "data.raw"), mib); got != Created || err != nil {
		t.Errorf("Ensure = %s, %v", got, err)
	}
	alone(t, dir, "data.raw")
}

func TestEnsureRefusesOtherFormats(t *testing.T) {
	for _, k := range foreign {
		path := filepath.Join(t.TempDir(), "data.raw")
		text := strings.Repeat("\x00", k.at) + k.text
		write(t, path, text, 0) // as short as it can be, and smaller than the disk asked for
		_, err := Ensure(t.Context(), path, 64*mib)
		if problem(t, err) != vmhost.ProblemDataDisk || !strings.Contains(err.Error(), k.name) {
			t.Errorf("Ensure of %s = %v; want it refused by name", k.name, err)
		}
		if b, _ := os.ReadFile(path); string(b) != text {
			t.Errorf("Ensure of %s changed it", k.name)
		}
	}
	dir := filepath.Join(t.TempDir(), "data.raw")
	os.Mkdir(dir, 0o700)
	if _, err := Ensure(t.Context(), dir, mib); problem(t, err) != vmhost.ProblemDataDisk {
		t.Errorf("Ensure of a folder = %v", err)
	}
}

func TestEnsureOfMoreThanTheFileSystemHolds(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "data.raw")
	_, err := Ensure(t.Context(), path, math.MaxInt64-1023)
	if err == nil {
		t.Skip("this file system holds any size")
	}
	if runtime.GOOS == "linux" && problem(t, err) != vmhost.ProblemDataDisk {
		t.Errorf("Ensure = %v; want ProblemDataDisk", err)
	}
	alone(t, dir)
}

func TestEnsureInNoFolder(t *testing.T) {
	_, err := Ensure(t.Context(), filepath.Join(t.TempDir(), "none", "data.raw"), mib)
	if !errors.Is(err, fs.ErrNotExist) || problem(t, err) != "" {
		t.Errorf("Ensure = %v", err)
	}
}

func TestNoSpaceSaysWhatIsFreeAndWhatIsNeeded(t *testing.T) {
	err := noSpace(filepath.Join(t.TempDir(), "data.raw"), 5*mib+1, errors.New("the cause"))
	if problem(t, err) != vmhost.ProblemNoDisk || !errors.Is(err, ErrNoSpace) {
		t.Errorf("noSpace = %v; want a problem that is ErrNoSpace", err)
	}
	for _, part := range []string{" MiB are free", "about 6 MiB are needed", "the cause"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func TestFree(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	write(t, path, "", 0)
	for _, p := range []string{dir, path} {
		if n, err := Free(p); err != nil || n <= 0 {
			t.Errorf("Free(%s) = %d, %v", p, n, err)
		}
	}
	if _, err := Free(filepath.Join(dir, "none")); err == nil {
		t.Error("Free of nothing gives no error")
	}
}

func TestUsageCountsWhatIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.raw")
	if _, err := Ensure(t.Context(), path, 64*mib); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt(make([]byte, 8*mib), 16*mib)
	f.Sync() // some file systems allocate only then
	f.Close()
	if u, err := UsageOf(path); err != nil || u.Size != 64*mib || u.Allocated < 8*mib || u.Allocated > 10*mib {
		t.Errorf("UsageOf = %+v, %v; want about 8 MiB of 64 MiB", u, err)
	}
	if _, err := UsageOf(path + ".none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("UsageOf nothing = %v", err)
	}
}

func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
