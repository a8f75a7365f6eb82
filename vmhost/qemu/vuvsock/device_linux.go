package vuvsock

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"

	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/vmhost/qemu/vhostuser"
)

var le = binary.LittleEndian

const (
	hostCID = 2
	rxRing  = 0 // to the guest
	txRing  = 1 // from the guest

	headerSize = 44       // virtio 1.2, 5.10.6: struct virtio_vsock_hdr
	maxPacket  = 64 << 10 // what Linux sends and takes at the most
	maxConns   = 16 << 10 // a bound on what a guest's or a caller's fault can take
	maxBuffer  = 1 << 20  // bytes of a buffer that the guest gives; Linux gives 4 KiB to receive, and sends 64 KiB
	maxReplies = 1024     // control packets that wait; beyond, the guest is not heard until it makes room
)

// Device is one virtio socket device. It serves one front end (QEMU) at a time.
type Device struct {
	cid uint64
	log *slog.Logger

	mu       sync.Mutex // guards all below; every method ending in Locked needs it
	half     *vhostuser.Device
	conns    map[key]*Conn
	nextPort uint32
	replies  []packet // control packets for the guest, in order
	writers  []*Conn  // connections with bytes for the guest, in turn
	closed   bool
	tx, rx   vhostuser.Chain // used again for every buffer
}

// key is a connection's ports.
type key struct{ local, peer uint32 }

// packet is a control packet: one without bytes.
type packet struct {
	key
	op    uint16
	flags uint32
	conn  *Conn // whose credit it carries; nil for one of no connection
}

// Operations of virtio 1.2, 5.10.6.
const (
	opRequest = iota + 1
	opResponse
	opReset
	opShutdown
	opData
	opCreditUpdate
	opCreditRequest
)

// Flags of opShutdown: the sender will not receive, will not send.
const (
	shutReceive = 1
	shutSend    = 2
)

// New returns a device with the guest's context id (3 or more).
func New(cid uint64, log *slog.Logger) *Device {
	d := &Device{cid: cid, log: log, conns: map[key]*Conn{}, nextPort: 1 << 16}
	// The configuration is the guest's context id: virtio 1.2, 5.10.4.
	d.half = vhostuser.New(&d.mu, (*handler)(d), 2, maxBuffer, le.AppendUint64(nil, cid))
	return d
}

// Serve talks to a front end until it goes away or the device is closed; then every connection is reset,
// and the device can serve another one. A front end that breaks the protocol is an error.
func (d *Device) Serve(conn *net.UnixConn) error { return d.half.Serve(conn) }

// handler is the device as its rings see it.
type handler Device

func (h *handler) TurnLocked(int) { (*Device)(h).turnLocked() }
func (h *handler) ResetLocked()   { (*Device)(h).resetLocked() }

// StopLocked keeps the connections: a machine that is paused goes on with them, and who writes or dials waits.
func (h *handler) StopLocked() {}

// Reset ends every connection. It is for who took the device from the guest: its rings only stop.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resetLocked()
}

// Link is the device as a way to one port of the guest.
func (d *Device) Link(port uint32) proxy.Link { return &link{d, port} }

type link struct {
	d    *Device
	port uint32
}

func (l *link) String() string                               { return "vsock" }
func (l *link) Open(ctx context.Context) (proxy.Conn, error) { return l.d.Dial(ctx, l.port) }
func (l *link) Close() error                                 { l.d.Close(); return nil }

// Dial connects to a port of the guest. A port that nobody listens on is syscall.ECONNREFUSED.
func (d *Device) Dial(ctx context.Context, port uint32) (proxy.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, net.ErrClosed
	}
	if len(d.conns) >= maxConns {
		return nil, fmt.Errorf("vsock: %d connections are open: %w", len(d.conns), syscall.EMFILE)
	}
	k := key{d.nextPort, port}
	for d.conns[k] != nil {
		k.local = d.advancePortLocked()
	}
	d.advancePortLocked()
	c := newConn(d, k)
	d.conns[k] = c
	d.replyLocked(packet{key: k, op: opRequest, conn: c})
	d.pumpLocked()
	stop := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		c.cond.Broadcast()
	})
	defer stop()
	for c.state == connecting && ctx.Err() == nil {
		c.cond.Wait()
	}
	if c.state == connecting {
		c.endLocked(syscall.ECONNRESET)
		// A guest that takes nothing must not be left a longer and longer queue by those who try again.
		asked := len(d.replies)
		d.replies = slices.DeleteFunc(d.replies, func(p packet) bool { return p.conn == c })
		if len(d.replies) == asked {
			d.replyLocked(packet{key: k, op: opReset})
			d.pumpLocked()
		}
		return nil, context.Cause(ctx)
	}
	if c.err != nil {
		return nil, c.err
	}
	return c, nil
}

// advancePortLocked gives the next local port; those below 1024 are never used.
func (d *Device) advancePortLocked() uint32 {
	d.nextPort++
	if d.nextPort < 1<<16 {
		d.nextPort = 1 << 16
	}
	return d.nextPort
}

// Close ends every connection and the serving of the front end.
func (d *Device) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.resetLocked()
	d.half.CloseLocked()
}

// resetLocked ends every connection: the guest's driver is gone or begins anew.
func (d *Device) resetLocked() {
	for _, c := range d.conns {
		c.endLocked(syscall.ECONNRESET)
	}
	d.replies, d.writers = nil, nil
}

// turnLocked hears the guest and answers it, until it has said all or must make room for answers.
func (d *Device) turnLocked() {
	for tx := &d.half.Rings[txRing]; ; {
		d.drainLocked()
		d.pumpLocked()
		// The answers that have gone made room to hear more, and the guest does not tell twice.
		if !tx.Ready() || len(d.replies) >= maxReplies || tx.Waiting() == 0 {
			return
		}
	}
}

// drainLocked hears the guest's packets until there is none, or until replies must wait for room.
func (d *Device) drainLocked() {
	r := &d.half.Rings[txRing]
	heard := false
	for len(d.replies) < maxReplies {
		ok, err := r.Pop(d.half.Mem, &d.tx)
		if err != nil {
			d.log.Warn("vsock: the guest's transmit ring", "err", err)
			break
		}
		if !ok {
			if !r.Ready() || !r.WantKicks() {
				break
			}
			continue
		}
		heard = true
		d.hearLocked(&d.tx)
		r.Push(d.tx.Head, 0)
	}
	if heard {
		r.Notify()
	}
}

// header is struct virtio_vsock_hdr.
type header struct {
	srcCID, dstCID   uint64
	srcPort, dstPort uint32
	size             uint32
	kind, op         uint16
	flags            uint32
	alloc, forwarded uint32
}

const kindStream = 1

func parseHeader(b *[headerSize]byte) header {
	return header{
		srcCID: le.Uint64(b[0:]), dstCID: le.Uint64(b[8:]), srcPort: le.Uint32(b[16:]), dstPort: le.Uint32(b[20:]), size: le.Uint32(b[24:]),
		kind: le.Uint16(b[28:]), op: le.Uint16(b[30:]), flags: le.Uint32(b[32:]), alloc: le.Uint32(b[36:]), forwarded: le.Uint32(b[40:]),
	}
}

func (h header) put(b *[headerSize]byte) {
	le.PutUint64(b[0:], h.srcCID)
	le.PutUint64(b[8:], h.dstCID)
	le.PutUint32(b[16:], h.srcPort)
	le.PutUint32(b[20:], h.dstPort)
	le.PutUint32(b[24:], h.size)
	le.PutUint16(b[28:], h.kind)
	le.PutUint16(b[30:], h.op)
	le.PutUint32(b[32:], h.flags)
	le.PutUint32(b[36:], h.alloc)
	le.PutUint32(b[40:], h.forwarded)
}

// hearLocked takes one packet of the guest's.
func (d *Device) hearLocked(c *vhostuser.Chain) {
	var raw [headerSize]byte
	if c.OutBytes < headerSize {
		return // too short to say whose it is
	}
	rest := raw[:]
	pieces := c.Out
	for len(rest) > 0 {
		n := copy(rest, pieces[0])
		rest = rest[n:]
		if n == len(pieces[0]) {
			pieces = pieces[1:]
		} else {
			pieces[0] = pieces[0][n:]
		}
	}
	h := parseHeader(&raw)
	if h.srcCID != d.cid || h.dstCID != hostCID || int64(h.size) > int64(c.OutBytes-headerSize) {
		return
	}
	k := key{local: h.dstPort, peer: h.srcPort}
	conn := d.conns[k]
	if conn == nil || h.kind != kindStream {
		// Nobody here listens, so a request is refused like any stray packet.
		if h.op != opReset {
			d.replyLocked(packet{key: k, op: opReset})
		}
		return
	}
	conn.hearLocked(h, pieces)
}

// replyLocked queues a control packet. The queue is bounded by those who fill it: drainLocked stops
// hearing, and a connection has a bounded number of its own.
func (d *Device) replyLocked(p packet) { d.replies = append(d.replies, p) }

// pumpLocked moves what waits for the guest into the buffers that it has given.
func (d *Device) pumpLocked() {
	r := &d.half.Rings[rxRing]
	given := false
	for (len(d.replies) > 0 || len(d.writers) > 0) && r.Ready() {
		ok, err := r.Pop(d.half.Mem, &d.rx)
		if err != nil {
			d.log.Warn("vsock: the guest's receive ring", "err", err)
			break
		}
		if !ok {
			if !r.WantKicks() {
				break
			}
			continue
		}
		given = true
		r.Push(d.rx.Head, d.fillLocked(&d.rx))
	}
	if given {
		r.Notify()
	}
}

// fillLocked puts the next packet into a buffer and returns its length in bytes.
func (d *Device) fillLocked(c *vhostuser.Chain) int {
	if c.InBytes < headerSize {
		return 0
	}
	if len(d.replies) > 0 {
		p := d.replies[0]
		d.replies = d.replies[1:]
		h := d.headerLocked(p.key, p.op, p.flags, p.conn)
		var raw [headerSize]byte
		h.put(&raw)
		return scatter(c.In, raw[:], nil)
	}
	for len(d.writers) > 0 {
		w := d.writers[0]
		n := min(w.sendableLocked(), c.InBytes-headerSize, maxPacket)
		if n == 0 {
			// No credit: it comes back into the turn when the guest gives some.
			d.writers = d.writers[1:]
			w.queued = false
			continue
		}
		h := d.headerLocked(w.key, opData, 0, w)
		h.size = uint32(n)
		var raw [headerSize]byte
		h.put(&raw)
		written := scatter(c.In, raw[:], w.out[:n])
		w.out = w.out[n:]
		w.sent += uint32(n)
		// Others have their turn after each packet.
		d.writers = d.writers[1:]
		w.queued = false
		if len(w.out) == 0 {
			w.cond.Broadcast()
		} else {
			w.enqueueLocked()
		}
		return written
	}
	return 0
}

// headerLocked is a packet's header with the connection's credit in it.
func (d *Device) headerLocked(k key, op uint16, flags uint32, c *Conn) header {
	h := header{srcCID: hostCID, dstCID: d.cid, srcPort: k.local, dstPort: k.peer, kind: kindStream, op: op, flags: flags}
	if c != nil {
		h.alloc, h.forwarded = receiveBuffer, c.taken
		c.told = c.taken
	}
	return h
}

// scatter copies a and then b into the pieces and returns how many bytes that were.
func scatter(pieces [][]byte, a, b []byte) int {
	total := 0
	for _, p := range pieces {
		for len(p) > 0 && len(a)+len(b) > 0 {
			if len(a) == 0 {
				a, b = b, nil
			}
			n := copy(p, a)
			a, p = a[n:], p[n:]
			total += n
		}
	}
	return total
}
