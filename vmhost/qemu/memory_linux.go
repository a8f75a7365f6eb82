package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// The guest's memory is a memfd that we hand to QEMU, and that it leaves out of its migration stream
// (x-ignore-shared). QEMU would look at every page to find those that are zero, and the look at one that the
// guest has never touched makes it (tmpfs): a save took seconds and left the host without the memory. We
// copy the pages that there are.

// newMemory makes the memory of a guest, in bytes.
func newMemory(size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("cove-guest", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the guest's memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "guest memory")
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, fmt.Errorf("make the guest's memory: %w", err)
	}
	return f, nil
}

const (
	copyPiece = 1 << 20
	pageSize  = 4096
	// copyWorkers is how many copy: more than one, since each waits now and then, and few, since what the copy
	// takes in memory is theirs.
	copyWorkers = 2
	// writeBack is after how many bytes the host's disk is set to work, while the rest is still copied.
	writeBack = 32 << 20
)

// copyMemory copies a sparse file to an empty one of the same size, without its holes and without the pages
// that are zero, until the context ends.
func copyMemory(ctx context.Context, to, from *os.File) error {
	size, err := from.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if err := to.Truncate(size); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	pieces := make(chan span)
	group.Go(func() error {
		defer close(pieces)
		return eachPiece(ctx, from, size, pieces)
	})
	var written atomic.Int64
	for range copyWorkers {
		group.Go(func() error {
			buf := make([]byte, copyPiece)
			for p := range pieces {
				b := buf[:p.size]
				if _, err := from.ReadAt(b, p.at); err != nil {
					return err
				}
				if err := writePages(to, b, p.at); err != nil {
					return err
				}
				if n := written.Add(p.size); n/writeBack != (n-p.size)/writeBack {
					unix.SyncFileRange(int(to.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE) // a hint
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// span is a part of a file.
type span struct{ at, size int64 }

// eachPiece gives what there is of a sparse file, in pieces.
func eachPiece(ctx context.Context, f *os.File, size int64, to chan<- span) error {
	for at := int64(0); at < size; {
		data, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // nothing but a hole is left
		}
		if err != nil {
			return err
		}
		hole, err := f.Seek(data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		for at = data; at < hole; at += copyPiece {
			select {
			case to <- span{at, min(copyPiece, hole-at)}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		at = hole
	}
	return nil
}

// writePages writes the runs of pages that are not zero.
func writePages(to *os.File, b []byte, at int64) error {
	for from := 0; from < len(b); {
		for from < len(b) && zero(page(b, from)) {
			from += pageSize
		}
		end := from
		for end < len(b) && !zero(page(b, end)) {
			end += pageSize
		}
		if end = min(end, len(b)); from < end {
			if _, err := to.WriteAt(b[from:end], at+int64(from)); err != nil {
				return err
			}
		}
		from = end
	}
	return nil
}

func page(b []byte, at int) []byte { return b[at:min(at+pageSize, len(b))] }

var zeros [pageSize]byte

func zero(b []byte) bool { return string(b) == string(zeros[:len(b)]) }

// loading is a copy of a saved memory into a guest's, made while QEMU starts.
type loading struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // valid after done
}

// loadMemory begins to copy what was saved.
func (m *machine) loadMemory(ctx context.Context) (*loading, error) {
	from, err := os.Open(filepath.Join(m.spec.Saved, savedMemory))
	if err != nil {
		return nil, err
	}
	if info, err := from.Stat(); err != nil || info.Size() != m.spec.Memory {
		from.Close()
		return nil, fmt.Errorf("the saved memory is not %d bytes", m.spec.Memory)
	}
	l := &loading{done: make(chan struct{})}
	ctx, l.cancel = context.WithCancel(ctx)
	go func() {
		defer close(l.done)
		defer from.Close()
		l.err = copyMemory(ctx, m.memory, from)
	}()
	return l, nil
}

// wait waits for the copy.
func (l *loading) wait() error {
	<-l.done
	l.cancel()
	return l.err
}

// Close calls it off, or does nothing after its end.
func (l *loading) Close() error {
	l.cancel()
	<-l.done
	return nil
}
