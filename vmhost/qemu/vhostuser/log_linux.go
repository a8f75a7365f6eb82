package vhostuser

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dirtyLog is where the front end, while it copies the memory of a machine that runs, wants to have noted
// what we write: a bit for each page of the guest's.
type dirtyLog struct {
	mapping []byte
	words   []uint32
}

const (
	logPage = 4 << 10 // VHOST_LOG_PAGE
	maxLog  = 1 << 31 // bytes: for 64 TiB
	ringLog = 1       // VHOST_VRING_F_LOG of SET_VRING_ADDR
)

// takeLogLocked takes the log of SET_LOG_BASE: its size, where it begins in the file, and the file.
func (d *Device) takeLogLocked(m *message) error {
	if len(m.body) < 16 {
		return errShort
	}
	size, offset := le.Uint64(m.body), le.Uint64(m.body[8:])
	if len(m.fds) == 0 {
		return nil // of a front end without shared memory: it wants none of ours
	}
	var st unix.Stat_t
	if err := unix.Fstat(m.fds[0], &st); err != nil {
		return err
	}
	page := uint64(unix.Getpagesize())
	if size == 0 || size > maxLog || size%4 != 0 || offset > 1<<46 || offset%page != 0 || uint64(st.Size) < offset+size {
		return fmt.Errorf("log of %d bytes at %d of a file of %d bytes", size, offset, st.Size)
	}
	mapping, err := unix.Mmap(m.fds[0], int64(offset), int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the log: %w", err)
	}
	d.setLogLocked(&dirtyLog{mapping: mapping, words: unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(mapping))), size/4)})
	return nil
}

func (d *Device) setLogLocked(fresh *dirtyLog) {
	if d.log != nil {
		unix.Munmap(d.log.mapping)
	}
	d.log = fresh
	for i := range d.Rings {
		d.Rings[i].log = fresh
	}
}

// WroteLocked notes that the first n bytes of pieces of the guest's memory were written. It comes before the
// buffer is given back.
func (d *Device) WroteLocked(m *Memory, pieces [][]byte, n int) {
	if !d.logs || d.log == nil {
		return
	}
	for _, p := range pieces {
		if p = p[:min(len(p), n)]; len(p) == 0 {
			return
		}
		n -= len(p)
		if at, ok := m.addressOf(p); ok {
			d.log.mark(at, uint64(len(p)))
		}
	}
}

// mark sets the bits of the pages, without a log none. The front end clears them at the same time.
func (l *dirtyLog) mark(at, n uint64) {
	if l == nil {
		return
	}
	for page := at / logPage; page <= (at+n-1)/logPage; page++ {
		if page/32 >= uint64(len(l.words)) {
			return
		}
		atomic.OrUint32(&l.words[page/32], 1<<(page%32))
	}
}

// addressOf is where the guest has a piece of its memory.
func (m *Memory) addressOf(b []byte) (uint64, bool) {
	p := uint64(addressOf(b))
	for _, r := range m.regions {
		if first := uint64(addressOf(r.mem)); p >= first && p-first < r.size {
			return r.gpa + p - first, true
		}
	}
	return 0, false
}
