package vuvsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

var le = binary.LittleEndian

const (
	maxRegions   = 32    // QEMU uses one to three; hot-plugged memory adds a few
	maxRingSize  = 32768 // virtio 1.2, 2.7: the largest a queue may be
	maxChain     = 1 << 20
	descNext     = 1
	descWrite    = 2
	descSize     = 16
	noInterrupt  = 1 // avail.flags: the driver wants no notification
	featEventIdx = 29
)

// errRing says that the guest's ring makes no sense. The ring is not used again until it is set up anew.
var errRing = errors.New("the guest's ring is broken")

// region is a piece of the guest's memory, mapped here.
type region struct {
	gpa, size, uaddr uint64
	mapping          []byte // from the page that the region begins in
	mem              []byte // the region
}

// memory is the guest's memory as QEMU has told it.
type memory []region

func (m memory) unmap() {
	for _, r := range m {
		unix.Munmap(r.mapping)
	}
}

// guest gives n bytes at a guest-physical address, or nil where the guest has no such memory in one piece.
func (m memory) guest(addr, n uint64) []byte {
	for _, r := range m {
		if off := addr - r.gpa; addr >= r.gpa && off < r.size && n <= r.size-off {
			return r.mem[off : off+n : off+n]
		}
	}
	return nil
}

// user gives n bytes at an address of QEMU's.
func (m memory) user(addr, n uint64) []byte {
	for _, r := range m {
		if off := addr - r.uaddr; addr >= r.uaddr && off < r.size && n <= r.size-off {
			return r.mem[off : off+n : off+n]
		}
	}
	return nil
}

// ring is one split virtqueue. Its methods are called with the device's lock held.
type ring struct {
	num                           uint32
	descAddr, availAddr, usedAddr uint64 // of QEMU's; translated again when the memory changes
	desc, avail, used             []byte
	last                          uint16 // the next entry of avail to take
	usedIdx                       uint16 // the next entry of used to fill
	signalled                     uint16 // usedIdx at the last notification
	signalledValid                bool
	eventIdx                      bool
	enabled, addressed            bool
	broken                        bool
	kick                          *os.File
	call                          int // an eventfd, or -1
}

// translate finds the ring's parts in memory. A ring that is not wholly in memory is not ready.
func (r *ring) translate(m memory) error {
	r.desc, r.avail, r.used = nil, nil, nil
	if !r.addressed {
		return nil
	}
	n := uint64(r.num)
	if n == 0 || n > maxRingSize || n&(n-1) != 0 {
		return fmt.Errorf("%w: %d entries", errRing, n)
	}
	desc, avail, used := m.user(r.descAddr, descSize*n), m.user(r.availAddr, 4+2*n+2), m.user(r.usedAddr, 4+8*n+2)
	if desc == nil || avail == nil || used == nil {
		return fmt.Errorf("%w: not in the guest's memory", errRing)
	}
	// The index words are read and written as aligned 32-bit words.
	if addressOf(avail)%4 != 0 || addressOf(used)%4 != 0 {
		return fmt.Errorf("%w: not aligned", errRing)
	}
	r.desc, r.avail, r.used = desc, avail, used
	r.usedIdx = uint16(atomic.LoadUint32(r.word(used)) >> 16)
	r.signalledValid = false
	return nil
}

func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// word is the flags and index word at the head of avail or used.
func (*ring) word(b []byte) *uint32 { return (*uint32)(unsafe.Pointer(unsafe.SliceData(b))) }

func (r *ring) ready() bool { return r.enabled && !r.broken && r.desc != nil }

// chain is a buffer of the guest's: pieces that we read, then pieces that we write.
type chain struct {
	head     uint16
	out, in  [][]byte
	outBytes int
	inBytes  int
}

// waiting says how many buffers the guest has given and we have not taken.
func (r *ring) waiting() uint16 {
	return uint16(atomic.LoadUint32(r.word(r.avail))>>16) - r.last
}

// pop takes the guest's next buffer into c; false when there is none. c's slices are used again.
func (r *ring) pop(m memory, c *chain) (bool, error) {
	if !r.ready() {
		return false, nil
	}
	n := r.waiting()
	if n == 0 {
		return false, nil
	}
	if uint32(n) > r.num {
		return false, r.fail("more buffers than entries")
	}
	entry := 4 + 2*(uint32(r.last)&(r.num-1))
	head := le.Uint16(r.avail[entry:])
	c.head, c.out, c.in, c.outBytes, c.inBytes = head, c.out[:0], c.in[:0], 0, 0
	i := uint32(head)
	for count := uint32(0); ; count++ {
		if i >= r.num || count >= r.num {
			return false, r.fail("a descriptor chain without end")
		}
		// Copied out once: the guest can change it while we look.
		d := [descSize]byte(r.desc[i*descSize:])
		addr, size, flags := le.Uint64(d[:]), le.Uint32(d[8:]), le.Uint16(d[12:])
		b := m.guest(addr, uint64(size))
		if b == nil || size > maxChain {
			return false, r.fail("a buffer outside the guest's memory")
		}
		if flags&descWrite != 0 {
			c.in = append(c.in, b)
			c.inBytes += len(b)
		} else {
			if len(c.in) > 0 {
				return false, r.fail("a readable piece after a writable one")
			}
			c.out = append(c.out, b)
			c.outBytes += len(b)
		}
		if c.inBytes > maxChain || c.outBytes > maxChain {
			return false, r.fail("a buffer larger than any packet")
		}
		if flags&descNext == 0 {
			break
		}
		i = uint32(le.Uint16(d[14:]))
	}
	r.last++
	return true, nil
}

func (r *ring) fail(why string) error {
	r.broken = true
	return fmt.Errorf("%w: %s", errRing, why)
}

// push gives a buffer back with n bytes written into it.
func (r *ring) push(head uint16, n int) {
	e := r.used[4+8*(uint32(r.usedIdx)&(r.num-1)):]
	le.PutUint32(e, uint32(head))
	le.PutUint32(e[4:], uint32(n))
	r.usedIdx++
	// Flags stay 0. The store orders the entry before the index for the guest.
	atomic.StoreUint32(r.word(r.used), uint32(r.usedIdx)<<16)
}

// wantKicks asks the guest to tell of its next buffer; true if one came before it could see that.
func (r *ring) wantKicks() bool {
	if r.eventIdx {
		le.PutUint16(r.used[4+8*r.num:], r.last)
		// A locked operation orders this store before the load that follows.
		atomic.AddUint32(new(uint32), 1)
	}
	return r.waiting() != 0
}

// notify tells the guest of the buffers given back, if it wants to know.
func (r *ring) notify() {
	if r.call < 0 || r.used == nil {
		return
	}
	atomic.AddUint32(new(uint32), 1)
	if r.eventIdx {
		event := le.Uint16(r.avail[4+2*r.num:])
		old, valid := r.signalled, r.signalledValid
		r.signalled, r.signalledValid = r.usedIdx, true
		// virtio 1.2, 2.7.10: an event lies between the old index and the new one.
		if valid && r.usedIdx-event-1 >= r.usedIdx-old {
			return
		}
	} else if atomic.LoadUint32(r.word(r.avail))&noInterrupt != 0 {
		return
	}
	unix.Write(r.call, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}
