package sharetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/vmhost/share"
	"golang.org/x/sys/unix"
)

// Sleeper is this machine's kernel as a guest's that can be put to sleep: its requests come by /dev/fuse to
// whichever file system serves now.
type Sleeper struct {
	FS     *share.FS // the one that serves now
	Shares []share.Share
	Root   string // where all of them are
	Guest  string // where the first one is

	t   *testing.T
	dev *os.File
	wg  sync.WaitGroup
}

// NewSleeper mounts shares until the test's end.
func NewSleeper(t *testing.T, shares ...share.Share) *Sleeper {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root; CI runs as root")
	}
	unix.Umask(0)
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skip("this machine has no /dev/fuse")
	}
	f, err := share.New(shares, share.Options{})
	if err != nil {
		t.Fatal(err)
	}
	k := &Sleeper{FS: f, Shares: shares, t: t}
	// Not below /tmp: a Cove that runs on this machine shares that, and its guest would look at the mount.
	at, err := os.MkdirTemp("/var/tmp", "cove-share-")
	if err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", fd)
	if err := unix.Mount("cove", at, "fuse.cove", unix.MS_NOATIME, options); err != nil {
		os.Remove(at)
		t.Fatal(err)
	}
	k.dev = os.NewFile(uintptr(fd), "fuse") // one that is not mounted yet cannot be waited for
	t.Cleanup(func() {
		unix.Unmount(at, unix.MNT_DETACH)
		k.dev.Close() // ends the connection, and with it every request that still waits
		k.wg.Wait()
		k.FS.Close()
		os.Remove(at)
	})
	k.Root, k.Guest = at, filepath.Join(at, "0")
	k.serve()
	// Go polls what it opens, in a way that keeps a processor busy. This kernel asks once whether files can
	// be polled, here, where it may take its time; go-fuse has a file for it.
	if fd, err := unix.Open(at+"/.go-fuse-epoll-hack", unix.O_RDWR, 0); err == nil {
		unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, 0)
		unix.Close(fd)
	} else {
		t.Fatal(err)
	}
	return k
}

const buffer = 1<<20 + 64<<10 // the largest request, and its head

// serve answers until the deadline of the device.
func (k *Sleeper) serve() {
	k.dev.SetReadDeadline(time.Time{})
	f := k.FS
	for range 4 {
		k.wg.Go(func() {
			in, out := make([]byte, buffer), make([]byte, buffer)
			for {
				n, err := k.dev.Read(in)
				if errors.Is(err, unix.ENOENT) { // the request was interrupted
					continue
				}
				if err != nil {
					return
				}
				if n, errno := f.HandleRequest([][]byte{in[:n]}, [][]byte{out}); errno != 0 {
					k.t.Errorf("a request of this kernel's: %v", errno)
				} else if n > 0 {
					k.dev.Write(out[:n])
				}
			}
		})
	}
}

// Sleep ends the serving and gives the state that was saved.
func (k *Sleeper) Sleep() []byte {
	k.t.Helper()
	undo, err := k.FS.Settle(context.Background())
	if err != nil {
		k.t.Fatal(err)
	}
	defer undo()
	k.dev.SetReadDeadline(time.Now())
	k.wg.Wait()
	var b bytes.Buffer
	if err := k.FS.Save(&b); err != nil {
		k.t.Fatal(err)
	}
	if err := k.FS.Close(); err != nil {
		k.t.Fatal(err)
	}
	return b.Bytes()
}

// Wake serves again, from the state, with these shares.
func (k *Sleeper) Wake(state []byte, shares ...share.Share) {
	k.t.Helper()
	f, err := share.New(shares, share.Options{})
	if err != nil {
		k.t.Fatal(err)
	}
	k.FS = f
	if err := f.Load(bytes.NewReader(state)); err != nil {
		k.t.Fatal(err)
	}
	k.serve()
}
