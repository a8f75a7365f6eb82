//go:build linux

package share

import (
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// mounted serves shares on this machine's own kernel, which is the guest's side of the protocol, and
// returns where share 0 is. What the kernel of a guest does alike: permissions are decided from the
// attributes (default_permissions), and every user may try (allow_other).
func mounted(t *testing.T, shares ...Share) (*FS, string) {
	t.Helper()
	return mountedWith(t, Options{}, shares...)
}

func mountedWith(t *testing.T, options Options, shares ...Share) (*FS, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root; CI runs as root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("this machine has no /dev/fuse")
	}
	f, err := New(shares, options)
	if err != nil {
		t.Fatal(err)
	}
	return f, serve(t, f)
}

// serve mounts a file system until the test's end.
func serve(t *testing.T, f *FS) string {
	t.Helper()
	return serveWith(t, f, func(*fuse.MountOptions) {})
}

// serveWith mounts with other options than ours.
func serveWith(t *testing.T, f *FS, change func(*fuse.MountOptions)) string {
	t.Helper()
	unix.Umask(0)
	// Not below /tmp: a Cove that runs on this machine shares that, and its guest would look at the mount.
	at, err := os.MkdirTemp("/var/tmp", "cove-share-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(at) })
	if err := os.Chmod(at, 0o755); err != nil {
		t.Fatal(err)
	}
	o := MountOptions()
	o.AllowOther = true
	o.Options = []string{"default_permissions", "suid", "dev"}
	o.DirectMountStrict = true
	o.DirectMountFlags = unix.MS_NOATIME
	change(o)
	server, err := fuse.NewServer(f, at, o)
	if err != nil {
		t.Fatalf("mount: %v", err)
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Another program of the machine may look at the mount just now, or have a copy of it in a
		// namespace of its own, which keeps the server busy for as long as that lives.
		err := unix.Unmount(at, 0)
		for end := time.Now().Add(20 * time.Second); err == unix.EBUSY && time.Now().Before(end); err = unix.Unmount(at, 0) {
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			t.Errorf("something still uses the mount: %v", err)
			unix.Unmount(at, unix.MNT_DETACH)
		}
		ended := make(chan struct{})
		go func() { server.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Log("the mount lives on elsewhere")
		}
		f.Close()
	})
	return filepath.Join(at, "0")
}

// one is a share of one new folder: its place on the host and in the guest.
func one(t *testing.T) (f *FS, host, guest string) {
	t.Helper()
	host = t.TempDir()
	f, guest = mounted(t, Share{Path: host})
	return f, host, guest
}

// as runs a function as another user, on a thread that ends with it.
func as(t *testing.T, uid, gid int, groups []int, do func()) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread is not reused
		gids := make([]uint32, len(groups))
		for i, g := range groups {
			gids[i] = uint32(g)
		}
		if err := setgroups(gids); err != nil {
			t.Error(err)
			return
		}
		// Real, effective and saved, and with them the file system's; leaving 0 drops all capabilities.
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
			t.Error(e)
			return
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
			t.Error(e)
			return
		}
		do()
	})
	wg.Wait()
}
