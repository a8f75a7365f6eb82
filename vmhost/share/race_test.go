//go:build linux

package share

import (
	"encoding/binary"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// What an attacker on the host's side of a race does (CVE-2024-23651 and its class): a folder of the share
// becomes a link to a secret outside while the guest opens, makes, renames, removes and changes below it.
// Nothing outside is read, made or changed.
func TestAFolderThatTurnsIntoALinkLeadsNowhere(t *testing.T) {
	base := t.TempDir()
	host, outside := filepath.Join(base, "share"), filepath.Join(base, "outside")
	for _, d := range []string{host + "/a", outside} {
		os.MkdirAll(d, 0755)
	}
	os.WriteFile(outside+"/secret", []byte("secret"), 0644)
	os.WriteFile(host+"/a/secret", []byte("inside"), 0644)
	os.WriteFile(host+"/a/f", []byte("inside"), 0644)
	unix.Symlink(outside, host+"/b")
	before := look(outside) + look(outside+"/secret")
	f, err := New([]Share{{Path: host}}, Options{Descriptors: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	flips := 0
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, host+"/a", unix.AT_FDCWD, host+"/b", unix.RENAME_EXCHANGE)
				flips++
			}
		}
	})
	root := f.exports[0].root.id
	hdr := fuse.InHeader{NodeId: root}
	tries := 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); tries++ {
		var dir fuse.EntryOut
		if f.Lookup(nil, &hdr, "a", &dir) != fuse.OK {
			continue
		}
		h := fuse.InHeader{NodeId: dir.NodeId}
		var e fuse.EntryOut
		if f.Lookup(nil, &h, "secret", &e) == fuse.OK && e.NodeId != 0 {
			var o fuse.OpenOut
			if f.Open(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: e.NodeId}, Flags: unix.O_RDWR}, &o) == fuse.OK {
				r, code := f.Read(nil, &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: e.NodeId}, Fh: o.Fh, Size: 100}, nil)
				if code == fuse.OK {
					if b, _ := r.Bytes(make([]byte, 100)); string(b) != "inside" {
						t.Fatalf("read %q", b)
					}
					r.Done()
				}
				f.Release(nil, &fuse.ReleaseIn{Fh: o.Fh})
			}
			f.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: fuse.InHeader{NodeId: e.NodeId}, Valid: fuse.FATTR_MODE | fuse.FATTR_MTIME, Mode: 0600}}, &fuse.AttrOut{})
			f.Forget(e.NodeId, 1)
		}
		name := fmt.Sprint("new", tries)
		var c fuse.CreateOut
		if f.Create(nil, &fuse.CreateIn{InHeader: h, Flags: unix.O_RDWR, Mode: 0644}, name, &c) == fuse.OK {
			f.Release(nil, &fuse.ReleaseIn{Fh: c.Fh})
			f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: dir.NodeId}, name, name+"r")
			f.Unlink(nil, &h, name+"r")
			f.Forget(c.NodeId, 1)
		}
		if f.Mkdir(nil, &fuse.MkdirIn{InHeader: h, Mode: 0755}, name, &e) == fuse.OK {
			f.Rmdir(nil, &h, name)
			f.Forget(e.NodeId, 1)
		}
		if f.Mknod(nil, &fuse.MknodIn{InHeader: h, Mode: unix.S_IFSOCK | 0755}, name, &e) == fuse.OK {
			f.Unlink(nil, &h, name)
			f.Forget(e.NodeId, 1)
		}
		f.Forget(dir.NodeId, 1)
	}
	close(stop)
	wg.Wait()
	entries, _ := os.ReadDir(outside)
	b, _ := os.ReadFile(outside + "/secret")
	if after := look(outside) + look(outside+"/secret"); after != before || string(b) != "secret" || len(entries) != 1 {
		t.Errorf("outside changed: %s, %q, %v", after, b, entries)
	}
	t.Logf("%d flips, %d tries, 0 outside", flips, tries)
	if flips < 100 || tries < 100 {
		t.Errorf("%d flips and %d tries prove little", flips, tries)
	}
}

func TestNamesThatAreNoNamesAreRefused(t *testing.T) {
	host := t.TempDir()
	f, err := New([]Share{{Path: host}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := fuse.InHeader{NodeId: f.exports[0].root.id}
	for _, name := range []string{"", ".", "..", "/etc", "../x", "a/b", strings.Repeat("n", 256)} {
		var e fuse.EntryOut
		var c fuse.CreateOut
		for what, code := range map[string]fuse.Status{
			"lookup":  f.Lookup(nil, &h, name, &e),
			"mkdir":   f.Mkdir(nil, &fuse.MkdirIn{InHeader: h}, name, &e),
			"mknod":   f.Mknod(nil, &fuse.MknodIn{InHeader: h, Mode: unix.S_IFREG}, name, &e),
			"symlink": f.Symlink(nil, &h, "x", name, &e),
			"create":  f.Create(nil, &fuse.CreateIn{InHeader: h}, name, &c),
			"unlink":  f.Unlink(nil, &h, name),
			"rename":  f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: h.NodeId}, name, "x"),
			"onto":    f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: h.NodeId}, "x", name),
			"link":    f.Link(nil, &fuse.LinkIn{InHeader: h, Oldnodeid: h.NodeId}, name, &e),
		} {
			if code != fuse.EINVAL && code != fuse.Status(unix.ENAMETOOLONG) {
				t.Errorf("%s of %q: %v; want EINVAL or ENAMETOOLONG", what, name, code)
			}
		}
	}
}

// The guest sends any bytes. The answer is an errno, never a panic and never more than was asked for.
func FuzzHandleRequest(f *testing.F) {
	for op := uint32(0); op < 60; op++ {
		b := make([]byte, 136)
		binary.NativeEndian.PutUint32(b, 136)
		binary.NativeEndian.PutUint32(b[4:], op)
		binary.NativeEndian.PutUint64(b[16:], 2)
		copy(b[120:], "name\x00other\x00")
		f.Add(b, uint16(4096))
		f.Add(b[:headerSize], uint16(16))
	}
	host := f.TempDir()
	os.WriteFile(host+"/name", []byte("x"), 0600)
	fs, err := New([]Share{{Path: host}}, Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint16) {
		out := make([]byte, size)
		for _, cut := range []int{len(in), min(len(in), 41)} {
			n, _ := fs.HandleRequest([][]byte{in[:cut], in[cut:]}, [][]byte{out[:size/2], out[size/2:]})
			if n > len(out) {
				t.Errorf("HandleRequest wrote %d bytes to %d", n, len(out))
			}
		}
	})
}

// A model test: what random operations leave on a share is what they leave in a local folder.
func TestRandomOperationsLeaveTheSame(t *testing.T) {
	_, host, guest := one(t)
	local := t.TempDir()
	for seed := range int64(4) {
		g, l := fmt.Sprint(guest, "/", seed), fmt.Sprint(local, "/", seed)
		os.Mkdir(g, 0755)
		os.Mkdir(l, 0755)
		r := rand.New(rand.NewSource(seed))
		for step := range 3000 {
			a, b := randomPath(r), randomPath(r)
			op, n, m := r.Intn(15), r.Intn(30000), uint32(r.Intn(07777))|0700
			if got, want := apply(g, op, a, b, n, m), apply(l, op, a, b, n, m); got != want {
				t.Fatalf("seed %d step %d: op %d %s %s = %s; locally %s", seed, step, op, a, b, got, want)
			}
		}
		if got, want := tree(t, g), tree(t, l); got != want {
			t.Fatalf("seed %d: the share has\n%s\nlocally\n%s", seed, got, want)
		}
		if got, want := contents(fmt.Sprint(host, "/", seed)), contents(l); got != want {
			t.Fatalf("seed %d: on the host is\n%s\nlocally\n%s", seed, got, want)
		}
	}
}

func randomPath(r *rand.Rand) string {
	p := ""
	for range 1 + r.Intn(3) {
		p += "/" + string(rune('a'+r.Intn(4)))
	}
	return p
}

func apply(base string, op int, a, b string, n int, mode uint32) string {
	p, q := base+a, base+b
	var err error
	switch op {
	case 0, 1:
		err = unix.Mkdir(p, mode)
	case 2, 3:
		var f *os.File
		if f, err = os.OpenFile(p, os.O_RDWR|os.O_CREATE, os.FileMode(mode&0777)); err == nil {
			_, err = f.WriteAt([]byte(strings.Repeat("x", n%5000)), int64(n))
			f.Close()
		}
	case 4:
		err = unix.Unlink(p)
	case 5:
		err = unix.Rmdir(p)
	case 6, 7:
		err = unix.Rename(p, q)
	case 8:
		err = unix.Link(p, q)
	case 9:
		err = unix.Symlink(filepath.Base(b), p)
	case 10:
		err = unix.Truncate(p, int64(n))
	case 11:
		err = unix.Fchmodat(unix.AT_FDCWD, p, mode, 0)
	case 12:
		err = unix.Lchown(p, n%3, n%5)
	case 13:
		err = unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, q, unix.RENAME_EXCHANGE)
	case 14:
		err = os.WriteFile(p, []byte(b), 0644)
	}
	var e syscall.Errno
	if err == nil {
		return "ok"
	}
	if pe, is := err.(*os.PathError); is {
		err = pe.Err
	}
	e, _ = err.(syscall.Errno)
	return e.Error()
}

func tree(t *testing.T, base string) string {
	var s strings.Builder
	filepath.WalkDir(base, func(p string, e os.DirEntry, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		unix.Lstat(p, &st)
		nlink := st.Nlink
		fmt.Fprintln(&s, strings.TrimPrefix(p, base), look(p), nlink)
		return nil
	})
	return s.String() + contents(base)
}

func contents(base string) string {
	var s strings.Builder
	filepath.WalkDir(base, func(p string, e os.DirEntry, err error) error {
		switch name := strings.TrimPrefix(p, base); {
		case err != nil:
			fmt.Fprintln(&s, err)
		case e.Type().IsRegular():
			b, _ := os.ReadFile(p)
			h := uint64(14695981039346656037)
			for _, c := range b {
				h = (h ^ uint64(c)) * 1099511628211
			}
			fmt.Fprintln(&s, name, len(b), h)
		case e.Type()&os.ModeSymlink != 0:
			to, _ := os.Readlink(p)
			fmt.Fprintln(&s, name, "->", to)
		default:
			fmt.Fprintln(&s, name)
		}
		return nil
	})
	return s.String()
}

// The shortest requests that a kernel sends are long enough for us: a rename with names of one letter.
func TestTheShortestRequestsAreAnswered(t *testing.T) {
	host := t.TempDir()
	os.WriteFile(host+"/a", nil, 0600)
	fs, err := New([]Share{{Path: host}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	ask := func(op uint32, body []byte, names string) int32 {
		b := make([]byte, headerSize)
		binary.NativeEndian.PutUint32(b, uint32(headerSize+len(body)+len(names)))
		binary.NativeEndian.PutUint32(b[4:], op)
		binary.NativeEndian.PutUint64(b[16:], fs.exports[0].root.id)
		out := make([]byte, 4096)
		if n, errno := fs.HandleRequest([][]byte{b, body, []byte(names)}, [][]byte{out}); n < 16 || errno != 0 {
			t.Fatalf("op %d: %d bytes, %v", op, n, errno)
		}
		return -int32(binary.NativeEndian.Uint32(out[4:]))
	}
	dir := binary.NativeEndian.AppendUint64(nil, fs.exports[0].root.id)
	for _, row := range []struct {
		what  string
		op    uint32
		body  []byte
		names string
	}{
		{"rename", 12, dir, "a\x00b\x00"},
		{"lookup", 1, nil, "b\x00"},
		{"mkdir", 9, make([]byte, 8), "d\x00"},
		{"rmdir", 11, nil, "d\x00"},
		{"mknod", 8, append(binary.NativeEndian.AppendUint32(nil, unix.S_IFREG|0600), make([]byte, 12)...), "n\x00"},
		{"symlink", 6, nil, "l\x00x\x00"},
		{"unlink", 10, nil, "n\x00"},
		{"rename2", 45, append(dir, make([]byte, 8)...), "b\x00c\x00"},
		{"statfs", 17, nil, ""},
		{"sync", 50, make([]byte, 8), ""},
		{"setxattr", 21, append(binary.NativeEndian.AppendUint32(nil, 1), make([]byte, 4)...), "user.a\x00v"},
	} {
		if errno := ask(row.op, row.body, row.names); errno != 0 {
			t.Errorf("%s: %v", row.what, syscall.Errno(errno))
		}
	}
}

// A log that one process writes and others follow: they see each line whole and in its place, however they
// read, and never the zeros of a page that was read too early.
func TestWhoFollowsAFileReadsWhatWasWritten(t *testing.T) {
	_, _, guest := one(t)
	for round := range 20 {
		name := fmt.Sprint(guest, "/log", round)
		w, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0644)
		if err != nil {
			t.Fatal(err)
		}
		const lines = 200
		line := func(i int) string { return fmt.Sprintf("line %05d of a log\n", i) }
		var wg sync.WaitGroup
		for reader := range 3 {
			wg.Go(func() {
				r, err := os.Open(name)
				if err != nil {
					t.Error(err)
					return
				}
				defer r.Close()
				var got []byte
				b := make([]byte, 100)
				for end := time.Now().Add(20 * time.Second); len(got) < lines*len(line(0)); {
					if time.Now().After(end) {
						t.Errorf("reader %d has %d bytes after 20 s", reader, len(got))
						return
					}
					if reader == 2 { // opens anew each time
						got, _ = os.ReadFile(name)
						continue
					}
					n, _ := r.Read(b)
					got = append(got, b[:n]...)
				}
				for i := range lines {
					if s := string(got[i*len(line(0)):][:len(line(0))]); s != line(i) {
						t.Errorf("reader %d: line %d is %q", reader, i, s)
						return
					}
				}
			})
		}
		for i := range lines {
			w.WriteString(line(i))
		}
		w.Close()
		wg.Wait()
	}
}
