package vufs

import (
	"encoding/binary"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/covedesk/cove/vmhost/qemu/vhostuser"
)

const (
	urgentRing  = 0 // what must not wait behind requests: forgotten nodes, interrupts
	requestRing = 1 // one, because Linux uses more only with interrupts of its own for each processor
	rings       = 2

	// maxBuffer is what a request may have, each way: 1 MiB to write or read, and its head.
	maxBuffer = 1<<20 + 64<<10
	// workers bounds the requests that are handled at once. Each may hold a thread that waits for the
	// host's disk.
	workers       = 64
	urgentWorkers = 4

	// drainPatience is how long a front end that stops the device waits for what is under way. What has
	// not ended then is answered with EINTR.
	drainPatience = 5 * time.Second
)

var le = binary.LittleEndian

// Handler answers FUSE requests. in and out are byte streams in pieces; n is how much of out is written, 0
// for a request that has no answer. An error is for one that could not be read at all. It is called from
// many goroutines.
//
// One that is a vhostuser.State as well goes with its machine when that is saved. Without it QEMU saves no
// machine that has the device.
type Handler interface {
	HandleRequest(in, out [][]byte) (n int, errno syscall.Errno)
}

// Device is one virtio file system device. It serves one front end (QEMU) at a time.
type Device struct {
	handler  Handler
	log      *slog.Logger
	patience time.Duration // see drainPatience
	most     [rings]int    // workers

	mu               sync.Mutex // guards all below; every method ending in Locked needs it
	half             *vhostuser.Device
	running          [rings]int // workers
	out              map[*request]struct{}
	idle             *sync.Cond // out has become empty
	draining, closed bool       // no request is taken
	spare            []*request
}

// request is a buffer of the guest's that is being answered.
type request struct {
	chain  vhostuser.Chain
	mem    *vhostuser.Memory
	ring   int
	life   uint64
	unique uint64 // 0 until its header is read
	head   [headSize]byte
	in     [][]byte
}

// New returns a device whose requests the handler answers.
func New(handler Handler, log *slog.Logger) *Device {
	d := &Device{handler: handler, log: log, patience: drainPatience, most: [rings]int{urgentWorkers, workers}, out: map[*request]struct{}{}}
	d.idle = sync.NewCond(&d.mu)
	d.half = vhostuser.New(&d.mu, (*queues)(d), rings, maxBuffer, nil)
	if s, saves := handler.(vhostuser.State); saves {
		d.half.State = &state{s, log}
	}
	return d
}

// Serve talks to a front end until it goes away or the device is closed; the device can then serve another
// one. A front end that breaks the protocol is an error.
func (d *Device) Serve(conn *net.UnixConn) error { return d.half.Serve(conn) }

// Close ends the serving of the front end, and waits a while for the requests that run.
func (d *Device) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.half.CloseLocked()
	d.closed = true
	d.awaitLocked(func() bool { return d.running == [rings]int{} })
}

// queues is the device as its rings see it.
type queues Device

// TurnLocked takes requests while there are workers for them.
func (q *queues) TurnLocked(ring int) {
	d := (*Device)(q)
	for d.running[ring] < d.most[ring] {
		r := d.takeLocked(ring)
		if r == nil {
			return
		}
		d.running[ring]++
		go d.work(r)
	}
}

// takeLocked takes the guest's next request out of a ring; nil when there is none.
func (d *Device) takeLocked(ring int) *request {
	if d.draining || d.closed {
		return nil
	}
	ringOf := &d.half.Rings[ring]
	r := d.spareLocked()
	for {
		ok, err := ringOf.Pop(d.half.Mem, &r.chain)
		if err != nil {
			d.log.Warn("file sharing: the guest's ring", "ring", ring, "err", err)
			break
		}
		if ok {
			r.ring, r.life, r.mem, r.unique = ring, ringOf.Life(), d.half.Mem, 0
			r.mem.Hold()
			d.out[r] = struct{}{}
			return r
		}
		if !ringOf.Ready() || !ringOf.WantKicks() {
			break
		}
	}
	d.spare = append(d.spare, r)
	return nil
}

// maxSpare is how many requests are kept to be used again.
const maxSpare = workers

func (d *Device) spareLocked() *request {
	if n := len(d.spare); n > 0 {
		r := d.spare[n-1]
		d.spare = d.spare[:n-1]
		return r
	}
	return &request{}
}

// work answers a request, and then others of its ring until there is none.
func (d *Device) work(r *request) {
	for r != nil {
		unique := r.readHead()
		d.mu.Lock()
		r.unique = unique
		d.mu.Unlock()
		n := d.answer(r)
		d.mu.Lock()
		ring := r.ring
		d.giveLocked(r, n)
		if r = d.takeLocked(ring); r == nil {
			d.running[ring]--
			d.idle.Broadcast()
		}
		d.mu.Unlock()
	}
}

// giveLocked gives a request's buffer back to the guest, with n bytes in it. It belongs to nobody when the
// ring has begun a new life.
func (d *Device) giveLocked(r *request, n int) {
	if _, ours := d.out[r]; ours {
		delete(d.out, r)
		if ring := &d.half.Rings[r.ring]; ring.Life() == r.life {
			d.half.WroteLocked(r.mem, r.chain.In, n)
			ring.Push(r.chain.Head, n)
			ring.Notify()
		}
	}
	if len(d.out) == 0 {
		d.idle.Broadcast()
	}
	r.mem.Release()
	r.mem = nil
	if len(d.spare) < maxSpare {
		d.spare = append(d.spare, r)
	}
}

// ResetLocked has nothing else to do: what a guest has open is the handler's to keep.
func (q *queues) ResetLocked() { q.StopLocked() }

// StopLocked waits for the requests that are under way: the guest is to find their answers when the
// machine goes on. It lets go of the lock meanwhile.
func (q *queues) StopLocked() {
	d := (*Device)(q)
	d.draining = true
	d.awaitLocked(func() bool { return len(d.out) == 0 })
	for r := range d.out {
		// Its handler goes on, and what it says is not heard.
		d.log.Warn("file sharing: a request did not end in time", "opcode", le.Uint32(r.head[4:]))
		delete(d.out, r)
		if ring := &d.half.Rings[r.ring]; ring.Life() == r.life {
			n := fail(r.chain.In, r.unique, syscall.EINTR)
			d.half.WroteLocked(r.mem, r.chain.In, n)
			ring.Push(r.chain.Head, n)
			ring.Notify()
		}
	}
	d.draining = false
}

// awaitLocked waits for a condition, within its patience.
func (d *Device) awaitLocked(ok func() bool) {
	late := false
	timer := time.AfterFunc(d.patience, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		late = true
		d.idle.Broadcast()
	})
	defer timer.Stop()
	for !ok() && !late {
		d.idle.Wait()
	}
}
