//go:build linux

package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"unsafe"

	"github.com/covedesk/cove/guestd/internal/reap"
	"golang.org/x/sys/unix"
)

// swapFile is on the data disk, where it takes room of the host's only as it is used.
const swapFile = "/var/lib/cove/swap"

// Of linux/swap.h: what leaves the swap is discarded, and so given back to the host.
const swapDiscard = 0x10000

// swapping lets one change of the swap be made at a time.
var swapping sync.Mutex

// Swap gives the guest so many bytes of swap. As much as it has already changes nothing; more than the disk
// has room for leaves it as it is.
func Swap(r *reap.Reaper, size int64) error {
	swapping.Lock()
	defer swapping.Unlock()
	on, err := swapsTo(swapFile)
	if err != nil {
		return err
	}
	before := int64(0)
	if st, err := os.Stat(swapFile); err == nil {
		before = st.Size()
	}
	switch there := size > 0 && size == before; {
	case on && there:
		return nil
	case there && swapOn(swapFile) == nil: // left by the boot before
		return nil
	}
	if err := roomForSwap(size, before); err != nil {
		return err
	}
	if on {
		if err := swapOff(swapFile); err != nil {
			return err
		}
	}
	if err := os.Remove(swapFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if size <= 0 {
		return nil
	}
	if err := makeSwap(r, size); err != nil {
		os.Remove(swapFile)
		return fmt.Errorf("there is none now: %w", err)
	}
	return nil
}

// roomForSwap refuses a swap that would fill the disk: it takes at most half of what is free.
func roomForSwap(size, before int64) error {
	var disk unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(swapFile), &disk); err != nil {
		return fmt.Errorf("look for room on the data disk: %w", err)
	}
	if free := int64(disk.Bavail)*disk.Bsize + before; size > free/2 {
		return fmt.Errorf("the data disk has %d MiB free, and swap may take half of that", free>>20)
	}
	return nil
}

func makeSwap(r *reap.Reaper, size int64) error {
	f, err := os.OpenFile(swapFile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		return fmt.Errorf("make room on the data disk: %w", err)
	}
	if out, err := r.Run(exec.Command("mkswap", "-q", swapFile)); err != nil {
		return fmt.Errorf("format it: %w: %s", err, out)
	}
	return swapOn(swapFile)
}

// SwapOff ends the swap before the data disk is unmounted.
func SwapOff() error {
	swapping.Lock()
	defer swapping.Unlock()
	on, err := swapsTo(swapFile)
	if err != nil || !on {
		return err
	}
	return swapOff(swapFile)
}

// swapsTo says whether a file is swapped to: proc(5), swaps.
func swapsTo(path string) (bool, error) {
	b, err := os.ReadFile("/proc/swaps")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == path {
			return true, nil
		}
	}
	return false, nil
}

func swapOn(path string) error {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	if _, _, e := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(p)), swapDiscard, 0); e != 0 {
		return fmt.Errorf("switch the swap on: %w", e)
	}
	return nil
}

func swapOff(path string) error {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	if _, _, e := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(p)), 0, 0); e != 0 {
		return fmt.Errorf("switch the swap off, what is in it having no room in memory perhaps: %w", e)
	}
	return nil
}
