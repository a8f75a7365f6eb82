//go:build linux

package vuvsock

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy"
	"golang.org/x/sys/unix"
)

// A driver is a whole guest with its QEMU: memory in a memfd, the vhost-user messages over a socket,
// kicks and calls by eventfds, and a socket layer that does what Linux's does.
const (
	driverRing  = 128
	driverMem   = 2 << 20
	driverGPA   = 0x100000
	driverUser  = 0x7f1234000000
	driverSkip  = 4096      // the memory begins there in its file
	driverAlloc = 256 << 10 // what Linux gives a connection
	driverPort  = 1023

	driverBuffer = headerSize + 4096
	driverStride = 5120
)

func driverPart(ring, which int) uint64 { return uint64(ring)*0x4000 + uint64(which)*0x1000 }
func driverBufferAt(ring int, i uint16) uint64 {
	return 0x10000 + uint64(ring*driverRing+int(i))*driverStride
}

type driver struct {
	t        testing.TB
	front    *net.UnixConn
	file     int
	mem      []byte
	eventIdx bool
	alloc    uint32      // what every connection has room for
	lies     atomic.Bool // the test has told the device of other room
	served   chan error  // what Serve returned
	kick     [2]int
	call     [2]*os.File
	loops    sync.WaitGroup

	txMu    sync.Mutex
	txRoom  *sync.Cond
	txFree  []uint16
	txAvail uint16
	txSeen  uint16
	rxAvail uint16 // of the receive loop alone
	rxSeen  uint16
	over    bool // guarded by txMu: nobody takes packets any more

	mu       sync.Mutex
	conns    map[uint32]*guestConn // by the host's port
	accepted map[uint32]proxy.Conn
}

// boot connects a new guest to the device and sets its rings up.
func boot(t testing.TB, d *Device, eventIdx bool) *driver {
	t.Helper()
	return bootWith(t, d, eventIdx, driverAlloc)
}

func bootWith(t testing.TB, d *Device, eventIdx bool, alloc uint32) *driver {
	t.Helper()
	g := plug(t, d)
	g.eventIdx, g.alloc = eventIdx, alloc
	g.negotiate()
	g.begin()
	return g
}

// plug connects a new guest that has said nothing yet.
func plug(t testing.TB, d *Device) *driver {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	g := &driver{t: t, served: make(chan error, 1), conns: map[uint32]*guestConn{}, accepted: map[uint32]proxy.Conn{}}
	g.txRoom = sync.NewCond(&g.txMu)
	g.front = unixConn(t, pair[0])
	back := unixConn(t, pair[1])
	g.front.SetDeadline(time.Now().Add(2 * time.Minute))
	go func() { g.served <- d.Serve(back) }()
	g.file, err = unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	must(t, err)
	must(t, unix.Ftruncate(g.file, driverSkip+driverMem))
	g.mem, err = unix.Mmap(g.file, driverSkip, driverMem, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	for i := range 2 {
		g.kick[i], err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		must(t, err)
	}
	t.Cleanup(g.unplug)
	return g
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func unixConn(t testing.TB, fd int) *net.UnixConn {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	must(t, err)
	return c.(*net.UnixConn)
}

// unplug is QEMU's end.
func (g *driver) unplug() {
	g.front.Close()
	<-g.served
	g.halt()
	unix.Munmap(g.mem)
	unix.Close(g.file)
	unix.Close(g.kick[0])
	unix.Close(g.kick[1])
}

// halt ends the guest's own threads and connections.
func (g *driver) halt() {
	g.txMu.Lock()
	g.over = true
	g.txRoom.Broadcast()
	g.txMu.Unlock()
	for _, call := range g.call {
		if call != nil {
			call.Close() // twice is no harm
		}
	}
	g.mu.Lock()
	for _, c := range g.conns {
		c.abort()
	}
	clear(g.conns)
	g.mu.Unlock()
	g.loops.Wait()
}

// say sends a request. One that is answered gives the answer's body.
func (g *driver) say(request uint32, flags uint32, body []byte, fds ...int) []byte {
	g.t.Helper()
	b, err := g.sayRaw(request, flags, body, fds...)
	if err != nil {
		g.t.Fatalf("request %d: %v", request, err)
	}
	return b
}

func (g *driver) sayRaw(request uint32, flags uint32, body []byte, fds ...int) ([]byte, error) {
	b := make([]byte, messageHeader, messageHeader+len(body))
	le.PutUint32(b, request)
	le.PutUint32(b[4:], flags|flagVersion)
	le.PutUint32(b[8:], uint32(len(body)))
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := g.front.WriteMsgUnix(append(b, body...), oob, nil); err != nil {
		return nil, err
	}
	switch request {
	case reqGetFeatures, reqGetProtocolFeatures, reqGetQueueNum, reqGetVringBase, reqGetConfig:
	default:
		if flags&flagNeedReply == 0 {
			return nil, nil
		}
	}
	head := make([]byte, messageHeader)
	if _, err := io.ReadFull(g.front, head); err != nil {
		return nil, err
	}
	if le.Uint32(head) != request || le.Uint32(head[4:])&flagReply == 0 {
		return nil, fmt.Errorf("the answer's head is % x", head)
	}
	answer := make([]byte, le.Uint32(head[8:]))
	_, err := io.ReadFull(g.front, answer)
	return answer, err
}

func words(v ...uint32) []byte {
	var b []byte
	for _, w := range v {
		b = le.AppendUint32(b, w)
	}
	return b
}

func longs(v ...uint64) []byte {
	var b []byte
	for _, w := range v {
		b = le.AppendUint64(b, w)
	}
	return b
}

// negotiate is what QEMU says once.
func (g *driver) negotiate() {
	g.t.Helper()
	want := uint64(1<<32 | 1<<30)
	if g.eventIdx {
		want |= 1 << featEventIdx
	}
	if got := le.Uint64(g.say(reqGetFeatures, 0, nil)); got&want != want {
		g.t.Fatalf("features %#x; want %#x among them", got, want)
	}
	if got := le.Uint64(g.say(reqGetProtocolFeatures, 0, nil)); got&(1<<9) == 0 {
		g.t.Fatalf("protocol features %#x; want the configuration space among them", got)
	}
	g.say(reqSetProtocolFeatures, 0, longs(1<<3|1<<9))
	g.say(reqSetOwner, 0, nil)
	if n := le.Uint64(g.say(reqGetQueueNum, 0, nil)); n < 2 {
		g.t.Fatalf("%d queues; want the 2 of data", n)
	}
	if config := g.say(reqGetConfig, 0, append(words(0, 8, 0), make([]byte, 8)...)); len(config) != 20 || le.Uint64(config[12:]) != testCID {
		g.t.Fatalf("configuration % x; want the context id %d at its end", config, testCID)
	}
	g.say(reqSetFeatures, 0, longs(want))
	if answer := g.setMemory(driverGPA, driverMem, driverUser, driverSkip); le.Uint64(answer) != 0 {
		g.t.Fatalf("SET_MEM_TABLE was answered % x; want 0", answer)
	}
}

func (g *driver) setMemory(gpa, size, user, offset uint64) []byte {
	g.t.Helper()
	return g.say(reqSetMemTable, flagNeedReply, append(words(1, 0), longs(gpa, size, user, offset)...), g.file)
}

// begin sets the rings up and starts the guest's threads: what a driver does when it is loaded.
func (g *driver) begin() {
	g.t.Helper()
	clear(g.mem[:0x10000])
	g.over, g.txAvail, g.txSeen, g.rxAvail, g.rxSeen, g.txFree = false, 0, 0, 0, 0, nil
	for i := range uint16(driverRing) {
		g.txFree = append(g.txFree, i)
	}
	for i := range uint16(driverRing) {
		g.descriptor(rxRing, i, driverGPA+driverBufferAt(rxRing, i), driverBuffer, descWrite, 0)
		g.avail(rxRing, &g.rxAvail, i)
	}
	for i := range 2 {
		call, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		must(g.t, err)
		g.call[i] = os.NewFile(uintptr(call), "call")
		g.say(reqSetVringNum, 0, words(uint32(i), driverRing))
		g.say(reqSetVringBase, 0, words(uint32(i), 0))
		g.say(reqSetVringAddr, 0, g.ringAddress(i, 0))
		g.say(reqSetVringKick, 0, longs(uint64(i)), g.kick[i])
		g.say(reqSetVringCall, 0, longs(uint64(i)), call)
	}
	for i := range 2 {
		g.say(reqSetVringEnable, flagNeedReply, words(uint32(i), 1))
	}
	g.loops.Go(func() { g.onCall(rxRing, g.receive) })
	g.loops.Go(func() { g.onCall(txRing, g.reclaim) })
}

func (g *driver) ringAddress(i int, shift uint64) []byte {
	return append(words(uint32(i), 0), longs(driverUser+driverPart(i, 0)+shift, driverUser+driverPart(i, 2)+shift, driverUser+driverPart(i, 1)+shift, 0)...)
}

// reset is what a driver does when it is unloaded, and QEMU when the guest reboots.
func (g *driver) reset() {
	for i := range 2 {
		g.say(reqSetVringEnable, 0, words(uint32(i), 0))
		g.say(reqGetVringBase, 0, words(uint32(i), 0))
	}
	g.halt()
}

// pause is what QEMU does when the machine stands still: it stops the rings, and remembers where they were.
func (g *driver) pause() (bases [2]uint32) {
	g.t.Helper()
	for i := range bases {
		g.say(reqSetVringEnable, 0, words(uint32(i), 0))
		bases[i] = le.Uint32(g.say(reqGetVringBase, 0, words(uint32(i), 0))[4:])
	}
	return bases
}

// goOn is what it does when the machine goes on. The guest's eventfds are the same; QEMU gives them again.
func (g *driver) goOn(bases [2]uint32) {
	g.t.Helper()
	for i := range bases {
		g.say(reqSetVringNum, 0, words(uint32(i), driverRing))
		g.say(reqSetVringBase, 0, words(uint32(i), bases[i]))
		g.say(reqSetVringAddr, 0, g.ringAddress(i, 0))
		g.say(reqSetVringKick, 0, longs(uint64(i)), g.kick[i])
		g.say(reqSetVringCall, 0, longs(uint64(i)), int(g.call[i].Fd()))
	}
	for i := range bases {
		g.say(reqSetVringEnable, flagNeedReply, words(uint32(i), 1))
	}
}

func (g *driver) descriptor(ring int, i uint16, addr uint64, size uint32, flags, next uint16) {
	d := g.mem[driverPart(ring, 0)+uint64(i)*descSize:]
	le.PutUint64(d, addr)
	le.PutUint32(d[8:], size)
	le.PutUint16(d[12:], flags)
	le.PutUint16(d[14:], next)
}

// avail gives a chain to the device, without telling it.
func (g *driver) avail(ring int, idx *uint16, head uint16) {
	a := g.mem[driverPart(ring, 1):]
	le.PutUint16(a[4+2*(*idx%driverRing):], head)
	*idx++
	atomic.StoreUint32(word(a), uint32(*idx)<<16)
}

// tell kicks the device if it asked to be: virtio 1.2, 2.7.10.
func (g *driver) tell(ring int, before, now uint16) {
	atomic.AddUint32(new(uint32), 1)
	if g.eventIdx {
		event := uint16(atomic.LoadUint32(word(g.mem[driverPart(ring, 2)+4+8*driverRing:])))
		if now-event-1 >= now-before {
			return
		}
	}
	unix.Write(g.kick[ring], binary.NativeEndian.AppendUint64(nil, 1))
}

func (g *driver) usedIdx(ring int) uint16 {
	return uint16(atomic.LoadUint32(word(g.mem[driverPart(ring, 2):])) >> 16)
}

// onCall runs f whenever the device has given something back.
func (g *driver) onCall(ring int, f func()) {
	call := g.call[ring]
	b := make([]byte, 8)
	for {
		f()
		if _, err := call.Read(b); err != nil {
			return
		}
	}
}

// wantCalls asks for a call at the next buffer; true if one came already.
func (g *driver) wantCalls(ring int, seen uint16) bool {
	if g.eventIdx {
		a := g.mem[driverPart(ring, 1)+4+2*driverRing:]
		le.PutUint16(a, seen)
		atomic.AddUint32(new(uint32), 1)
	}
	return g.usedIdx(ring) != seen
}

func (g *driver) receive() {
	for {
		before := g.rxAvail
		for g.usedIdx(rxRing) != g.rxSeen {
			e := g.mem[driverPart(rxRing, 2)+4+8*uint64(g.rxSeen%driverRing):]
			i, n := uint16(le.Uint32(e)), le.Uint32(e[4:])
			b := g.mem[driverBufferAt(rxRing, i):][:driverBuffer]
			if n >= headerSize {
				h := parseHeader((*[headerSize]byte)(b))
				if n != headerSize+h.size {
					g.t.Errorf("a packet of %d bytes says that it has %d", n, headerSize+h.size)
				}
				g.hear(h, append([]byte(nil), b[headerSize:n]...))
			}
			g.rxSeen++
			g.avail(rxRing, &g.rxAvail, i)
		}
		g.tell(rxRing, before, g.rxAvail)
		if !g.wantCalls(rxRing, g.rxSeen) {
			return
		}
	}
}

// reclaim takes back the transmit buffers that the device has read.
func (g *driver) reclaim() {
	g.txMu.Lock()
	defer g.txMu.Unlock()
	for {
		for g.usedIdx(txRing) != g.txSeen {
			i := uint16(le.Uint32(g.mem[driverPart(txRing, 2)+4+8*uint64(g.txSeen%driverRing):]))
			for {
				d := g.mem[driverPart(txRing, 0)+uint64(i)*descSize:]
				g.txFree = append(g.txFree, i)
				if le.Uint16(d[12:])&descNext == 0 {
					break
				}
				i = le.Uint16(d[14:])
			}
			g.txSeen++
		}
		g.txRoom.Broadcast()
		if !g.wantCalls(txRing, g.txSeen) {
			return
		}
	}
}

// send gives the device a packet: the header in a descriptor, the bytes in another.
func (g *driver) send(h header, body []byte) bool {
	h.srcCID, h.dstCID, h.kind, h.size = testCID, hostCID, kindStream, uint32(len(body))
	g.txMu.Lock()
	defer g.txMu.Unlock()
	for !g.over && len(g.txFree) < 2 {
		g.txRoom.Wait()
	}
	if g.over {
		return false
	}
	take := func() uint16 {
		i := g.txFree[len(g.txFree)-1]
		g.txFree = g.txFree[:len(g.txFree)-1]
		return i
	}
	head := take()
	at := driverBufferAt(txRing, head)
	h.put((*[headerSize]byte)(g.mem[at:]))
	if len(body) == 0 {
		g.descriptor(txRing, head, driverGPA+at, headerSize, 0, 0)
	} else {
		rest := take()
		g.descriptor(txRing, head, driverGPA+at, headerSize, descNext, rest)
		at := driverBufferAt(txRing, rest)
		g.descriptor(txRing, rest, driverGPA+at, uint32(copy(g.mem[at:], body)), 0, 0)
	}
	before := g.txAvail
	g.avail(txRing, &g.txAvail, head)
	g.tell(txRing, before, g.txAvail)
	return true
}

// hear is the guest's socket layer.
func (g *driver) hear(h header, body []byte) {
	g.mu.Lock()
	c := g.conns[h.srcPort]
	if h.op == opRequest && c == nil && h.dstPort == driverPort {
		c = g.acceptLocked(h)
	}
	g.mu.Unlock()
	if c == nil {
		if h.op != opReset {
			g.loops.Go(func() { g.send(header{srcPort: h.dstPort, dstPort: h.srcPort, op: opReset}, nil) })
		}
		return
	}
	c.hear(h, body)
}

func (g *driver) forget(c *guestConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conns[c.host] == c {
		delete(g.conns, c.host)
	}
}

// accept gives the guest's end of a connection by the host's port.
func (g *driver) accept(port uint32) (proxy.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.accepted[port]
	if c == nil {
		return nil, errors.New("the guest has not accepted it")
	}
	delete(g.accepted, port)
	return c, nil
}

// guestConn joins a connection to a socket whose other end is the guest's program.
type guestConn struct {
	g    *driver
	host uint32
	sock *net.UnixConn

	mu          sync.Mutex
	cond        *sync.Cond
	in          []byte // from the host, not yet taken by the program
	taken, told uint32
	alloc, free uint32 // the host's
	sent        uint32
	ended, deaf bool // the host sends no more, reads no more
	dead        bool
}

func (g *driver) acceptLocked(h header) *guestConn {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		g.t.Error(err)
		return nil
	}
	c := &guestConn{g: g, host: h.srcPort, sock: unixConn(g.t, pair[0]), alloc: h.alloc, free: h.forwarded}
	c.cond = sync.NewCond(&c.mu)
	g.conns[h.srcPort] = c
	g.accepted[h.srcPort] = unixConn(g.t, pair[1])
	g.loops.Go(c.toHost)
	g.loops.Go(c.toProgram)
	return c
}

// say sends a packet with the connection's credit.
func (c *guestConn) say(op uint16, flags uint32, body []byte) bool {
	c.mu.Lock()
	c.told = c.taken
	h := header{srcPort: driverPort, dstPort: c.host, op: op, flags: flags, alloc: c.g.alloc, forwarded: c.taken}
	c.mu.Unlock()
	return c.g.send(h, body)
}

func (c *guestConn) hear(h header, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.op != opReset {
		c.alloc, c.free = h.alloc, h.forwarded
	}
	switch h.op {
	case opData:
		c.in = append(c.in, body...)
		if len(c.in) > int(c.g.alloc) && !c.g.lies.Load() {
			c.g.t.Errorf("%d bytes wait with room for %d: credit is not kept", len(c.in), c.g.alloc)
		}
	case opShutdown:
		c.ended = c.ended || h.flags&shutSend != 0
		c.deaf = c.deaf || h.flags&shutReceive != 0
	case opReset:
		c.dead = true
	case opCreditRequest:
		c.g.loops.Go(func() { c.say(opCreditUpdate, 0, nil) })
	}
	c.cond.Broadcast()
}

func (c *guestConn) abort() {
	c.mu.Lock()
	c.dead = true
	c.in = nil
	c.mu.Unlock()
	c.cond.Broadcast()
	c.sock.Close()
}

// toProgram gives the program what the host sent, then the end of it.
func (c *guestConn) toProgram() {
	c.say(opResponse, 0, nil)
	lost := false // the program reads no more
	for {
		c.mu.Lock()
		for len(c.in) == 0 && !c.ended && !c.dead {
			c.cond.Wait()
		}
		piece := c.in
		c.in = nil
		ended, deaf, dead := c.ended, c.deaf, c.dead
		c.mu.Unlock()
		if len(piece) == 0 {
			switch {
			case dead || ended && deaf:
				if !dead {
					c.say(opReset, 0, nil)
				}
				c.sock.Close()
				c.g.forget(c)
				return
			case ended:
				c.sock.CloseWrite()
				c.mu.Lock()
				for !c.deaf && !c.dead {
					c.cond.Wait()
				}
				c.mu.Unlock()
			}
			continue
		}
		for len(piece) > 0 { // in parts, so that credit comes back as the program reads
			part := piece[:min(len(piece), 32<<10)]
			piece = piece[len(part):]
			if !lost {
				if _, err := c.sock.Write(part); err != nil {
					lost = true
					c.say(opShutdown, shutReceive, nil)
				}
			}
			c.mu.Lock()
			c.taken += uint32(len(part))
			update := c.taken-c.told >= c.g.alloc/4
			c.mu.Unlock()
			if update {
				c.say(opCreditUpdate, 0, nil)
			}
		}
	}
}

// toHost sends what the program says, as the host has room, then the end of it.
func (c *guestConn) toHost() {
	buf := make([]byte, 4096)
	for {
		n, err := c.sock.Read(buf)
		for part := buf[:n]; len(part) > 0; {
			c.mu.Lock()
			for !c.deaf && !c.dead && c.sent-c.free >= c.alloc {
				c.cond.Wait()
			}
			if c.deaf || c.dead { // nobody hears it
				c.mu.Unlock()
				break
			}
			m := min(uint32(len(part)), c.alloc-(c.sent-c.free))
			c.sent += m
			c.mu.Unlock()
			c.say(opData, 0, part[:m])
			part = part[m:]
		}
		switch {
		case err == io.EOF:
			c.say(opShutdown, shutSend, nil)
			return
		case errors.Is(err, syscall.ECONNRESET): // closed with bytes unread
			c.say(opShutdown, shutSend|shutReceive, nil)
			return
		case err != nil:
			return
		}
	}
}

func newQuietDevice(t testing.TB) *Device {
	d := New(testCID, slog.New(slog.DiscardHandler))
	t.Cleanup(d.Close)
	return d
}

// opener opens connections through the device's link and gives both ends.
func opener(d *Device, g *driver) func(context.Context) (proxy.Conn, proxy.Conn, error) {
	l := d.Link(driverPort)
	return func(ctx context.Context) (proxy.Conn, proxy.Conn, error) {
		c, err := l.Open(ctx)
		if err != nil {
			return nil, nil, err
		}
		peer, err := g.accept(c.LocalAddr().(Addr).Port)
		return c, peer, err
	}
}
