//go:build linux

package vuvsock

import (
	"log/slog"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// The guest of the tests: its memory, with both rings at the start and buffers behind them.
const (
	testCID    = 3
	entries    = 16
	guestBase  = 0x10000 // where the memory is for the guest
	userBase   = 0x7f0000000000
	memorySize = 1 << 20
	ringSpace  = 0x1000 // for each part of a ring
	bufferAt   = 0x10000
	bufferSize = headerSize + 4096
)

// part is the offset of a ring's part: 0 descriptors, 1 avail, 2 used.
func part(ring, which int) uint64 { return uint64(ring*3+which) * ringSpace }

// newMemory makes memory for a guest, in a file that a device can have.
func newMemory(t testing.TB) (file int, b []byte) {
	t.Helper()
	file, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	must(t, err)
	t.Cleanup(func() { unix.Close(file) })
	must(t, unix.Ftruncate(file, memorySize))
	b, err = unix.Mmap(file, 0, memorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	t.Cleanup(func() { unix.Munmap(b) })
	return file, b
}

// newDevice is a device whose rings lie in the memory.
func newDevice(t testing.TB, file int, features uint64) *Device {
	t.Helper()
	d := New(testCID, slog.New(slog.DiscardHandler))
	t.Cleanup(d.Close)
	plugIn(t, d, file, features)
	return d
}

// guest drives the rings as a kernel does: one descriptor a buffer, every receive buffer given at once.
type guest struct {
	d        *Device
	mem      []byte
	tx, rx   uint16 // avail indices
	seen     uint16 // used index of the receive ring
	received []header
	bodies   [][]byte
}

func newTestGuest(t testing.TB) *guest {
	file, mem := newMemory(t)
	g := &guest{mem: mem, d: newDevice(t, file, 0)}
	for i := range entries {
		g.give(rxRing, uint16(i), descWrite, bufferSize)
	}
	return g
}

func (g *guest) buffer(ring int, i uint16) []byte {
	at := bufferAt + (ring*entries+int(i))*8192
	return g.mem[at : at+bufferSize]
}

// give puts buffer i at the end of a ring's avail.
func (g *guest) give(ring int, i uint16, flags uint16, size int) {
	d := g.mem[part(ring, 0)+uint64(i)*descSize:]
	le.PutUint64(d, uint64(guestBase+bufferAt+(ring*entries+int(i))*8192))
	le.PutUint32(d[8:], uint32(size))
	le.PutUint16(d[12:], flags)
	avail := g.mem[part(ring, 1):]
	idx := &g.rx
	if ring == txRing {
		idx = &g.tx
	}
	le.PutUint16(avail[4+2*(*idx%entries):], i)
	*idx++
	atomic.StoreUint32(word(avail), uint32(*idx)<<16)
}

// send gives the device a packet.
func (g *guest) send(h header, body []byte) {
	h.srcCID, h.dstCID, h.kind, h.size = testCID, hostCID, kindStream, uint32(len(body))
	i := g.tx % entries
	b := g.buffer(txRing, i)
	h.put((*[headerSize]byte)(b))
	copy(b[headerSize:], body)
	g.give(txRing, i, 0, headerSize+len(body))
	g.d.kicked()
	g.take()
}

// take reads what the device has put into the receive ring and gives the buffers back.
func (g *guest) take() {
	for {
		idx := uint16(atomic.LoadUint32(word(g.mem[part(rxRing, 2):])) >> 16)
		if idx == g.seen {
			return
		}
		e := g.mem[part(rxRing, 2)+4+8*uint64(g.seen%entries):]
		i, n := uint16(le.Uint32(e)), le.Uint32(e[4:])
		b := g.buffer(rxRing, i)
		g.received = append(g.received, parseHeader((*[headerSize]byte)(b)))
		g.bodies = append(g.bodies, append([]byte(nil), b[headerSize:n]...))
		g.seen++
		g.give(rxRing, i, descWrite, bufferSize)
		g.d.kicked()
	}
}
