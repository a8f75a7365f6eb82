//go:build linux

package share_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/covedesk/cove/vmhost/share"
	"github.com/covedesk/cove/vmhost/share/sharetest"
	"golang.org/x/sys/unix"
)

// said is an outcome in a word: what was read, or the error.
func said(b []byte, err error) string {
	if errno := unix.Errno(0); errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	} else if err != nil && err != io.EOF {
		return err.Error()
	}
	return string(b)
}

// What happened to a folder "d" with a file "f" during the sleep, and what those see who had them open.
func TestWhatTheHostDidDuringTheSleep(t *testing.T) {
	type sees struct{ read, write, stat, lookup, list, cwd string }
	whole := sees{"old", "ok", "same", "old", "f", "old"}
	stale := sees{"ESTALE", "ESTALE", "ESTALE", "ENOENT", "ESTALE", "ESTALE"}
	for _, row := range []struct {
		says string
		do   func(host string) // d is in it
		want sees
	}{
		{"nothing: all goes on", func(string) {}, whole},
		{"new content: everybody has it", func(h string) { overwrite(h+"/d/f", "new") }, sees{"new", "ok", "same", "new", "f", "new"}},
		{"new content with the old time: everybody has it", func(h string) {
			var st unix.Stat_t
			must(unix.Stat(h+"/d/f", &st))
			overwrite(h+"/d/f", "new")
			must(unix.UtimesNanoAt(unix.AT_FDCWD, h+"/d/f", []unix.Timespec{st.Atim, st.Mtim}, 0))
		}, sees{"new", "ok", "same", "new", "f", "new"}},
		{"longer: everybody has it", func(h string) { overwrite(h+"/d/f", "newer") }, sees{"newer", "ok", "same", "newer", "f", "newer"}},
		{"emptied: everybody has it", func(h string) { must(os.Truncate(h+"/d/f", 0)) }, sees{"", "ok", "same", "", "f", ""}},
		{"replaced: the old is stale, the name is the new", func(h string) {
			must(os.WriteFile(h+"/d/g", []byte("new"), 0644))
			must(os.Rename(h+"/d/g", h+"/d/f"))
		}, sees{"ESTALE", "ESTALE", "ESTALE", "new", "f", "new"}},
		{"deleted: stale, and there is no such name", func(h string) { must(os.Remove(h + "/d/f")) }, sees{"ESTALE", "ESTALE", "ESTALE", "ENOENT", "", "ENOENT"}},
		{"deleted and made again: as replaced", func(h string) {
			must(os.Remove(h + "/d/f"))
			must(os.WriteFile(h+"/d/f", []byte("new"), 0644))
		}, sees{"ESTALE", "ESTALE", "ESTALE", "new", "f", "new"}},
		{"renamed: stale until its new name is found", func(h string) { must(os.Rename(h+"/d/f", h+"/d/g")) }, sees{"ESTALE", "ok", "ESTALE", "ENOENT", "g", "ENOENT"}},
		{"another file beside it: is listed", func(h string) { must(os.WriteFile(h+"/d/g", nil, 0644)) }, sees{"old", "ok", "same", "old", "f g", "old"}},
		{"its folder moved: all of it is stale", func(h string) { must(os.Rename(h+"/d", h+"/e")) }, stale},
		{"its folder replaced by a copy: the name is the new", func(h string) {
			must(os.Rename(h+"/d", h+"/e"))
			must(os.Mkdir(h+"/d", 0755))
			must(os.WriteFile(h+"/d/f", []byte("new"), 0644))
		}, sees{"ESTALE", "ESTALE", "ESTALE", "new", "ESTALE", "ESTALE"}},
		{"its folder is a link to somewhere else by now", func(h string) {
			must(os.Rename(h+"/d", h+"/e"))
			must(os.Symlink("/etc", h+"/d"))
		}, stale},
		{"another mode: goes on", func(h string) { must(os.Chmod(h+"/d/f", 0640)) }, whole},
		{"the share's folder is gone", func(h string) { must(os.RemoveAll(h)); must(os.Mkdir(h, 0755)) }, sees{"ESTALE", "ESTALE", "ESTALE", "ESTALE", "ESTALE", "ESTALE"}},
	} {
		t.Run(row.says, func(t *testing.T) {
			t.Parallel()
			host := filepath.Join(t.TempDir(), "share")
			must(os.MkdirAll(host+"/d", 0755))
			must(os.WriteFile(host+"/d/f", []byte("old"), 0644))
			k := sharetest.NewSleeper(t, share.Share{Path: host})
			file, err := os.OpenFile(k.Guest+"/d/f", os.O_RDWR, 0)
			must(err)
			defer file.Close()
			if b, err := io.ReadAll(file); string(b) != "old" {
				t.Fatalf("before the sleep: %q, %v", b, err)
			}
			known, err := unix.Open(k.Guest+"/d/f", unix.O_PATH, 0)
			must(err)
			defer unix.Close(known)
			list, err := os.Open(k.Guest + "/d")
			must(err)
			defer list.Close()
			cwd, err := unix.Open(k.Guest+"/d", unix.O_PATH|unix.O_DIRECTORY, 0)
			must(err)
			defer unix.Close(cwd)
			var before unix.Stat_t
			must(unix.Fstat(known, &before))

			state := k.Sleep()
			row.do(host)
			k.Wake(state, share.Share{Path: host})

			var got sees
			read := func(fd int) string {
				b := make([]byte, 100)
				n, err := unix.Pread(fd, b, 0)
				return said(b[:max(n, 0)], err)
			}
			got.read = read(int(file.Fd()))
			var st unix.Stat_t
			if got.stat = said([]byte("same"), unix.Fstat(known, &st)); got.stat == "same" && st.Ino != before.Ino {
				got.stat = "another"
			}
			b, err := os.ReadFile(k.Guest + "/d/f")
			got.lookup = said(b, err)
			names, err := list.Readdirnames(-1)
			slices.Sort(names)
			got.list = said([]byte(strings.Join(names, " ")), err)
			fd, err := unix.Openat(cwd, "f", unix.O_RDONLY, 0)
			if got.cwd = said(nil, err); err == nil {
				got.cwd = read(fd)
				unix.Close(fd)
			}
			_, err = file.WriteAt([]byte("written"), 0)
			if got.write = said([]byte("lost"), err); err == nil {
				for _, name := range []string{"f", "g"} {
					if b, _ := os.ReadFile(host + "/d/" + name); string(b) == "written" {
						got.write = "ok"
					}
				}
			}
			if got != row.want {
				t.Errorf("seen after the wake:\n %+v; want\n %+v", got, row.want)
			}
		})
	}
}

// overwrite is what `> file` does.
func overwrite(path, text string) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	must(err)
	defer f.Close()
	_, err = f.WriteString(text)
	must(err)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// A folder that the settings no longer share, and one that is read-only by now: errors, at once.
func TestSharesThatAreNotWhatTheyWereAtTheWake(t *testing.T) {
	host, other := t.TempDir(), t.TempDir()
	must(os.WriteFile(host+"/f", []byte("old"), 0644))
	k := sharetest.NewSleeper(t, share.Share{Path: host}, share.Share{Path: other})
	file, err := os.OpenFile(k.Guest+"/f", os.O_RDWR, 0)
	must(err)
	defer file.Close()

	k.Wake(k.Sleep(), share.Share{Path: other}, share.Share{Path: host, ReadOnly: true})
	if b, err := os.ReadFile(k.Guest + "/f"); string(b) != "old" {
		t.Errorf("a file of a share that is read-only now: %q, %v", b, err)
	}
	if _, err := file.WriteAt([]byte("new"), 0); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a file that was open: %v; want EROFS", err)
	}
	if err := os.WriteFile(k.Guest+"/f", []byte("new"), 0644); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v; want EROFS", err)
	}

	k.Wake(k.Sleep(), share.Share{Path: other}, share.Share{Path: "/var"})
	for _, path := range []string{k.Guest, k.Guest + "/f"} {
		if _, err := os.ReadFile(path); !errors.Is(err, unix.ESTALE) {
			t.Errorf("read %s of a share that is gone: %v; want ESTALE", path, err)
		}
	}
	if err := os.WriteFile(filepath.Dir(k.Guest)+"/1/g", []byte("new"), 0644); err != nil {
		t.Errorf("the other share: %v", err)
	}
	if err := unix.Access(filepath.Dir(k.Guest)+"/2", unix.F_OK); err != unix.ENOENT {
		t.Errorf("a share that is new: %v; want ENOENT until the VM starts anew", err)
	}
	if b, err := os.ReadFile(other + "/g"); string(b) != "new" {
		t.Errorf("on the host: %q, %v", b, err)
	}
}

// What only memory knows of owners, ids that go on counting, a folder that is read in pieces, and all of it
// twice: a saved state is as good as a first life.
func TestASleepIsNotSeen(t *testing.T) {
	host := t.TempDir()
	k := sharetest.NewSleeper(t, share.Share{Path: host})
	must(os.Symlink("nowhere", k.Guest+"/link"))
	must(os.Lchown(k.Guest+"/link", 7, 8))
	link, err := unix.Open(k.Guest+"/link", unix.O_PATH|unix.O_NOFOLLOW, 0) // its owner is known while it is in use
	must(err)
	defer unix.Close(link)
	must(os.WriteFile(k.Guest+"/owned", []byte("x"), 0600))
	must(os.Chown(k.Guest+"/owned", 999, 999))
	must(os.Mkdir(k.Guest+"/many", 0755))
	for i := range 2000 {
		must(os.WriteFile(fmt.Sprintf("%s/many/%04d", host, i), nil, 0644))
	}
	dir, err := os.Open(k.Guest + "/many")
	must(err)
	defer dir.Close()
	var names []string
	var appended *os.File
	for round := range 3 {
		some, err := dir.Readdirnames(500)
		must(err)
		names = append(names, some...)
		k.Wake(k.Sleep(), k.Shares...)

		var st unix.Stat_t
		must(unix.Lstat(k.Guest+"/link", &st))
		if st.Uid != 7 || st.Gid != 8 {
			t.Errorf("round %d: the link is of %d:%d; want 7:8", round, st.Uid, st.Gid)
		}
		must(unix.Stat(k.Guest+"/owned", &st))
		if st.Uid != 999 || st.Mode&0777 != 0600 {
			t.Errorf("round %d: the file is of %d, mode %o; want 999, 600", round, st.Uid, st.Mode&0777)
		}
		if appended == nil {
			appended, err = os.OpenFile(k.Guest+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY|os.O_TRUNC, 0644)
			must(err)
			defer appended.Close()
		}
		fmt.Fprintln(appended, round)
	}
	rest, err := dir.Readdirnames(-1)
	must(err)
	names = append(names, rest...)
	slices.Sort(names)
	if len(slices.Compact(names)) != 2000 {
		t.Errorf("%d names read over three sleeps; want 2000", len(names))
	}
	if b, err := os.ReadFile(host + "/log"); string(b) != "0\n1\n2\n" {
		t.Errorf("the log has %q, %v", b, err)
	}
}

// A state that is not whole, or not of this version, is refused; nothing else comes of it.
func TestAStateThatIsNone(t *testing.T) {
	host := t.TempDir()
	must(os.WriteFile(host+"/f", nil, 0644))
	k := sharetest.NewSleeper(t, share.Share{Path: host})
	_, err := os.Stat(k.Guest + "/f")
	must(err)
	state := k.Sleep()
	load := func(b []byte) error {
		f, err := share.New(k.Shares, share.Options{})
		must(err)
		defer f.Close()
		return f.Load(bytes.NewReader(b))
	}
	for at := range state {
		b := bytes.Clone(state)
		b[at] ^= 1
		if load(b) == nil {
			t.Fatalf("a state with byte %d of %d changed was loaded", at, len(b))
		}
	}
	for n := range state {
		if load(state[:n]) == nil {
			t.Fatalf("%d bytes of a state of %d were loaded", n, len(state))
		}
	}
	if load(append(bytes.Clone(state), 0)) == nil {
		t.Error("a state with something after it was loaded")
	}
	used := k.FS
	k.Wake(state, k.Shares...)
	if err := k.FS.Load(bytes.NewReader(state)); err == nil {
		t.Error("a file system that is in use was loaded again")
	}
	if err := used.Save(io.Discard); err == nil {
		t.Error("a closed file system was saved")
	}
}
