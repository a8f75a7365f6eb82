//go:build linux

// Package datadisk looks after the file system on the data disk while it is mounted: it grows with its
// disk, and gives the blocks that are free back to the host. The kernel gives them back as they become
// free; what it misses, such as what was freed before a crash, a trim now and then finds.
package datadisk

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/covedesk/cove/guestd/internal/reap"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"golang.org/x/sys/unix"
)

const (
	// growPatience bounds the wait for the disk itself to grow: the host has done it when it asks, and the
	// kernel hears of it by an interrupt.
	growPatience = 20 * time.Second
	growPoll     = 20 * time.Millisecond

	// A trim goes in pieces, so that no writer waits long for one; one in the background rests between two.
	trimPiece = 8 << 30
	trimRest  = 2 * time.Second
)

// Disk is the data disk and the file system on it.
type Disk struct {
	Device string // such as /dev/vdb
	Folder string // where it is mounted
	Reaper *reap.Reaper

	busy sync.Mutex // one growth or trim at a time
}

// Serve answers one protocol.DiskRequest.
func (d *Disk) Serve(c proxy.Conn) {
	defer c.CloseWrite()
	line, err := bufio.NewReaderSize(c, 4096).ReadSlice('\n')
	var req protocol.DiskRequest
	if err != nil || json.Unmarshal(line, &req) != nil {
		return
	}
	// Who asked and left does not wait for the end of a trim.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		io.Copy(io.Discard, struct{ io.Reader }{c})
		cancel()
	}()
	a, err := d.answer(ctx, req)
	if err != nil {
		slog.Warn("data disk", "request", req, "err", err)
		a.Error = err.Error()
	}
	b, err := json.Marshal(a)
	if err == nil {
		c.Write(append(b, '\n'))
	}
}

func (d *Disk) answer(ctx context.Context, req protocol.DiskRequest) (a protocol.DiskAnswer, err error) {
	if req.Grow > 0 {
		if err := d.Grow(ctx, req.Grow); err != nil {
			return a, err
		}
	}
	if req.Trim {
		if a.Trimmed, err = d.Trim(ctx, 0); err != nil {
			return a, err
		}
	}
	var s unix.Statfs_t
	if err := unix.Statfs(d.Folder, &s); err != nil {
		return a, fmt.Errorf("look at the file system: %w", err)
	}
	a.Size, a.Used, a.Free = int64(s.Blocks)*s.Bsize, int64(s.Blocks-s.Bfree)*s.Bsize, int64(s.Bavail)*s.Bsize
	return a, nil
}

// Grow makes the file system as large as its disk, once that has at least size bytes.
func (d *Disk) Grow(ctx context.Context, size int64) error {
	d.busy.Lock()
	defer d.busy.Unlock()
	ctx, cancel := context.WithTimeout(ctx, growPatience)
	defer cancel()
	for {
		now, err := d.size()
		if err != nil {
			return err
		}
		if now >= size {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the disk has %d bytes, not %d", now, size)
		case <-time.After(growPoll):
		}
	}
	if _, err := d.Reaper.Run(exec.Command("resize2fs", d.Device)); err != nil {
		return fmt.Errorf("grow the file system: %w", err)
	}
	return nil
}

// size of the disk: kernel, Documentation/ABI/stable/sysfs-block, in sectors of 512 bytes.
func (d *Disk) size() (int64, error) {
	b, err := os.ReadFile(filepath.Join("/sys/class/block", filepath.Base(d.Device), "size"))
	if err != nil {
		return 0, fmt.Errorf("look at the disk: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n * 512, err
}

// Trim tells the host of all free blocks, resting between two pieces, and gives how many bytes it told of.
func (d *Disk) Trim(ctx context.Context, rest time.Duration) (int64, error) {
	d.busy.Lock()
	defer d.busy.Unlock()
	f, err := os.Open(d.Folder)
	if err != nil {
		return 0, fmt.Errorf("trim: %w", err)
	}
	defer f.Close()
	// What was freed since the last commit of the journal counts as in use.
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return 0, fmt.Errorf("trim: %w", err)
	}
	var all uint64
	for at := uint64(0); ; at += trimPiece {
		n, err := trim(f, at, trimPiece)
		all += n
		if errors.Is(err, unix.EINVAL) && at > 0 {
			return int64(all), nil // past the end: ext4_trim_fs
		}
		if err != nil {
			return int64(all), fmt.Errorf("trim: %w", err)
		}
		select {
		case <-ctx.Done():
			return int64(all), ctx.Err()
		case <-time.After(rest):
		}
	}
}

// trim is the ioctl FITRIM on a part of a file system: linux/fs.h, struct fstrim_range.
func trim(f *os.File, start, length uint64) (uint64, error) {
	r := struct{ start, length, least uint64 }{start, length, 0}
	const fitrim = 0xc0185879 // the same on amd64 and arm64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fitrim, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return 0, errno
	}
	return r.length, nil
}
