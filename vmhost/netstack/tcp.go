package netstack

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/covedesk/cove/proxy"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Bounds of the guest's TCP connections. What is refused for a bound is dropped, not reset: the guest
// asks again after a second, as it would a server with a full backlog.
const (
	// maxDials is how many connections are being opened at once.
	maxDials = 4096
	// maxDialsTo is how many of them go to one address: one that answers nothing leaves room for the others.
	maxDialsTo = maxDials / 4
	// dialPatience bounds a dial of the host's. The guest's own patience, two minutes with Linux, is not
	// shortened by it: its next SYN dials again.
	dialPatience = 20 * time.Second
	// dialShare is how long a dial keeps its place when all are taken.
	dialShare = time.Second
	// maxConns is how many connections are open at once. Each has a socket of the host's, where 20,000
	// files are a common limit.
	maxConns = 8192
)

// A connection's buffers are large while there are few: a guest that fills all of them makes us keep
// manyConns·largeConn + maxConns·smallConn in each direction, 0.75 GiB.
const (
	manyConns = 256
	largeConn = 1 << 20
	smallConn = 64 << 10
)

// timeWait is how long the stack remembers a connection that it ended first, for the case that its answer
// to the guest's end is lost: long enough for the first repeats. Each costs some KiB, and no bound counts
// them.
const timeWait = 2 * time.Second

// tune sets what the stack's connections start with.
func tune(s *stack.Stack) error {
	sack, retries, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPSynRetriesOption(4), tcpip.TCPModerateReceiveBufferOption(false)
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	for _, option := range []tcpip.SettableTransportProtocolOption{
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: largeConn, Max: largeConn},
		&tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: largeConn, Max: largeConn},
		&sack, &retries, &moderate, &wait,
	} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return errors.New(err.String())
		}
	}
	return nil
}

// tcpForwarder opens on the host what the guest connects to. The guest's connection is accepted when the
// host's is open, so that a refusal is one.
type tcpForwarder struct {
	n      *Network
	accept *tcp.Forwarder

	mu    sync.Mutex // guards all below
	dials map[stack.TransportEndpointID]*opening
	to    map[tcpip.Address]int // of dials
	first *opening              // the oldest of a list
	last  *opening
	conns int
}

// opening is a connection that is being opened, and its place in the list, oldest first.
type opening struct {
	id         stack.TransportEndpointID
	era        *era
	sequence   uint32 // of the guest's SYN
	begun      time.Time
	cancel     context.CancelFunc
	ctx        context.Context
	prev, next *opening
}

func newTCPForwarder(n *Network) *tcpForwarder {
	f := &tcpForwarder{n: n, dials: map[stack.TransportEndpointID]*opening{}, to: map[tcpip.Address]int{}}
	f.accept = tcp.NewForwarder(n.stack, largeConn, 2*maxDials, f.open) // its own bound is never met: ours is
	return f
}

// HandlePacket takes the segments that belong to no connection: only SYNs begin something.
func (f *tcpForwarder) HandlePacket(id stack.TransportEndpointID, p *stack.PacketBuffer) bool {
	h := header.TCP(p.TransportHeader().Slice())
	if len(h) < header.TCPMinimumSize || h.Flags() != header.TCPFlagSyn && h.Flags()&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) != header.TCPFlagSyn {
		return false // the stack resets it
	}
	if len(destinations(from4(id.LocalAddress))) == 0 {
		return false
	}
	o := f.admit(id, h.SequenceNumber())
	if o == nil {
		return true
	}
	if !f.accept.HandlePacket(id, p) {
		f.leave(o)
		o.era.done()
		return false
	}
	return true
}

// renew lets go of a connection that has ended when the guest begins another one with the same addresses
// and ports: where the host's side ended first, the guest's kernel has forgotten the old one and may take its
// port again at once. gVisor keeps the SYN from us, since it looks only for listening sockets (RFC 1122,
// 4.2.2.13, allows to take it), and the guest's patience would end before timeWait did. There is nobody on
// the cable who could hold a SYN back, so it is never an old one. Our reset is for the old connection too:
// it acknowledges nothing of the new one, and is ignored (RFC 9293, 3.10.7.3).
func (f *tcpForwarder) renew(packet header.IPv4, segment header.TCP) {
	if packet.FragmentOffset() != 0 || len(segment) < header.TCPMinimumSize || segment.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
		return
	}
	id := stack.TransportEndpointID{LocalAddress: packet.DestinationAddress(), LocalPort: segment.DestinationPort(), RemoteAddress: packet.SourceAddress(), RemotePort: segment.SourcePort()}
	e, ok := f.n.stack.FindTransportEndpoint(header.IPv4ProtocolNumber, header.TCPProtocolNumber, id, nic).(*tcp.Endpoint)
	if !ok {
		return
	}
	e.LockUser() // what brings it to its end may still be at work
	ended := tcp.EndpointState(e.State()) == tcp.StateTimeWait
	e.UnlockUser()
	if ended {
		e.Abort()
	}
}

// admit gives a new connection its place, or nil where there is none or it has one.
func (f *tcpForwarder) admit(id stack.TransportEndpointID, sequence uint32) *opening {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dials[id] != nil || f.to[id.LocalAddress] >= maxDialsTo || f.conns >= maxConns {
		return nil
	}
	if len(f.dials) >= maxDials {
		if time.Since(f.first.begun) > dialShare {
			f.first.cancel() // whoever waited longest gives way; its guest asks again
		}
		return nil
	}
	e := f.n.begin()
	if e == nil {
		return nil
	}
	o := &opening{id: id, era: e, sequence: sequence, begun: time.Now(), prev: f.last}
	o.ctx, o.cancel = context.WithTimeout(e.ctx, dialPatience)
	if f.last == nil {
		f.first = o
	} else {
		f.last.next = o
	}
	f.last = o
	f.dials[id] = o
	f.to[id.LocalAddress]++
	return o
}

// leave gives the place back.
func (f *tcpForwarder) leave(o *opening) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o.cancel()
	if o.prev == nil {
		f.first = o.next
	} else {
		o.prev.next = o.next
	}
	if o.next == nil {
		f.last = o.prev
	} else {
		o.next.prev = o.prev
	}
	delete(f.dials, o.id)
	if f.to[o.id.LocalAddress]--; f.to[o.id.LocalAddress] == 0 {
		delete(f.to, o.id.LocalAddress)
	}
}

// open runs in a goroutine of its own for each request.
func (f *tcpForwarder) open(r *tcp.ForwarderRequest) {
	id := r.ID()
	f.mu.Lock()
	o := f.dials[id]
	f.mu.Unlock()
	if o == nil { // it was let go between two SYNs of the same connection
		r.Complete(false)
		return
	}
	defer o.era.done()
	out, err := f.dial(o.ctx, netip.AddrPortFrom(from4(id.LocalAddress), id.LocalPort))
	if err != nil {
		f.refuse(r, o, err)
		f.leave(o)
		return
	}
	var queue waiter.Queue
	e, failed := r.CreateEndpoint(&queue)
	r.Complete(false)
	f.mu.Lock()
	f.conns++
	size := largeConn
	if f.conns > manyConns {
		size = smallConn
	}
	f.mu.Unlock()
	f.leave(o)
	defer func() {
		f.mu.Lock()
		f.conns--
		f.mu.Unlock()
	}()
	if failed != nil { // the guest did not answer, or went away
		resetOnClose(out)
		out.Close()
		return
	}
	e.SocketOptions().SetSendBufferSize(int64(size), true)
	e.SocketOptions().SetReceiveBufferSize(int64(size), true)
	e.SocketOptions().SetDelayOption(false)
	e.SocketOptions().SetKeepAlive(true) // a guest that forgot the connection says so
	guest := newGuestConn(&queue, e)
	defer context.AfterFunc(o.era.ctx, func() { resetOnClose(out); guest.abort(); out.Close() })()
	proxy.Join(guest, out, nil)
}

// dial opens the host's side.
func (f *tcpForwarder) dial(ctx context.Context, to netip.AddrPort) (proxy.Conn, error) {
	var err error
	for _, a := range destinations(to.Addr()) {
		var c net.Conn
		c, err = f.n.dial(ctx, "tcp", netip.AddrPortFrom(a, to.Port()).String())
		if err == nil {
			if out, ok := c.(proxy.Conn); ok {
				return out, nil
			}
			c.Close()
			return nil, errors.New("the dialer gives connections that cannot be half-closed")
		}
		if !refused(err) {
			break
		}
	}
	return nil, err
}

// refuse tells the guest what the host was told: a reset for a refusal, an ICMP message for no route, and
// nothing where the host heard nothing, so that the guest's own patience counts.
func (f *tcpForwarder) refuse(r *tcp.ForwarderRequest, o *opening, err error) {
	if code, ok := unreachable(err); ok {
		quoted := make([]byte, 8) // ports and sequence number: by them the guest finds its connection
		binary.BigEndian.PutUint16(quoted, o.id.RemotePort)
		binary.BigEndian.PutUint16(quoted[2:], o.id.LocalPort)
		binary.BigEndian.PutUint32(quoted[4:], o.sequence)
		r.Complete(false)
		f.n.sendUnreachable(code, uint8(header.TCPProtocolNumber), from4(o.id.RemoteAddress), from4(o.id.LocalAddress), quoted)
		return
	}
	silent := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, syscall.ETIMEDOUT)
	r.Complete(!silent)
}
