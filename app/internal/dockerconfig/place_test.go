//go:build unix

package dockerconfig

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What stands in config.json's place, and what a change makes of it.
func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		is      string
		make    func(path string) error
		refused error
		at      string // the file that holds the change, from docker's folder
	}{
		{"nothing", func(string) error { return nil }, nil, "config.json"},
		{"a folder", func(p string) error { return os.Mkdir(p, 0o700) }, ErrNotFile, ""},
		{"a pipe, which would keep us", func(p string) error { return unix.Mkfifo(p, 0o600) }, ErrNotFile, ""},
		{"a link to /dev/null", func(p string) error { return os.Symlink("/dev/null", p) }, ErrNotFile, ""},
		{"a link to itself", func(p string) error { return os.Symlink("config.json", p) }, unix.ELOOP, ""},
		{"two links in a circle", func(p string) error {
			return errors.Join(os.Symlink("b", p), os.Symlink("config.json", filepath.Join(filepath.Dir(p), "b")))
		}, unix.ELOOP, ""},
		{"a link to a file that is not there", func(p string) error { return os.Symlink("../elsewhere/docker.json", p) }, nil, "../elsewhere/docker.json"},
		{"a link to a link to nothing", func(p string) error {
			return errors.Join(os.Symlink("b", p), os.Symlink("c", filepath.Join(filepath.Dir(p), "b")))
		}, nil, "c"},
		{"a link to a folder", func(p string) error { return os.Symlink("..", p) }, ErrNotFile, ""},
	} {
		d := Docker{Dir: filepath.Join(t.TempDir(), ".docker"), Backups: t.TempDir()}
		if err := errors.Join(os.Mkdir(d.Dir, 0o700), c.make(d.Path())); err != nil {
			t.Fatal(err)
		}
		before, _ := os.Lstat(d.Path())
		err := d.Change(use)
		if !errors.Is(err, c.refused) {
			t.Errorf("%s: Change = %v; want %v", c.is, err, c.refused)
		}
		after, _ := os.Lstat(d.Path())
		if before != nil && (after == nil || before.Mode() != after.Mode()) {
			t.Errorf("%s: it was %v and is %v", c.is, before.Mode(), after)
		}
		if c.refused == nil {
			if got := contents(t, filepath.Join(d.Dir, c.at)); got != `{"credsStore":"cove"}` {
				t.Errorf("%s: it is %s", c.is, got)
			}
		}
	}
}

// asNobody runs the rest of the test again in another process, as a user without rights where this one has
// them all, and with a limit on the size of files when one is given. In that process it gives true.
func asNobody(t *testing.T, folder string) (there bool) {
	t.Helper()
	if os.Getenv("COVE_TEST_FOLDER") != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "COVE_TEST_FOLDER="+folder)
	if os.Getuid() == 0 {
		const nobody = 65534
		for dir := folder; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
			os.Chmod(dir, 0o711)
		}
		err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, nobody, nobody))
		})
		if err != nil {
			t.Fatal(err)
		}
		// The test's own program is where only root may go.
		self, err := os.ReadFile(os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path = filepath.Join(filepath.Dir(folder), "self.test")
		if err := os.WriteFile(cmd.Path, self, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd.Dir = folder
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in the other process: %v\n%s", err, out)
	}
	return false
}

func TestWithoutPermission(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "u")
	os.Mkdir(folder, 0o700)
	if !asNobody(t, folder) {
		return
	}
	folder = os.Getenv("COVE_TEST_FOLDER")
	d := Docker{Dir: filepath.Join(folder, ".docker"), Backups: filepath.Join(folder, "backups")}
	const config = `{"a":1}`
	if err := errors.Join(os.Mkdir(d.Dir, 0o700), os.WriteFile(d.Path(), []byte(config), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		is           string
		file, folder os.FileMode
	}{
		{"a file that may not be read", 0, 0o700},
		{"a folder that may not be written to", 0o600, 0o500},
		{"a folder that may not be entered", 0o600, 0},
	} {
		os.Chmod(d.Path(), c.file)
		os.Chmod(d.Dir, c.folder)
		err := d.Change(use)
		os.Chmod(d.Dir, 0o700)
		os.Chmod(d.Path(), 0o600)
		left, _ := os.ReadDir(d.Dir)
		if !errors.Is(err, fs.ErrPermission) || contents(t, d.Path()) != config || len(left) != 1 {
			t.Errorf("%s: Change = %v, it is %s, and the folder holds %v", c.is, err, contents(t, d.Path()), left)
		}
	}
	// A file that may only be read is replaced: its folder is what counts, for docker too. It stays so.
	os.Chmod(d.Path(), 0o400)
	if err := d.Change(use); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(d.Path()); err != nil || st.Mode() != 0o400 {
		t.Errorf("its mode is %v, %v", st.Mode(), err)
	}
}

// The file is larger than this process may write, which fails in the middle as a full disk does.
func TestOnAFullDisk(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "u")
	os.Mkdir(folder, 0o700)
	if !asNobody(t, folder) {
		return
	}
	folder = os.Getenv("COVE_TEST_FOLDER")
	d := Docker{Dir: filepath.Join(folder, ".docker")}
	config := `{"a":"` + strings.Repeat("x", 100_000) + `"}`
	if err := errors.Join(os.Mkdir(d.Dir, 0o700), os.WriteFile(d.Path(), []byte(config), 0o600)); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 50_000, Max: 50_000}); err != nil {
		t.Fatal(err)
	}
	err := d.Change(use)
	left, _ := os.ReadDir(d.Dir)
	if err == nil || !strings.Contains(err.Error(), "stay as they were") || contents(t, d.Path()) != config || len(left) != 1 {
		t.Errorf("Change = %v, it has %d bytes, and the folder holds %v", err, len(contents(t, d.Path())), left)
	}
}

// sudo must not take the file away from its user.
func TestRootGivesTheFileBack(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can take it away")
	}
	d := in(t, "{}")
	if err := os.Chown(d.Path(), 1234, 2345); err != nil {
		t.Fatal(err)
	}
	if err := d.Change(use); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(d.Path())
	if err != nil {
		t.Fatal(err)
	}
	if s := st.Sys().(*syscall.Stat_t); s.Uid != 1234 || s.Gid != 2345 {
		t.Errorf("it belongs to %d:%d now", s.Uid, s.Gid)
	}
}

func TestOpenToOthers(t *testing.T) {
	for mode, open := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o644: true, 0o660: true, 0o602: true} {
		d := in(t, "{}")
		os.Chmod(d.Path(), mode)
		if got, err := d.OpenToOthers(); got != open || err != nil {
			t.Errorf("OpenToOthers with %s = %v, %v", mode, got, err)
		}
		if did, err := d.CloseToOthers(); did != open || err != nil {
			t.Errorf("CloseToOthers with %s = %v, %v", mode, did, err)
		}
		if got, err := d.OpenToOthers(); got || err != nil {
			t.Errorf("after CloseToOthers of %s OpenToOthers = %v, %v", mode, got, err)
		}
	}
}

// Another process of ours holds the folder.
func TestAnotherProcessIsWaitedFor(t *testing.T) {
	d := in(t, "{}")
	unlock, taken, err := tryLock(d.Dir)
	if err != nil || taken {
		t.Fatal(taken, err)
	}
	if _, again, err := tryLock(d.Dir); !again || err != nil {
		t.Fatalf("the lock is given twice: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- d.Change(use) }()
	unlock()
	if err := <-done; err != nil || contents(t, d.Path()) != `{"credsStore":"cove"}` {
		t.Errorf("Change = %v, and it is %s", err, contents(t, d.Path()))
	}
}
