//go:build linux

package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mount is one file system that the guest has from its start.
type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

// kernelMounts are made before the root is there and move with it.
var kernelMounts = []mount{
	{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
	// noswap: keys and passwords are below, and the swap is a file on the data disk.
	{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755,size=25%,noswap"},
}

// rootMounts are made once the root is there.
var rootMounts = []mount{
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"},
	{"shm", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	{"mqueue", "/dev/mqueue", "mqueue", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777,size=25%"},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "nsdelegate"},
	{"securityfs", "/sys/kernel/security", "securityfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"bpf", "/sys/fs/bpf", "bpf", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "mode=0700"},
	{"debugfs", "/sys/kernel/debug", "debugfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"tracefs", "/sys/kernel/tracing", "tracefs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
}

// notInEveryKernel are mounts that a kernel may lack without harm.
var notInEveryKernel = []string{"securityfs", "bpf", "debugfs", "tracefs"}

func mountAll(list []mount) error {
	for _, m := range list {
		if err := os.MkdirAll(m.target, 0o755); err != nil && !errors.Is(err, fs.ErrExist) && !slices.Contains(notInEveryKernel, m.kind) {
			return err
		}
		err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data)
		if err != nil && !errors.Is(err, unix.EBUSY) && !slices.Contains(notInEveryKernel, m.kind) {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// KernelFiles mounts what the kernel shows of itself.
func KernelFiles(context.Context) error {
	unix.Umask(0o022)
	return mountAll(kernelMounts)
}

// Modules loads the kernel modules that the initial file system holds, in the order of their names.
func Modules(context.Context) error {
	names, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	slices.Sort(names)
	var errs []error
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		// A module for hardware that is not there may refuse; the step that needs one will say so.
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("load %s: %w", filepath.Base(name), err))
		}
		f.Close()
	}
	return errors.Join(errs...)
}

// Disk finds a virtio disk by the serial that the host gave it.
func Disk(ctx context.Context, serial string) (string, error) {
	for {
		names, _ := filepath.Glob("/sys/block/vd*/serial")
		for _, name := range names {
			if b, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(b)) == serial {
				return "/dev/" + filepath.Base(filepath.Dir(name)), nil
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("no disk with the serial %q", serial)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// diskPatience is how long a disk may take to show up after its driver is loaded.
const diskPatience = 20 * time.Second

// Root mounts the root (see skeleton) and makes it ours; what the initial file system holds is freed, but
// for this program's own pages.
func Root(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, diskPatience)
	defer cancel()
	dev, err := Disk(ctx, "cove-root")
	if err != nil {
		return err
	}
	if err := skeleton(dev, "/newroot"); err != nil {
		return err
	}
	for _, m := range kernelMounts {
		if err := unix.Mount(m.target, "/newroot"+m.target, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", m.target, err)
		}
	}
	old, err := os.Open("/")
	if err != nil {
		return err
	}
	defer old.Close()
	if err := unix.Chdir("/newroot"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	unix.Unlinkat(int(old.Fd()), "init", 0)
	if dir, err := unix.Openat(int(old.Fd()), "modules", unix.O_DIRECTORY|unix.O_RDONLY, 0); err == nil {
		f := os.NewFile(uintptr(dir), "modules")
		names, _ := f.Readdirnames(-1)
		for _, name := range names {
			unix.Unlinkat(dir, name, 0)
		}
		f.Close()
	}
	// Containers want their mounts to spread, and runc asks for it.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share the root's mounts: %w", err)
	}
	return mountAll(rootMounts)
}
