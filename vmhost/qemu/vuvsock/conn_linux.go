package vuvsock

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/covedesk/cove/proxy"
)

const (
	// receiveBuffer is what a connection holds for its reader at the most, in bytes. The guest is told,
	// and one that sends more is reset. Linux caps what it sends unasked to the same.
	receiveBuffer = 256 << 10
	// updateAfter is how much is read before the guest is told that there is room again.
	updateAfter = 64 << 10
	// keepBuffer is what an idle connection may hold on to.
	keepBuffer = 16 << 10
	// lingerPatience is how long a closed connection waits for the guest's word before it is reset.
	lingerPatience = 8 * time.Second
)

type state int

const (
	connecting state = iota
	open
	lingering // closed here; the guest has not said so yet
	ended
)

// Conn is a connection to a port of the guest. It is guarded by its device's lock.
type Conn struct {
	d *Device
	key
	cond  *sync.Cond
	state state
	err   error // why it ended; nil for an orderly end

	in                          []byte // received, not read
	inOff                       int
	taken, told                 uint32 // bytes read in all, and as the guest knows it
	peerEnded                   bool   // no more bytes come
	readShut                    bool   // nobody reads here
	out                         []byte // of the Write that is under way
	writing                     bool
	sent                        uint32 // bytes sent in all
	alloc, freed                uint32 // the guest's buffer, and the bytes that it has read in all
	queued                      bool   // in d.writers
	writeShut                   bool   // no more bytes are sent
	peerDeaf                    bool   // the guest reads no more
	readDeadline, writeDeadline deadline
	linger                      *time.Timer
}

var _ proxy.Conn = (*Conn)(nil)

func newConn(d *Device, k key) *Conn { return &Conn{d: d, key: k, cond: sync.NewCond(&d.mu)} }

// hearLocked takes a packet of the guest's for this connection.
func (c *Conn) hearLocked(h header, pieces [][]byte) {
	c.alloc, c.freed = h.alloc, h.forwarded
	switch h.op {
	case opResponse:
		if c.state == connecting {
			c.state = open
		}
	case opReset:
		switch {
		case c.state == connecting:
			c.endLocked(syscall.ECONNREFUSED)
		case c.state == lingering || c.peerEnded && c.writeShut:
			c.endLocked(nil)
		default:
			c.endLocked(syscall.ECONNRESET)
		}
		return
	case opShutdown:
		if h.flags&shutSend != 0 {
			c.peerEnded = true
		}
		if h.flags&shutReceive != 0 {
			c.peerDeaf = true
		}
		// The guest has closed: it waits for our word, and what it sent stays readable.
		if c.peerEnded && c.peerDeaf {
			c.d.replyLocked(packet{key: c.key, op: opReset})
			c.endLocked(nil)
			return
		}
	case opData:
		c.receiveLocked(int(h.size), pieces)
	case opCreditRequest:
		c.d.replyLocked(packet{key: c.key, op: opCreditUpdate, conn: c})
	}
	if len(c.out) > 0 {
		c.enqueueLocked()
	}
	c.cond.Broadcast()
}

func (c *Conn) receiveLocked(size int, pieces [][]byte) {
	if c.state != open && c.state != lingering || c.peerEnded || len(c.in)-c.inOff+size > receiveBuffer {
		c.d.replyLocked(packet{key: c.key, op: opReset})
		c.endLocked(syscall.ECONNRESET)
		return
	}
	if c.state == lingering || c.readShut {
		// Nobody reads; the guest is given its credit back so that it comes to its end.
		c.taken += uint32(size)
		c.updateLocked()
		return
	}
	if c.inOff > 0 && len(c.in)+size > cap(c.in) {
		c.in = append(c.in[:0], c.in[c.inOff:]...)
		c.inOff = 0
	}
	for _, p := range pieces {
		n := min(len(p), size)
		c.in = append(c.in, p[:n]...)
		size -= n
	}
}

// endLocked takes the connection out of the device for good. What was received stays readable after an
// orderly end; after an error too, as far as it goes.
func (c *Conn) endLocked(err error) {
	if c.state == ended {
		return
	}
	c.state, c.err = ended, err
	if c.linger != nil {
		c.linger.Stop()
	}
	if c.d.conns[c.key] == c {
		delete(c.d.conns, c.key)
	}
	c.cond.Broadcast()
}

// sendableLocked is how much of the Write under way the guest has room for. Its numbers are its own
// claims: nonsense is no room.
func (c *Conn) sendableLocked() int {
	if c.state != open {
		return 0
	}
	flight := c.sent - c.freed
	if flight > c.alloc {
		return 0
	}
	return min(len(c.out), int(c.alloc-flight))
}

func (c *Conn) enqueueLocked() {
	if !c.queued && c.sendableLocked() > 0 {
		c.queued = true
		c.d.writers = append(c.d.writers, c)
	}
}

// updateLocked tells the guest of the room that reading has made, when it is worth a packet.
func (c *Conn) updateLocked() {
	if c.taken-c.told >= updateAfter && c.state != ended {
		c.told = c.taken
		c.d.replyLocked(packet{key: c.key, op: opCreditUpdate, conn: c})
		c.d.pumpLocked()
	}
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	for {
		switch {
		case c.readShut || c.state == lingering:
			return 0, net.ErrClosed
		case c.readDeadline.passed():
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		case c.inOff < len(c.in):
			n := copy(b, c.in[c.inOff:])
			c.inOff += n
			if c.inOff == len(c.in) {
				c.in, c.inOff = c.in[:0], 0
				if cap(c.in) > keepBuffer {
					c.in = nil
				}
			}
			c.taken += uint32(n)
			c.updateLocked()
			return n, nil
		case c.peerEnded: // all that it had to say has come, whatever became of it since
			return 0, io.EOF
		case c.state == ended && c.err != nil:
			return 0, c.opError("read", c.err)
		case c.state == ended:
			return 0, io.EOF
		}
		c.cond.Wait()
	}
}

// Write implements net.Conn. It returns when the guest has all of b.
func (c *Conn) Write(b []byte) (int, error) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	for c.writing { // one Write at a time, so that their bytes do not mix
		if err := c.writableLocked(); err != nil {
			return 0, err
		}
		c.cond.Wait()
	}
	if err := c.writableLocked(); err != nil {
		return 0, err
	}
	c.writing = true
	c.out = b
	defer func() {
		c.out, c.writing = nil, false
		c.cond.Broadcast()
	}()
	c.enqueueLocked()
	c.d.pumpLocked()
	for len(c.out) > 0 {
		if err := c.writableLocked(); err != nil {
			return len(b) - len(c.out), err
		}
		c.cond.Wait()
	}
	return len(b), nil
}

// writableLocked says why nothing can be written.
func (c *Conn) writableLocked() error {
	switch {
	case c.writeShut || c.state == lingering:
		return net.ErrClosed
	case c.state == ended && c.err != nil:
		return c.opError("write", c.err)
	case c.state == ended || c.peerDeaf:
		return c.opError("write", syscall.EPIPE)
	case c.writeDeadline.passed():
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "vsock", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// CloseWrite ends our direction; the guest reads what was sent and then the end.
func (c *Conn) CloseWrite() error {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	if c.writeShut || c.state == ended || c.state == lingering {
		return nil
	}
	c.writeShut = true
	c.cond.Broadcast()
	c.d.replyLocked(packet{key: c.key, op: opShutdown, flags: shutSend, conn: c})
	c.d.pumpLocked()
	return nil
}

// CloseRead gives up the guest's direction.
func (c *Conn) CloseRead() error {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	if c.readShut || c.state != open {
		return nil
	}
	c.readShut = true
	c.taken += uint32(len(c.in) - c.inOff)
	c.in, c.inOff = nil, 0
	c.cond.Broadcast()
	c.d.replyLocked(packet{key: c.key, op: opShutdown, flags: shutReceive, conn: c})
	c.d.pumpLocked()
	return nil
}

// Close ends both directions. What the guest sent and nobody read makes it an abort: the guest sees a
// reset, as with TCP.
func (c *Conn) Close() error {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	if c.state == ended || c.state == lingering {
		c.readShut, c.writeShut = true, true
		c.in = nil
		c.cond.Broadcast()
		return nil
	}
	unread := len(c.in) > c.inOff
	c.in, c.inOff = nil, 0
	c.readShut, c.writeShut = true, true
	if unread || c.state == connecting {
		c.endLocked(net.ErrClosed)
		c.d.replyLocked(packet{key: c.key, op: opReset})
	} else {
		c.state = lingering
		c.cond.Broadcast()
		c.d.replyLocked(packet{key: c.key, op: opShutdown, flags: shutReceive | shutSend, conn: c})
		c.linger = time.AfterFunc(lingerPatience, c.giveUp)
	}
	c.d.pumpLocked()
	return nil
}

// giveUp resets a closed connection that the guest never answered.
func (c *Conn) giveUp() {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	if c.state == lingering {
		c.endLocked(nil)
		c.d.replyLocked(packet{key: c.key, op: opReset})
		c.d.pumpLocked()
	}
}

func (c *Conn) LocalAddr() net.Addr  { return Addr{hostCID, c.local} }
func (c *Conn) RemoteAddr() net.Addr { return Addr{c.d.cid, c.peer} }

// Addr is a context id and a port.
type Addr struct {
	CID  uint64
	Port uint32
}

func (Addr) Network() string  { return "vsock" }
func (a Addr) String() string { return fmt.Sprintf("vsock:%d:%d", a.CID, a.Port) }

// deadline is a point in time that wakes the connection's waiters.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (c *Conn) setLocked(d *deadline, t time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, func() {
			c.d.mu.Lock()
			defer c.d.mu.Unlock()
			c.cond.Broadcast()
		})
	}
	c.cond.Broadcast()
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	c.setLocked(&c.readDeadline, t)
	c.setLocked(&c.writeDeadline, t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	c.setLocked(&c.readDeadline, t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	c.setLocked(&c.writeDeadline, t)
	return nil
}
