//go:build linux

package mounts

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/vmhost/share"
	"github.com/covedesk/cove/vmhost/share/sharetest"
	"golang.org/x/sys/unix"
)

// replayed mounts a share on this machine's kernel with a replayer, which stands for the guest.
func replayed(t *testing.T) (host, guest string) {
	t.Helper()
	host = t.TempDir()
	fs, root := sharetest.Mount(t, share.Share{Path: host})
	a, b := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { fs.Replay(ctx, a) })
	r := &Replayer{Root: root, Forget: func() error { return nil }}
	wg.Go(func() { r.Serve(b) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	waitFor(t, "a replayer", fs.Replaying)
	return host, filepath.Join(root, "0")
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// recorder is inotify on one folder.
type recorder struct {
	f *os.File
}

const recorded = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVE | unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_CLOSE_WRITE

func watch(t *testing.T, dirs ...string) *recorder {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if _, err := unix.InotifyAddWatch(fd, d, recorded); err != nil {
			t.Fatal(err)
		}
	}
	r := &recorder{os.NewFile(uintptr(fd), "inotify")}
	t.Cleanup(func() { r.f.Close() })
	return r
}

// until reads to a name that was made last, and says what came before. Equal neighbours are one.
func (r *recorder) until(t *testing.T, last string) (all []string) {
	t.Helper()
	names := map[uint32]string{unix.IN_CREATE: "create", unix.IN_DELETE: "delete", unix.IN_MOVED_FROM: "from", unix.IN_MOVED_TO: "to",
		unix.IN_MODIFY: "modify", unix.IN_ATTRIB: "attrib", unix.IN_CLOSE_WRITE: "written"}
	cookies := map[uint32]int{}
	r.f.SetReadDeadline(time.Now().Add(30 * time.Second))
	buf := make([]byte, 64<<10)
	for {
		n, err := r.f.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, all)
		}
		for b := buf[:n]; len(b) > 0; {
			size := 16 + binary.NativeEndian.Uint32(b[12:])
			mask, cookie := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:])
			name := string(bytes.TrimRight(b[16:size], "\x00"))
			b = b[size:]
			what := names[mask&unix.IN_ALL_EVENTS]
			if what == "" {
				continue
			}
			s := what + " " + name
			if mask&unix.IN_ISDIR != 0 {
				s += "/"
			}
			if cookie != 0 {
				if _, known := cookies[cookie]; !known {
					cookies[cookie] = len(cookies)
				}
				s += fmt.Sprintf(" #%d", cookies[cookie])
			}
			if len(all) == 0 || all[len(all)-1] != s {
				all = append(all, s)
			}
			if name == last && what == "create" {
				return all
			}
		}
	}
}

func TestChangesOfTheHostReachWatchers(t *testing.T) {
	for _, row := range []struct {
		sentence string
		before   func(d string)
		do       func(d string)
	}{
		{"a file is made", nil, func(d string) { os.WriteFile(d+"/f", nil, 0644) }},
		{"a file is made and written", nil, func(d string) { os.WriteFile(d+"/f", []byte("x"), 0644) }},
		{"a folder, a link, a FIFO and a socket are made", nil, func(d string) {
			os.Mkdir(d+"/d", 0755)
			os.Symlink("x", d+"/l")
			unix.Mkfifo(d+"/p", 0644)
			unix.Mknod(d+"/s", unix.S_IFSOCK|0644, 0)
		}},
		{"a file is removed", func(d string) { os.WriteFile(d+"/f", nil, 0644) }, func(d string) { os.Remove(d + "/f") }},
		{"a folder is removed", func(d string) { os.Mkdir(d+"/d", 0755) }, func(d string) { os.Remove(d + "/d") }},
		{"a file is renamed", func(d string) { os.WriteFile(d+"/f", nil, 0644) }, func(d string) { os.Rename(d+"/f", d+"/g") }},
		{"a folder is renamed", func(d string) { os.Mkdir(d+"/d", 0755) }, func(d string) { os.Rename(d+"/d", d+"/e") }},
		{"an editor saves by renaming over", func(d string) { os.WriteFile(d+"/f", []byte("old"), 0644) }, func(d string) {
			os.WriteFile(d+"/.f.tmp", []byte("new"), 0644)
			os.Rename(d+"/.f.tmp", d+"/f")
		}},
		{"a file comes from outside", nil, func(d string) {
			os.WriteFile(filepath.Dir(d)+"/out", []byte("x"), 0644)
			os.Rename(filepath.Dir(d)+"/out", d+"/in")
		}},
		{"a file goes outside", func(d string) { os.WriteFile(d+"/in", nil, 0644) }, func(d string) { os.Rename(d+"/in", filepath.Dir(d)+"/gone") }},
		{"a mode and a time are changed", func(d string) { os.WriteFile(d+"/f", nil, 0644) }, func(d string) {
			os.Chmod(d+"/f", 0600)
			os.Chtimes(d+"/f", time.Unix(1, 0), time.Unix(2, 0))
		}},
		{"made, removed, made and renamed at once", nil, func(d string) {
			os.WriteFile(d+"/f", nil, 0644)
			os.Remove(d + "/f")
			os.Mkdir(d+"/f", 0755)
			os.Rename(d+"/f", d+"/g")
			os.Remove(d + "/g")
		}},
		{"names of any bytes", nil, func(d string) {
			os.WriteFile(d+"/\xff\xfe", nil, 0644)
			os.Rename(d+"/\xff\xfe", d+"/a\nb")
		}},
	} {
		for _, looked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, looked up before: %t", row.sentence, looked), func(t *testing.T) {
				host, guest := replayed(t)
				base := t.TempDir()
				var lists [2][]string
				for i, side := range []struct{ do, watch string }{{base, base}, {host, guest}} {
					d, w := side.do+"/w", side.watch+"/w"
					os.Mkdir(d, 0755)
					if row.before != nil {
						row.before(d)
					}
					if looked {
						entries, _ := os.ReadDir(w)
						for _, e := range entries {
							os.ReadFile(w + "/" + e.Name())
							os.Stat(w + "/" + e.Name())
						}
					}
					os.Stat(w)
					if i == 1 {
						settle(t, host, guest)
					}
					r := watch(t, w)
					row.do(d)
					os.Mkdir(d+"/end", 0755)
					lists[i] = r.until(t, "end")
				}
				if a, b := tame(lists[0]), tame(lists[1]); !slices.Equal(a, b) {
					t.Errorf("natively    %q\non a share  %q", a, b)
				}
				settle(t, host, guest)
				if a, b := listing(host+"/w"), listing(guest+"/w"); a != b {
					t.Errorf("the host has %s\nthe guest sees %s", a, b)
				}
			})
		}
	}
}

// tame takes out what docs/files.md says is not told apart: a file that is written right after it was made
// may be told as attributes and contents in one, and what became of a file that is gone by then is not told.
func tame(all []string) (left []string) {
	gone := map[string]bool{}
	for _, s := range slices.Backward(all) {
		var what, name string
		fmt.Sscan(s, &what, &name)
		switch what {
		case "delete", "from":
			gone[name] = true
		case "modify", "attrib", "written":
			if gone[name] {
				continue
			}
		case "create", "to":
			delete(gone, name)
		}
		left = append(left, s)
	}
	slices.Reverse(left)
	return left
}

// settle waits until all that the host did before was replayed.
func settle(t *testing.T, host, guest string) {
	t.Helper()
	name := fmt.Sprintf("settle%d", rand.Int())
	r := watch(t, guest)
	os.Mkdir(host+"/"+name, 0755)
	r.until(t, name)
	r.f.Close() // a user has few inotify instances
	os.Remove(host + "/" + name)
}

func listing(d string) (s string) {
	entries, err := os.ReadDir(d)
	for _, e := range entries {
		var b []byte
		if e.Type().IsRegular() {
			b, _ = os.ReadFile(d + "/" + e.Name())
		}
		s += fmt.Sprintf("%q=%q ", e.Name(), b)
	}
	return s + fmt.Sprint(err)
}

func TestWhatTheGuestDoesIsNotReplayed(t *testing.T) {
	host, guest := replayed(t)
	os.Mkdir(host+"/w", 0755)
	os.Stat(guest + "/w")
	settle(t, host, guest)
	base := t.TempDir()
	var lists [2][]string
	for i, d := range []string{base, guest + "/w"} {
		r := watch(t, d)
		for j := range 50 {
			f := fmt.Sprint(d, "/f", j%5)
			os.WriteFile(f, []byte("abc"), 0644)
			os.Chmod(f, 0600)
			h, _ := os.OpenFile(f, os.O_WRONLY|os.O_APPEND, 0)
			h.WriteString("x")
			h.Close()
			os.Rename(f, f+"r")
			os.Mkdir(f+"d", 0755)
			os.Rename(f+"d", f+"e")
			os.Symlink("x", f+"l")
			os.Link(f+"r", f+"h")
			for _, s := range []string{"r", "e", "l", "h"} {
				os.Remove(f + s)
			}
		}
		if i == 1 {
			settle(t, host, guest)
		}
		os.Mkdir(d+"/end", 0755)
		lists[i] = r.until(t, "end")
	}
	if !slices.Equal(lists[0], lists[1]) {
		for i := range max(len(lists[0]), len(lists[1])) {
			if i >= len(lists[0]) || i >= len(lists[1]) || lists[0][i] != lists[1][i] {
				t.Fatalf("from %d on: locally %q\non a share %q", i, lists[0][i:min(len(lists[0]), i+10)], lists[1][i:min(len(lists[1]), i+10)])
			}
		}
	}
}

// Contents that change several times within a moment are told once, a little later.
func TestNewContentIsSeenWithItsEvent(t *testing.T) {
	host, guest := replayed(t)
	os.WriteFile(host+"/f", []byte("content 000"), 0644)
	m, err := os.Open(guest + "/f") // stays open: no new open refreshes anything
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	settle(t, host, guest)
	for i := range 10 {
		want := fmt.Sprintf("content %03d", i+1)
		b := make([]byte, 20)
		m.ReadAt(b, 0) // into the page cache
		os.WriteFile(host+"/f", []byte(want), 0644)
		waitFor(t, want, func() bool { n, _ := m.ReadAt(b, 0); return string(b[:n]) == want })
	}
}

// The name under which new content was to be told is gone by then. Nobody is told of it, but the kernel
// looks anew.
func TestNewContentIsSeenAfterARename(t *testing.T) {
	host, guest := replayed(t)
	os.WriteFile(host+"/f0", []byte("content"), 0644)
	m, err := os.Open(guest + "/f0")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	settle(t, host, guest)
	for i := range 5 {
		b := make([]byte, 20)
		m.ReadAt(b, 0)
		f := fmt.Sprint(host, "/f", i)
		want := fmt.Sprint("content ", i)
		os.WriteFile(f, []byte("soon"), 0644)
		os.WriteFile(f, []byte(want), 0644)
		os.Rename(f, fmt.Sprint(host, "/f", i+1))
		waitFor(t, want, func() bool { n, _ := m.ReadAt(b, 0); return string(b[:n]) == want })
	}
}

// The kernel trusts in being told. When that is late or ends, it is to forget.
func TestTheKernelForgetsWhenItIsNotTold(t *testing.T) {
	_, root := sharetest.Mount(t, share.Share{Path: t.TempDir()})
	host, guest := net.Pipe()
	forgot := make(chan struct{}, 9)
	r := &Replayer{Root: root, Forget: func() error { forgot <- struct{}{}; return nil }}
	var wg sync.WaitGroup
	wg.Go(func() { r.Serve(guest) })
	in, out := protocol.NewReader(host), protocol.NewWriter(host)
	for _, forget := range []bool{false, true} {
		if _, err := in.Read(); err != nil { // who replays, or that it did
			t.Fatal(err)
		}
		out.Write(protocol.Message{FileEvents: &protocol.FileEvents{Forget: forget}})
	}
	if _, err := in.Read(); err != nil {
		t.Fatal(err)
	}
	if n := len(forgot); n != 1 {
		t.Errorf("the kernel forgot %d times; want once", n)
	}
	host.Close()
	wg.Wait()
	if n := len(forgot); n != 2 {
		t.Errorf("with the end, the kernel forgot %d times; want twice", n)
	}
}
