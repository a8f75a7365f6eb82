//go:build linux

package share

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// look is what a stat shows: "kind mode uid gid".
func look(path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err.Error()
	}
	kind := map[uint32]string{unix.S_IFREG: "file", unix.S_IFDIR: "folder", unix.S_IFLNK: "link", unix.S_IFIFO: "fifo", unix.S_IFSOCK: "socket"}[st.Mode&unix.S_IFMT]
	return fmt.Sprintf("%s %04o %d %d", kind, st.Mode&07777, st.Uid, st.Gid)
}

// The rows run on a folder of the guest and on a plain local folder, as pjdfstest does: what is seen has to
// be the same. Each begins as root in an empty folder that every user may write to.
var semantics = []struct {
	sentence string
	do       func(t *testing.T, d string) string // what is seen
}{
	{"a file has the owner and the mode that its maker gave", func(t *testing.T, d string) string {
		as(t, 999, 998, nil, func() { os.WriteFile(d+"/f", nil, 0640) })
		return look(d + "/f")
	}},
	{"a folder too, and a symlink, a FIFO and a socket", func(t *testing.T, d string) (s string) {
		as(t, 999, 998, nil, func() {
			unix.Mkdir(d+"/d", 0711)
			unix.Symlink("nowhere", d+"/l")
			unix.Mkfifo(d+"/p", 0604)
			unix.Mknod(d+"/s", unix.S_IFSOCK|0660, 0)
		})
		return look(d+"/d") + look(d+"/l") + look(d+"/p") + look(d+"/s")
	}},
	{"a mode of 0000 keeps its owner out, and not root", func(t *testing.T, d string) (s string) {
		as(t, 999, 999, nil, func() {
			os.WriteFile(d+"/f", []byte("x"), 0600)
			unix.Chmod(d+"/f", 0)
			_, err := os.ReadFile(d + "/f")
			s = fmt.Sprint(errors.Is(err, unix.EACCES), errors.Is(os.WriteFile(d+"/f", nil, 0), unix.EACCES))
		})
		b, err := os.ReadFile(d + "/f")
		return s + look(d+"/f") + string(b) + fmt.Sprint(err)
	}},
	{"a file that is made with mode 0000 can be written by who made it", func(t *testing.T, d string) (s string) {
		as(t, 999, 999, nil, func() {
			f, err := os.OpenFile(d+"/f", os.O_CREATE|os.O_RDWR|os.O_EXCL, 0)
			if err != nil {
				s = err.Error()
				return
			}
			defer f.Close()
			_, err = f.WriteString("x")
			s = fmt.Sprint(err)
		})
		return s + look(d+"/f")
	}},
	{"others are kept out by a mode of 0700, and let in by group", func(t *testing.T, d string) (s string) {
		as(t, 999, 999, nil, func() {
			unix.Mkdir(d+"/d", 0700)
			os.WriteFile(d+"/d/f", nil, 0644)
			unix.Mkdir(d+"/g", 0750)
			os.WriteFile(d+"/g/f", nil, 0640)
		})
		as(t, 1000, 1000, nil, func() { s += fmt.Sprint(os.ReadFile(d + "/d/f"))[:3] + look(d + "/d/f")[:4] })
		as(t, 1000, 1000, []int{999}, func() { _, err := os.ReadFile(d + "/g/f"); s += fmt.Sprint(err) })
		return s
	}},
	{"only root gives files away, an owner may give it one of their groups", func(t *testing.T, d string) (s string) {
		os.WriteFile(d+"/f", nil, 0644)
		os.Chown(d+"/f", 999, 999)
		as(t, 999, 999, []int{55}, func() {
			s = fmt.Sprint(unix.Chown(d+"/f", 1000, -1), unix.Chown(d+"/f", -1, 56), unix.Chown(d+"/f", -1, 55))
		})
		return s + look(d+"/f")
	}},
	{"only the owner changes a mode", func(t *testing.T, d string) (s string) {
		as(t, 999, 999, nil, func() { os.WriteFile(d+"/f", nil, 0644) })
		as(t, 1000, 1000, nil, func() { s = fmt.Sprint(unix.Chmod(d+"/f", 0666)) })
		return s + look(d+"/f")
	}},
	{"chmod keeps setuid, setgid and sticky", func(t *testing.T, d string) string {
		os.WriteFile(d+"/f", nil, 0755)
		unix.Chmod(d+"/f", 06755)
		unix.Mkdir(d+"/d", 0755)
		unix.Chmod(d+"/d", 03777)
		return look(d+"/f") + look(d+"/d")
	}},
	{"chown clears setuid, and setgid where the group may run it", func(t *testing.T, d string) (s string) {
		for i, mode := range []uint32{06755, 06745, 04755, 02770} {
			f := fmt.Sprint(d, "/f", i)
			os.WriteFile(f, nil, 0755)
			unix.Chmod(f, mode)
			unix.Chown(f, 7, 8)
			s += look(f)
		}
		unix.Mkdir(d+"/d", 0755)
		unix.Chmod(d+"/d", 06755)
		unix.Chown(d+"/d", 7, 8)
		return s + look(d+"/d")
	}},
	{"a write by another than root clears setuid", func(t *testing.T, d string) (s string) {
		for i, by := range []int{0, 999} {
			f := fmt.Sprint(d, "/f", i)
			os.WriteFile(f, []byte("a"), 0777)
			unix.Chown(f, 999, 999)
			unix.Chmod(f, 06777)
			as(t, by, by, nil, func() {
				h, err := os.OpenFile(f, os.O_WRONLY, 0)
				if err != nil {
					s += err.Error()
					return
				}
				h.WriteString("b")
				h.Close()
			})
			s += look(f)
		}
		return s
	}},
	{"so do truncating, and opening with O_TRUNC", func(t *testing.T, d string) (s string) {
		for i, do := range []func(string) error{func(f string) error { return unix.Truncate(f, 1) }, func(f string) error {
			h, err := os.OpenFile(f, os.O_WRONLY|os.O_TRUNC, 0)
			h.Close()
			return err
		}} {
			f := fmt.Sprint(d, "/f", i)
			os.WriteFile(f, []byte("ab"), 0777)
			unix.Chown(f, 999, 999)
			unix.Chmod(f, 06777)
			as(t, 999, 999, nil, func() { s += fmt.Sprint(do(f)) })
			s += look(f)
		}
		return s
	}},
	{"what is made in a setgid folder has its group, and a folder is setgid too", func(t *testing.T, d string) string {
		unix.Mkdir(d+"/d", 0777)
		unix.Chown(d+"/d", 0, 77)
		unix.Chmod(d+"/d", 02777)
		as(t, 999, 999, nil, func() {
			os.WriteFile(d+"/d/f", nil, 0644)
			unix.Mkdir(d+"/d/e", 0755)
			unix.Mkfifo(d+"/d/p", 0644)
		})
		return look(d+"/d/f") + look(d+"/d/e") + look(d+"/d/p")
	}},
	{"in a sticky folder one removes and renames one's own only", func(t *testing.T, d string) (s string) {
		unix.Mkdir(d+"/d", 0777)
		unix.Chmod(d+"/d", 01777)
		as(t, 999, 999, nil, func() { os.WriteFile(d+"/d/f", nil, 0666); os.WriteFile(d+"/d/g", nil, 0666) })
		as(t, 1000, 1000, nil, func() {
			os.WriteFile(d+"/d/h", nil, 0666)
			s = fmt.Sprint(unix.Unlink(d+"/d/f"), unix.Rename(d+"/d/f", d+"/d/x"), unix.Rename(d+"/d/h", d+"/d/f"), unix.Unlink(d+"/d/h"))
		})
		as(t, 999, 999, nil, func() { s += fmt.Sprint(unix.Unlink(d + "/d/g")) })
		return s
	}},
	{"rename: file over file, over folder, folder over file, over empty, over full, into itself", func(t *testing.T, d string) string {
		os.WriteFile(d+"/f", []byte("f"), 0644)
		os.WriteFile(d+"/g", []byte("g"), 0644)
		os.MkdirAll(d+"/empty", 0755)
		os.MkdirAll(d+"/full/x", 0755)
		os.MkdirAll(d+"/dir/sub", 0755)
		s := fmt.Sprint(unix.Rename(d+"/f", d+"/g"), unix.Rename(d+"/g", d+"/empty"), unix.Rename(d+"/dir", d+"/g"),
			unix.Rename(d+"/dir", d+"/full"), unix.Rename(d+"/dir", d+"/dir/sub/y"), unix.Rename(d+"/dir", d+"/empty"),
			unix.Rename(d+"/missing", d+"/z"), unix.Rename(d+"/g", d+"/g"))
		b, err := os.ReadFile(d + "/g")
		return s + string(b) + fmt.Sprint(err) + look(d+"/empty/sub")
	}},
	{"rename with NOREPLACE and EXCHANGE", func(t *testing.T, d string) string {
		os.WriteFile(d+"/f", []byte("f"), 0644)
		unix.Mkdir(d+"/d", 0755)
		at := unix.AT_FDCWD
		return fmt.Sprint(unix.Renameat2(at, d+"/f", at, d+"/d", unix.RENAME_NOREPLACE), unix.Renameat2(at, d+"/f", at, d+"/d", unix.RENAME_EXCHANGE)) +
			look(d+"/f") + look(d+"/d") + fmt.Sprint(unix.Renameat2(at, d+"/d", at, d+"/e", unix.RENAME_NOREPLACE)) + look(d+"/e") + look(d+"/d")
	}},
	{"links count, and the last name is the file's end", func(t *testing.T, d string) (s string) {
		os.WriteFile(d+"/f", []byte("x"), 0644)
		count := func(f string) { var st unix.Stat_t; err := unix.Stat(f, &st); s += fmt.Sprint(st.Nlink, err, " ") }
		count(d + "/f")
		s += fmt.Sprint(unix.Link(d+"/f", d+"/g"), unix.Link(d+"/f", d+"/g"), unix.Link(d, d+"/h"))
		count(d + "/f")
		unix.Unlink(d + "/f")
		count(d + "/g")
		unix.Symlink("g", d+"/l")
		s += fmt.Sprint(unix.Link(d+"/l", d+"/l2")) + look(d+"/l2")
		var a, b unix.Stat_t
		unix.Lstat(d+"/l", &a)
		unix.Lstat(d+"/l2", &b)
		return s + fmt.Sprint(a.Ino == b.Ino, a.Nlink)
	}},
	{"an unlinked file that is open is written, read, truncated and stat'ed", func(t *testing.T, d string) string {
		f, err := os.OpenFile(d+"/f", os.O_CREATE|os.O_RDWR, 0644)
		if err != nil {
			return err.Error()
		}
		defer f.Close()
		os.Remove(d + "/f")
		f.WriteString("hello")
		b := make([]byte, 9)
		n, err := f.ReadAt(b, 0)
		terr := f.Truncate(2)
		st, serr := f.Stat()
		cherr := f.Chmod(0600)
		return fmt.Sprint(string(b[:n]), err, terr, st.Size(), serr, cherr)
	}},
	{"a folder that was removed while it is open is empty, and takes nothing", func(t *testing.T, d string) string {
		unix.Mkdir(d+"/d", 0755)
		fd, err := unix.Open(d+"/d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err.Error()
		}
		defer unix.Close(fd)
		unix.Rmdir(d + "/d")
		return fmt.Sprint(unix.Mkdirat(fd, "e", 0755))
	}},
	{"names: 255 bytes, 256, no UTF-8, a newline, a colon, a backslash, spaces", func(t *testing.T, d string) (s string) {
		for _, name := range []string{strings.Repeat("n", 255), strings.Repeat("n", 256), "\xff\xfe\x80", "a\nb", "a:b", `a\b`, " ", "ü", "u\u0308"} {
			err := os.WriteFile(d+"/"+name, []byte(name), 0644)
			b, _ := os.ReadFile(d + "/" + name)
			var e unix.Errno
			errors.As(err, &e)
			s += fmt.Sprint(e, string(b) == name, " ")
		}
		entries, _ := os.ReadDir(d)
		for _, e := range entries {
			s += fmt.Sprintf("%q", e.Name())
		}
		return s
	}},
	{"times have nanoseconds, of links too, and can be left alone or set to now", func(t *testing.T, d string) string {
		os.WriteFile(d+"/f", nil, 0644)
		unix.Symlink("f", d+"/l")
		at, mt := unix.Timespec{Sec: 1, Nsec: 123456789}, unix.Timespec{Sec: 1 << 33, Nsec: 987654321}
		unix.UtimesNanoAt(unix.AT_FDCWD, d+"/f", []unix.Timespec{at, mt}, 0)
		unix.UtimesNanoAt(unix.AT_FDCWD, d+"/l", []unix.Timespec{mt, at}, unix.AT_SYMLINK_NOFOLLOW)
		unix.UtimesNanoAt(unix.AT_FDCWD, d+"/f", []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: 5}}, 0)
		var a, b unix.Stat_t
		unix.Lstat(d+"/f", &a)
		unix.Lstat(d+"/l", &b)
		unix.UtimesNanoAt(unix.AT_FDCWD, d+"/f", nil, 0)
		var c unix.Stat_t
		unix.Lstat(d+"/f", &c)
		return fmt.Sprint(a.Atim, a.Mtim, b.Atim, b.Mtim, time.Since(time.Unix(c.Mtim.Unix())).Abs() < time.Minute)
	}},
	{"only the owner sets times, who may write sets them to now", func(t *testing.T, d string) (s string) {
		as(t, 999, 999, nil, func() { os.WriteFile(d+"/f", nil, 0); unix.Chmod(d+"/f", 0666) })
		as(t, 1000, 1000, nil, func() {
			s = fmt.Sprint(unix.UtimesNanoAt(unix.AT_FDCWD, d+"/f", []unix.Timespec{{Sec: 1}, {Sec: 1}}, 0), unix.UtimesNanoAt(unix.AT_FDCWD, d+"/f", nil, 0))
		})
		return s
	}},
	{"holes stay holes, can be found and made", func(t *testing.T, d string) string {
		f, err := os.Create(d + "/f")
		if err != nil {
			return err.Error()
		}
		defer f.Close()
		f.WriteAt([]byte("x"), 10<<20)
		data, err1 := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
		hole, err2 := unix.Seek(int(f.Fd()), 10<<20, unix.SEEK_HOLE)
		err3 := unix.Fallocate(int(f.Fd()), 0, 0, 1<<20)
		err4 := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 1<<20-4096)
		err5 := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 20<<20, 4096)
		var st unix.Stat_t
		unix.Fstat(int(f.Fd()), &st)
		return fmt.Sprint(data, err1, hole, err2, err3, err4, err5, st.Size, st.Blocks < 2048)
	}},
	{"what is appended goes to the end, whoever else appends", func(t *testing.T, d string) string {
		a, _ := os.OpenFile(d+"/f", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0644)
		b, _ := os.OpenFile(d+"/f", os.O_WRONLY|os.O_APPEND, 0644)
		defer a.Close()
		defer b.Close()
		for range 3 {
			a.WriteString("a")
			b.WriteString("b")
		}
		c, err := os.ReadFile(d + "/f")
		return string(c) + fmt.Sprint(err)
	}},
	{"what one writes, others read and have mapped, and the other way round", func(t *testing.T, d string) (s string) {
		w, err := os.OpenFile(d+"/f", os.O_CREATE|os.O_WRONLY, 0644)
		if err != nil {
			return err.Error()
		}
		defer w.Close()
		w.WriteString("aaaaaaaa")
		r, _ := os.Open(d + "/f")
		defer r.Close()
		rw, _ := os.OpenFile(d+"/f", os.O_RDWR, 0)
		defer rw.Close()
		read, err := unix.Mmap(int(r.Fd()), 0, 8, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return err.Error()
		}
		defer unix.Munmap(read)
		both, err := unix.Mmap(int(rw.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err.Error()
		}
		defer unix.Munmap(both)
		see := func() {
			b := make([]byte, 9)
			n, err := r.ReadAt(b, 0)
			s += fmt.Sprint(string(b[:n]), err, string(read), string(both), " ")
		}
		see()
		w.WriteAt([]byte("b"), 1)
		see()
		both[2] = 'c'
		unix.Msync(both, unix.MS_SYNC)
		see()
		w.WriteAt([]byte("d"), 3)
		rw.WriteAt([]byte("e"), 4)
		see()
		w.Truncate(6)
		left, err := os.ReadFile(d + "/f")
		return s + string(left) + fmt.Sprint(err)
	}},
	{"user attributes are set, listed, read, too long for the buffer, and removed", func(t *testing.T, d string) string {
		os.WriteFile(d+"/f", nil, 0644)
		e1 := unix.Setxattr(d+"/f", "user.a", []byte("value"), unix.XATTR_CREATE)
		e2 := unix.Setxattr(d+"/f", "user.a", []byte("x"), unix.XATTR_CREATE)
		e3 := unix.Setxattr(d+"/f", "user.b", []byte("x"), unix.XATTR_REPLACE)
		buf := make([]byte, 100)
		n, e4 := unix.Listxattr(d+"/f", buf)
		size, e5 := unix.Getxattr(d+"/f", "user.a", nil)
		_, e6 := unix.Getxattr(d+"/f", "user.a", buf[:2])
		_, e7 := unix.Getxattr(d+"/f", "user.none", buf)
		e8 := unix.Removexattr(d+"/f", "user.a")
		e9 := unix.Removexattr(d+"/f", "user.a")
		list := ""
		if n > 0 {
			list = string(buf[:n])
		}
		unix.Symlink("f", d+"/l")
		return fmt.Sprint(e1, e2, e3, strings.Contains(list, "user.a"), e4, size, e5, e6, e7, e8, e9, unix.Lsetxattr(d+"/l", "user.a", nil, 0))
	}},
	{"a temporary file without a name gets one", func(t *testing.T, d string) string {
		fd, err := unix.Open(d, unix.O_TMPFILE|unix.O_RDWR, 0640)
		if err != nil {
			return err.Error()
		}
		defer unix.Close(fd)
		unix.Write(fd, []byte("x"))
		err = unix.Linkat(unix.AT_FDCWD, procPath(fd), unix.AT_FDCWD, d+"/f", unix.AT_SYMLINK_FOLLOW)
		b, _ := os.ReadFile(d + "/f")
		return fmt.Sprint(err, string(b)) + look(d+"/f")
	}},
	{"a shared mapping is the file", func(t *testing.T, d string) string {
		f, _ := os.OpenFile(d+"/f", os.O_CREATE|os.O_RDWR, 0644)
		defer f.Close()
		f.Truncate(8192)
		m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err.Error()
		}
		copy(m[5000:], "mapped")
		err = unix.Msync(m, unix.MS_SYNC)
		unix.Munmap(m)
		b, _ := os.ReadFile(d + "/f")
		return fmt.Sprint(err, len(b), string(b[5000:5006]))
	}},
	{"symlinks are followed where they are seen, dangling, looping, upwards", func(t *testing.T, d string) string {
		os.Mkdir(d+"/d", 0755)
		os.WriteFile(d+"/f", []byte("x"), 0644)
		unix.Symlink("../f", d+"/d/up")
		unix.Symlink("loop", d+"/loop")
		unix.Symlink("nowhere", d+"/dangling")
		b, e1 := os.ReadFile(d + "/d/up")
		_, e2 := os.ReadFile(d + "/loop")
		_, e3 := os.ReadFile(d + "/dangling")
		to, e4 := os.Readlink(d + "/d/up")
		var l, m unix.Errno
		errors.As(e2, &l)
		errors.As(e3, &m)
		return fmt.Sprint(string(b), e1, l, m, to, e4, unix.Symlink("x", d+"/loop"), unix.Symlink(strings.Repeat("t", 4000), d+"/long"))
	}},
	{"errors are those of the paths: ENOTDIR, EISDIR, ENOTEMPTY, EEXIST, ENOENT", func(t *testing.T, d string) string {
		os.WriteFile(d+"/f", nil, 0644)
		os.MkdirAll(d+"/d/e", 0755)
		return fmt.Sprint(unix.Mkdir(d+"/f/x", 0755), unix.Unlink(d+"/d"), unix.Rmdir(d+"/d"), unix.Rmdir(d+"/f"),
			unix.Mkdir(d+"/d", 0755), unix.Rmdir(d+"/none"), unix.Truncate(d+"/d", 0), unix.Mknod(d+"/f", unix.S_IFREG|0644, 0))
	}},
	{"copy_file_range copies", func(t *testing.T, d string) string {
		os.WriteFile(d+"/f", []byte("0123456789"), 0644)
		a, _ := os.Open(d + "/f")
		b, _ := os.Create(d + "/g")
		defer a.Close()
		defer b.Close()
		off := int64(2)
		n, err := unix.CopyFileRange(int(a.Fd()), &off, int(b.Fd()), nil, 5, 0)
		c, _ := os.ReadFile(d + "/g")
		return fmt.Sprint(n, err, string(c))
	}},
	{"POSIX locks exclude another process's, flock another opener", func(t *testing.T, d string) string {
		a, _ := os.Create(d + "/f")
		b, _ := os.Open(d + "/f")
		defer a.Close()
		defer b.Close()
		lock := unix.Flock_t{Type: unix.F_WRLCK, Len: 10}
		e1 := unix.FcntlFlock(a.Fd(), unix.F_OFD_SETLK, &lock)
		other := unix.Flock_t{Type: unix.F_RDLCK, Start: 5, Len: 10}
		e2 := unix.FcntlFlock(b.Fd(), unix.F_OFD_SETLK, &other)
		return fmt.Sprint(e1, e2, unix.Flock(int(a.Fd()), unix.LOCK_EX), unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	}},
	{"a folder of a thousand files is listed whole, while half of it is removed", func(t *testing.T, d string) string {
		for i := range 1000 {
			os.WriteFile(fmt.Sprint(d, "/", i), nil, 0644)
		}
		f, _ := os.Open(d)
		defer f.Close()
		seen := map[string]int{}
		for {
			names, err := f.Readdirnames(100)
			for _, n := range names {
				seen[n]++
				var i int
				fmt.Sscan(n, &i)
				if i%2 == 1 {
					os.Remove(filepath.Join(d, n))
				}
			}
			if err != nil {
				break
			}
		}
		twice, even := 0, 0
		for n, c := range seen {
			var i int
			fmt.Sscan(n, &i)
			if c > 1 {
				twice++
			}
			if i%2 == 0 {
				even++
			}
		}
		left, _ := os.ReadDir(d)
		return fmt.Sprint(twice, even, len(seen), len(left))
	}},
	{"devices are not made by who is not root", func(t *testing.T, d string) (s string) {
		as(t, 999, 999, nil, func() { s = fmt.Sprint(unix.Mknod(d+"/n", unix.S_IFCHR|0666, int(unix.Mkdev(1, 3)))) })
		return s
	}},
}

func TestSemanticsAreALocalFileSystems(t *testing.T) {
	_, _, guest := one(t)
	local := t.TempDir()
	os.Chmod(filepath.Dir(local), 0755)
	for i, row := range semantics {
		t.Run(row.sentence, func(t *testing.T) {
			seen := map[string]string{}
			for _, base := range []string{guest, local} {
				d := filepath.Join(base, fmt.Sprint(i))
				if err := os.Mkdir(d, 0777); err != nil {
					t.Fatal(err)
				}
				os.Chmod(base, 0777)
				seen[base] = strings.ReplaceAll(row.do(t, d), d, "D")
			}
			if seen[guest] != seen[local] {
				t.Errorf("on the share: %s\nlocally:      %s", seen[guest], seen[local])
			}
		})
	}
}
