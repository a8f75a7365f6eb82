// Package sharetest mounts shares on this machine's own kernel, which then is what a guest's kernel is to
// them. It is for tests.
package sharetest

import (
	"os"
	"testing"
	"time"

	"github.com/covedesk/cove/vmhost/share"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Mount serves shares until the test's end, and says where the root of them all is. A test that cannot
// mount is skipped. As in a guest, permissions are decided by the kernel from the attributes
// (default_permissions), and every user may try (allow_other).
func Mount(t *testing.T, shares ...share.Share) (*share.FS, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root; CI runs as root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("this machine has no /dev/fuse")
	}
	unix.Umask(0)
	f, err := share.New(shares, share.Options{})
	if err != nil {
		t.Fatal(err)
	}
	// Not below /tmp: a Cove that runs on this machine shares that, and its guest would look at the mount.
	at, err := os.MkdirTemp("/var/tmp", "cove-share-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(at) })
	if err := os.Chmod(at, 0o755); err != nil {
		t.Fatal(err)
	}
	o := share.MountOptions()
	o.AllowOther = true
	o.Options = []string{"default_permissions", "suid", "dev"}
	o.DirectMountStrict = true
	o.DirectMountFlags = unix.MS_NOATIME
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
	return f, at
}
