package vhostuser

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const maxRegions = 32 // QEMU uses one to three; hot-plugged memory adds a few

// region is a piece of the guest's memory, mapped here.
type region struct {
	gpa, size, uaddr uint64
	mapping          []byte // from the page that the region begins in
	mem              []byte // the region
}

// Memory is the guest's memory as the front end has told it. It stays mapped while somebody holds it; the
// device's lock guards the count.
type Memory struct {
	regions []region
	holds   int
}

// Hold keeps the memory mapped until Release.
func (m *Memory) Hold() { m.holds++ }

// Release gives a hold back. The last one unmaps the memory.
func (m *Memory) Release() {
	if m.holds--; m.holds > 0 {
		return
	}
	for _, r := range m.regions {
		if r.mapping != nil {
			unix.Munmap(r.mapping)
		}
	}
	m.regions = nil
}

// guest gives n bytes at a guest-physical address, or nil where the guest has no such memory in one piece.
func (m *Memory) guest(addr, n uint64) []byte {
	if m == nil {
		return nil
	}
	for _, r := range m.regions {
		if off := addr - r.gpa; addr >= r.gpa && off < r.size && n <= r.size-off {
			return r.mem[off : off+n : off+n]
		}
	}
	return nil
}

// user gives n bytes at an address of the front end's.
func (m *Memory) user(addr, n uint64) []byte {
	if m == nil {
		return nil
	}
	for _, r := range m.regions {
		if off := addr - r.uaddr; addr >= r.uaddr && off < r.size && n <= r.size-off {
			return r.mem[off : off+n : off+n]
		}
	}
	return nil
}

// takeMemoryLocked takes the table of regions in a message.
func (d *Device) takeMemoryLocked(m *message) error {
	b := m.body
	if len(b) < 8 {
		return errShort
	}
	n := le.Uint32(b)
	if n > maxRegions || len(b) < 8+32*int(n) || len(m.fds) < int(n) {
		return fmt.Errorf("%d regions in %d bytes with %d descriptors", n, len(b), len(m.fds))
	}
	fresh := &Memory{holds: 1}
	for i := range int(n) {
		r, err := mapRegion(m.fds[i], b[8+32*i:])
		if err != nil {
			fresh.Release()
			return err
		}
		fresh.regions = append(fresh.regions, r)
	}
	d.setMemoryLocked(fresh)
	return nil
}

// mapRegion maps one region, described by where it is for the guest, its size, where it is for the front
// end, and where it begins in the file.
func mapRegion(fd int, e []byte) (region, error) {
	r := region{gpa: le.Uint64(e), size: le.Uint64(e[8:]), uaddr: le.Uint64(e[16:])}
	offset := le.Uint64(e[24:])
	page := offset &^ uint64(os.Getpagesize()-1)
	if r.size == 0 || r.size > 1<<46 || offset > 1<<46 || r.gpa+r.size < r.gpa || r.uaddr+r.size < r.uaddr {
		return r, fmt.Errorf("region of %d bytes at %#x", r.size, r.gpa)
	}
	// A page that the file does not have ends the process that touches it.
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || uint64(st.Size) < offset+r.size {
		return r, fmt.Errorf("region of %d bytes at %d of a file of %d bytes: %w", r.size, offset, st.Size, errShort)
	}
	var err error
	r.mapping, err = unix.Mmap(fd, int64(page), int(r.size+offset-page), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return r, fmt.Errorf("map the guest's memory: %w", err)
	}
	r.mem = r.mapping[offset-page:]
	return r, nil
}
