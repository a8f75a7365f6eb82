package netstack

import (
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Bounds of the guest's UDP flows.
const (
	// maxFlows is how many there are at once. Each has a socket of the host's and two datagrams' room.
	// The one that was idle longest gives way to a new one.
	maxFlows = 1024
	// flowQueue is how many bytes of a flow wait for the host to take them.
	flowQueue = 128 << 10
	// unanswered and answered are how long a flow may be idle: Linux' own choice for a NAT
	// (nf_conntrack_udp_timeout and _stream).
	unanswered = 30 * time.Second
	answered   = 120 * time.Second
	// maxDatagram is the largest payload of UDP over IPv4.
	maxDatagram = 65507
)

// udpForwarder gives each flow of the guest's, from one address and port to another, a socket of the host's.
type udpForwarder struct {
	n      *Network
	accept *udp.Forwarder

	mu    sync.Mutex
	flows list.List // of *flow, the one that was used last first
}

// flow is one socket's worth.
type flow struct {
	f     *udpForwarder
	id    stack.TransportEndpointID
	era   *era
	guest *gonet.UDPConn

	place *list.Element // guarded by f.mu, with used and heard
	used  time.Time
	heard bool // the far side has answered

	mu   sync.Mutex // guards host and rest
	host net.Conn
	rest []netip.Addr // where else its port may be found
	last []byte       // what was sent last and nobody has refused, while there is a rest
}

func newUDPForwarder(n *Network) *udpForwarder {
	f := &udpForwarder{n: n}
	f.accept = udp.NewForwarder(n.stack, f.open)
	n.wg.Go(f.sweep)
	return f
}

func (f *udpForwarder) HandlePacket(id stack.TransportEndpointID, p *stack.PacketBuffer) bool {
	return f.accept.HandlePacket(id, p)
}

// open begins a flow. False makes the stack answer that the port is unreachable. It runs while the
// guest's frames wait, and a UDP dial sends nothing.
func (f *udpForwarder) open(r *udp.ForwarderRequest) bool {
	id := r.ID()
	to := destinations(from4(id.LocalAddress))
	if len(to) == 0 {
		return false
	}
	e := f.n.begin()
	if e == nil {
		return true // it is lost, as on a busy way
	}
	defer e.done()
	host, err := f.n.dial(e.ctx, "udp", netip.AddrPortFrom(to[0], id.LocalPort).String())
	if err != nil {
		code, ok := unreachable(err)
		if !ok {
			code = header.ICMPv4HostUnreachable
		}
		f.n.refuseUDP(code, id)
		return true
	}
	var queue waiter.Queue
	end, failed := r.CreateEndpoint(&queue)
	if failed != nil {
		host.Close()
		return true // two datagrams at once began the same flow: one is lost
	}
	end.SocketOptions().SetReceiveBufferSize(flowQueue, true)
	end.SocketOptions().SetSendBufferSize(flowQueue, true)
	w := &flow{f: f, id: id, era: e, guest: gonet.NewUDPConn(&queue, end), host: host, rest: to[1:]}
	f.add(w)
	e.run(w.outward)
	e.run(w.inward)
	return true
}

func (f *udpForwarder) add(w *flow) {
	f.mu.Lock()
	w.used = time.Now()
	w.place = f.flows.PushFront(w)
	var old *flow
	if f.flows.Len() > maxFlows {
		old = f.flows.Back().Value.(*flow)
		f.remove(old)
	}
	f.mu.Unlock()
	if old != nil {
		old.close()
	}
}

// remove wants f.mu held.
func (f *udpForwarder) remove(w *flow) {
	if w.place != nil {
		f.flows.Remove(w.place)
		w.place = nil
	}
}

// touch says that a flow is in use.
func (w *flow) touch(heard bool) {
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	w.used, w.heard = time.Now(), w.heard || heard
	if w.place != nil {
		w.f.flows.MoveToFront(w.place)
	}
}

// end lets a flow go.
func (w *flow) end() {
	w.f.mu.Lock()
	w.f.remove(w)
	w.f.mu.Unlock()
	w.close()
}

func (w *flow) close() {
	w.guest.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.host.Close()
	w.rest = nil
}

// sweep ends what is idle.
func (f *udpForwarder) sweep() {
	every := time.NewTicker(5 * time.Second)
	defer every.Stop()
	for {
		select {
		case <-every.C:
			f.endIdle(time.Now())
		case <-f.n.ctx.Done():
			return
		}
	}
}

// endIdle ends the flows that are idle at a time.
func (f *udpForwarder) endIdle(now time.Time) {
	var idle []*flow
	f.mu.Lock()
	for e := f.flows.Front(); e != nil; {
		w := e.Value.(*flow)
		e = e.Next()
		limit := unanswered
		if w.heard {
			limit = answered
		}
		if now.Sub(w.used) > limit {
			f.remove(w)
			idle = append(idle, w)
		}
	}
	f.mu.Unlock()
	for _, w := range idle {
		w.close()
	}
}

// outward carries from the guest to the host.
func (w *flow) outward() {
	defer w.end()
	b := make([]byte, maxDatagram)
	for {
		n, err := w.guest.Read(b)
		if err != nil {
			return
		}
		w.touch(false)
		w.mu.Lock()
		host := w.host
		if len(w.rest) > 0 {
			w.last = append(w.last[:0], b[:n]...)
		}
		w.mu.Unlock()
		// An error of the last datagram's, or this one is too large for the way: the next one may pass.
		if _, err := host.Write(b[:n]); errors.Is(err, net.ErrClosed) {
			return
		} else if code, ok := unreachable(err); ok {
			w.f.n.refuseUDP(code, w.id)
		}
	}
}

// inward carries from the host to the guest, any number of answers.
func (w *flow) inward() {
	defer w.end()
	defer context.AfterFunc(w.era.ctx, w.end)()
	b := make([]byte, maxDatagram)
	for {
		w.mu.Lock()
		host := w.host
		w.mu.Unlock()
		n, err := host.Read(b)
		switch {
		case err == nil:
			w.touch(true)
			if _, err := w.guest.Write(b[:n]); err != nil && !w.open() {
				return
			}
		case refused(err):
			if w.elsewhere() {
				continue
			}
			w.f.n.refuseUDP(header.ICMPv4PortUnreachable, w.id)
			return
		case w.open():
			if code, ok := unreachable(err); ok {
				w.f.n.refuseUDP(code, w.id)
			}
			return
		default:
			return
		}
	}
}

// open says whether the flow still has its place.
func (w *flow) open() bool {
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	return w.place != nil
}

// elsewhere moves a flow that was refused, and was never answered, to the next address that there is.
func (w *flow) elsewhere() bool {
	w.f.mu.Lock()
	heard := w.heard
	w.f.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if heard || len(w.rest) == 0 {
		return false
	}
	host, err := w.f.n.dial(w.era.ctx, "udp", netip.AddrPortFrom(w.rest[0], w.id.LocalPort).String())
	if err != nil {
		return false
	}
	w.host.Close()
	w.host, w.rest = host, w.rest[1:]
	host.Write(w.last)
	w.last = nil
	return true
}

// refuseUDP tells the guest that a flow's far side cannot be reached.
func (n *Network) refuseUDP(code header.ICMPv4Code, id stack.TransportEndpointID) {
	quoted := make([]byte, header.UDPMinimumSize)
	binary.BigEndian.PutUint16(quoted, id.RemotePort)
	binary.BigEndian.PutUint16(quoted[2:], id.LocalPort)
	binary.BigEndian.PutUint16(quoted[4:], header.UDPMinimumSize)
	n.sendUnreachable(code, uint8(header.UDPProtocolNumber), from4(id.RemoteAddress), from4(id.LocalAddress), quoted)
}
