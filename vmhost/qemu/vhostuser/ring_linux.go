package vhostuser

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
	maxRingSize  = 32768 // virtio 1.2, 2.7: the largest a queue may be
	maxPieces    = 4096  // in one buffer; the largest that Linux makes has 260
	descNext     = 1
	descWrite    = 2
	descIndirect = 4
	descSize     = 16
	noInterrupt  = 1 // avail.flags: the driver wants no notification
	featLogAll   = 26
	featIndirect = 28
	featEventIdx = 29
)

// errRing says that the guest's ring makes no sense. The ring is not used again until it is set up anew.
var errRing = errors.New("the guest's ring is broken")

// Ring is one split virtqueue. Its methods are called with the device's lock held.
type Ring struct {
	num                           uint32
	descAddr, availAddr, usedAddr uint64 // of QEMU's; translated again when the memory changes
	desc, avail, used             []byte
	last                          uint16 // the next entry of avail to take
	usedIdx                       uint16 // the next entry of used to fill
	signalled                     uint16 // usedIdx at the last notification
	signalledValid                bool
	eventIdx, indirect            bool
	limit                         int    // bytes of a buffer, each way
	life                          uint64 // counts what ends the buffers that are out
	log                           *dirtyLog
	logged                        bool   // what is written into used is to be noted
	logAddr                       uint64 // of used, for the log
	enabled, addressed            bool
	broken                        bool
	kick                          *os.File
	call                          int // an eventfd, or -1
	stopped                       *place
}

// place is where a ring was when it stopped.
type place struct {
	descAddr, availAddr, usedAddr uint64
	last, usedIdx                 uint16
}

// anew says, of a ring that is about to be enabled, whether it is another one than that which stopped. The
// front end stops a ring of a machine that is paused and one whose driver goes away in the same words; only
// the first goes on where it was. One that had no buffer yet counts as another: it has nothing to lose.
func (r *Ring) anew(enabled bool) bool {
	was := r.stopped
	if was == nil || !enabled || r.desc == nil {
		return false
	}
	r.stopped = nil
	now := place{r.descAddr, r.availAddr, r.usedAddr, r.last, r.usedIdx}
	return *was != now || now.last == 0 && now.usedIdx == 0
}

// translate finds the ring's parts in memory. A ring that is not wholly in memory is not ready.
func (r *Ring) translate(m *Memory) error {
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
func (*Ring) word(b []byte) *uint32 { return (*uint32)(unsafe.Pointer(unsafe.SliceData(b))) }

func (r *Ring) Ready() bool { return r.enabled && !r.broken && r.desc != nil }

// Chain is a buffer of the guest's: pieces that we read, then pieces that we write.
type Chain struct {
	Head     uint16
	Out, In  [][]byte
	OutBytes int
	InBytes  int
}

// Waiting says how many buffers the guest has given and we have not taken.
func (r *Ring) Waiting() uint16 {
	return uint16(atomic.LoadUint32(r.word(r.avail))>>16) - r.last
}

// Pop takes the guest's next buffer into c; false when there is none. c's slices are used again.
func (r *Ring) Pop(m *Memory, c *Chain) (bool, error) {
	if !r.Ready() {
		return false, nil
	}
	n := r.Waiting()
	if n == 0 {
		return false, nil
	}
	if uint32(n) > r.num {
		return false, r.fail("more buffers than entries")
	}
	entry := 4 + 2*(uint32(r.last)&(r.num-1))
	head := le.Uint16(r.avail[entry:])
	c.Head, c.Out, c.In, c.OutBytes, c.InBytes = head, c.Out[:0], c.In[:0], 0, 0
	table, entries, i := r.desc, r.num, uint32(head)
	for count, direct := uint32(0), true; ; count++ {
		if i >= entries || count >= entries {
			return false, r.fail("a descriptor chain without end")
		}
		// Copied out once: the guest can change it while we look.
		d := [descSize]byte(table[i*descSize:])
		addr, size, flags := le.Uint64(d[:]), le.Uint32(d[8:]), le.Uint16(d[12:])
		if flags&descIndirect != 0 {
			// virtio 1.2, 2.7.5.3: one table, not within another, and nothing after it.
			if !r.indirect || !direct || flags&descNext != 0 || size == 0 || size%descSize != 0 || size > maxPieces*descSize {
				return false, r.fail("an indirect descriptor where none may be")
			}
			if table = m.guest(addr, uint64(size)); table == nil {
				return false, r.fail("a table of descriptors outside the guest's memory")
			}
			entries, i, direct = size/descSize, 0, false
			count = ^uint32(0) // it counts from 0 in the table
			continue
		}
		b := m.guest(addr, uint64(size))
		if b == nil || int64(size) > int64(r.limit) {
			return false, r.fail("a buffer outside the guest's memory")
		}
		if flags&descWrite != 0 {
			c.In = append(c.In, b)
			c.InBytes += len(b)
		} else {
			if len(c.In) > 0 {
				return false, r.fail("a readable piece after a writable one")
			}
			c.Out = append(c.Out, b)
			c.OutBytes += len(b)
		}
		if c.InBytes > r.limit || c.OutBytes > r.limit || len(c.In)+len(c.Out) > maxPieces {
			return false, r.fail("a buffer larger than any request")
		}
		if flags&descNext == 0 {
			break
		}
		i = uint32(le.Uint16(d[14:]))
	}
	r.last++
	return true, nil
}

func (r *Ring) fail(why string) error {
	r.broken = true
	return fmt.Errorf("%w: %s", errRing, why)
}

// Push gives a buffer back with n bytes written into it.
func (r *Ring) Push(head uint16, n int) {
	at := 4 + 8*(uint32(r.usedIdx)&(r.num-1))
	le.PutUint32(r.used[at:], uint32(head))
	le.PutUint32(r.used[at+4:], uint32(n))
	r.wroteUsed(uint64(at), 8)
	r.usedIdx++
	// Flags stay 0. The store orders the entry before the index for the guest.
	atomic.StoreUint32(r.word(r.used), uint32(r.usedIdx)<<16)
	r.wroteUsed(0, 4)
}

// wroteUsed notes that n bytes at an offset of used were written.
func (r *Ring) wroteUsed(offset, n uint64) {
	if r.logged {
		r.log.mark(r.logAddr+offset, n)
	}
}

// WantKicks asks the guest to tell of its next buffer; true if one came before it could see that.
func (r *Ring) WantKicks() bool {
	if r.eventIdx {
		le.PutUint16(r.used[4+8*r.num:], r.last)
		r.wroteUsed(4+8*uint64(r.num), 2)
		// A locked operation orders this store before the load that follows.
		atomic.AddUint32(new(uint32), 1)
	}
	return r.Waiting() != 0
}

// Notify tells the guest of the buffers given back, if it wants to know.
func (r *Ring) Notify() {
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

// Life says in which life of the ring a buffer was taken: one of an older life is not given back.
func (r *Ring) Life() uint64 { return r.life }

// stop forgets where the ring is, but for anew; buffers that are out are nobody's any more.
func (r *Ring) stop() {
	r.stopped = &place{}
	if r.desc != nil {
		*r.stopped = place{r.descAddr, r.availAddr, r.usedAddr, r.last, r.usedIdx}
	}
	r.enabled, r.broken, r.addressed = false, false, false
	r.desc, r.avail, r.used = nil, nil, nil
	r.life++
}

// closeFiles lets go of the ring's descriptors.
func (r *Ring) closeFiles() {
	if r.kick != nil {
		r.kick.Close()
		r.kick = nil
	}
	if r.call >= 0 {
		unix.Close(r.call)
		r.call = -1
	}
}
