package netstack

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	xipv4 "golang.org/x/net/ipv4"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Bounds of the guest's pings. A ping beyond them is lost, as on a busy router.
const (
	maxPings     = 256
	pingPatience = 10 * time.Second
)

// Pinger sends an echo request with a time to live and gives the payload of the answer. It ends with the
// context. ErrNoPing says that this host does not let its users ping.
type Pinger func(ctx context.Context, to netip.Addr, ttl uint8, payload []byte) ([]byte, error)

// ErrNoPing says that the host does not let us ping.
var ErrNoPing = errors.New("this host does not let its users ping")

// newSystemPinger pings by the system's sockets for unprivileged users: icmp(7) on Linux, where
// net.ipv4.ping_group_range says who may, and the same on macOS. Windows has none. Each ping has a socket
// of its own, so that a change of the host's network needs no care.
func newSystemPinger() Pinger {
	return func(ctx context.Context, to netip.Addr, ttl uint8, payload []byte) ([]byte, error) {
		c, err := icmp.ListenPacket("udp4", "0.0.0.0")
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoPing, err)
		}
		defer c.Close()
		defer context.AfterFunc(ctx, func() { c.Close() })()
		if err := c.IPv4PacketConn().SetTTL(int(ttl)); err != nil {
			return nil, fmt.Errorf("ping %s: %w", to, err)
		}
		b, err := (&icmp.Message{Type: xipv4.ICMPTypeEcho, Body: &icmp.Echo{Seq: 1, Data: payload}}).Marshal(nil)
		if err != nil {
			return nil, fmt.Errorf("ping %s: %w", to, err)
		}
		if _, err := c.WriteTo(b, &net.UDPAddr{IP: to.AsSlice()}); err != nil {
			return nil, fmt.Errorf("ping %s: %w", to, err)
		}
		answer := make([]byte, len(b)+64)
		for {
			n, from, err := c.ReadFrom(answer)
			if err != nil {
				return nil, fmt.Errorf("ping %s: %w", to, errors.Join(ctx.Err(), err))
			}
			m, err := icmp.ParseMessage(1, answer[:n])
			if err != nil || m.Type != xipv4.ICMPTypeEchoReply || from.(*net.UDPAddr).AddrPort().Addr().Unmap() != to {
				continue
			}
			if e, ok := m.Body.(*icmp.Echo); ok && e.Seq == 1 {
				return e.Data, nil
			}
		}
	}
}

// echo answers the guest's pings: for hosts outside by pinging them.
type echo struct {
	n     *Network
	ping  Pinger
	slots chan struct{}

	mu    sync.Mutex
	asked map[[2]uint16]chan struct{} // by the identifier and sequence of our own pings of the guest
}

func newEcho(n *Network, ping Pinger) *echo {
	return &echo{n: n, ping: ping, slots: make(chan struct{}, maxPings), asked: map[[2]uint16]chan struct{}{}}
}

// guest makes a ping of the guest: what sends it, what closes when it is answered, and what gives it up.
// Frames pass each other nowhere on the way, so that the guest has then had all that was sent before.
func (e *echo) guest() (send func(), answered <-chan struct{}, forget func()) {
	key := [2]uint16{uint16(rand.Uint32()), uint16(rand.Uint32())}
	heard := make(chan struct{})
	e.mu.Lock()
	e.asked[key] = heard
	e.mu.Unlock()
	m := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize))
	m.SetType(header.ICMPv4Echo)
	m.SetIdent(key[0])
	m.SetSequence(key[1])
	return func() { e.n.sendICMP(Gateway, Guest, m) }, heard, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.asked, key)
	}
}

// heard takes the guest's answer.
func (e *echo) heard(ident, sequence uint16) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := [2]uint16{ident, sequence}
	if heard := e.asked[key]; heard != nil {
		close(heard)
		delete(e.asked, key)
	}
}

// intercept takes what the stack must not answer in somebody else's name: it would answer pings of every
// address there is. It also drops what is for nobody.
func (n *Network) intercept(packet []byte) bool {
	h := header.IPv4(packet)
	if !h.IsValid(len(packet)) {
		return true
	}
	to := from4(h.DestinationAddress())
	body := packet[h.HeaderLength():h.TotalLength()]
	if to.IsMulticast() || to == broadcast {
		u := header.UDP(body)
		return h.More() || h.FragmentOffset() != 0 || h.Protocol() != uint8(header.UDPProtocolNumber) || len(u) < header.UDPMinimumSize || u.DestinationPort() != dhcpPort
	}
	switch h.Protocol() {
	case uint8(header.ICMPv4ProtocolNumber):
	case uint8(header.TCPProtocolNumber):
		n.tcp.renew(h, header.TCP(body))
		return false
	default:
		return false
	}
	i := header.ICMPv4(body)
	switch {
	case h.More() || h.FragmentOffset() != 0 || len(i) < header.ICMPv4MinimumSize:
		return true
	case i.Type() == header.ICMPv4EchoReply && to == Gateway:
		n.echo.heard(i.Ident(), i.Sequence())
		return true
	case i.Type() == header.ICMPv4Echo && to != Gateway && to != Host:
		n.echo.request(from4(h.SourceAddress()), to, h.TTL(), i)
		return true
	default: // the guest's own errors belong to connections of the stack's
		return i.Type() != header.ICMPv4Echo && i.Type() != header.ICMPv4DstUnreachable
	}
}

// broadcast is the limited one; DHCP needs it.
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// request pings for the guest, if there is a place for it.
func (e *echo) request(guest, to netip.Addr, ttl uint8, asked header.ICMPv4) {
	quoted := append([]byte(nil), asked[:header.ICMPv4MinimumSize]...)
	if !outside(to) {
		e.n.sendUnreachable(header.ICMPv4HostProhibited, uint8(header.ICMPv4ProtocolNumber), guest, to, quoted)
		return
	}
	select {
	case e.slots <- struct{}{}:
	default:
		return
	}
	era := e.n.begin()
	if era == nil {
		<-e.slots
		return
	}
	id, sequence, payload := asked.Ident(), asked.Sequence(), append([]byte(nil), asked.Payload()...)
	go func() {
		defer era.done()
		defer func() { <-e.slots }()
		ctx, cancel := context.WithTimeout(era.ctx, pingPatience)
		defer cancel()
		answer, err := e.ping(ctx, to, ttl, payload)
		if err == nil {
			m := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize+len(answer)))
			m.SetType(header.ICMPv4EchoReply)
			m.SetIdent(id)
			m.SetSequence(sequence)
			copy(m.Payload(), answer)
			e.n.sendICMP(to, guest, m)
			return
		}
		code, known := unreachable(err)
		if errors.Is(err, ErrNoPing) {
			code, known = header.ICMPv4HostProhibited, true
		}
		if known {
			e.n.sendUnreachable(code, uint8(header.ICMPv4ProtocolNumber), guest, to, quoted)
		}
	}()
}

// sendUnreachable tells the guest that what it sent to an address did not get there (RFC 792). quoted are
// the first 8 bytes behind the IP header of what it sent.
func (n *Network) sendUnreachable(code header.ICMPv4Code, protocol uint8, guest, to netip.Addr, quoted []byte) {
	from := Gateway
	if code == header.ICMPv4PortUnreachable {
		from = to
	}
	m := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize+header.IPv4MinimumSize+len(quoted)))
	m.SetType(header.ICMPv4DstUnreachable)
	m.SetCode(code)
	h := header.IPv4(m.Payload())
	h.Encode(&header.IPv4Fields{TotalLength: uint16(header.IPv4MinimumSize + len(quoted)), TTL: 64, Protocol: protocol, SrcAddr: to4(guest), DstAddr: to4(to)})
	h.SetChecksum(^h.CalculateChecksum())
	copy(h[header.IPv4MinimumSize:], quoted)
	n.sendICMP(from, guest, m)
}

// sendICMP sends a message to the guest. It is lost where the guest has no card or does not say where the
// address is.
func (n *Network) sendICMP(from, to netip.Addr, m header.ICMPv4) {
	m.SetChecksum(0)
	m.SetChecksum(^checksum.Checksum(m, 0))
	r, err := n.stack.FindRoute(nic, to4(from), to4(to), ipv4.ProtocolNumber, false)
	if err != nil {
		return
	}
	defer r.Release()
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: int(r.MaxHeaderLength()), Payload: buffer.MakeWithData(m)})
	defer p.DecRef()
	r.WritePacket(stack.NetworkHeaderParams{Protocol: tcpip.TransportProtocolNumber(header.ICMPv4ProtocolNumber), TTL: 64}, p)
}
