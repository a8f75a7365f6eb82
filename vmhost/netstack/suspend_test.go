package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/vmhost"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// What is open before a suspension ends with a clear error on both sides, and what begins in it is served
// after it.
func TestSuspend(t *testing.T) {
	hanging, hung := make(chan struct{}), make(chan struct{})
	var d net.Dialer
	g := plug(t, Config{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.HasPrefix(address, outsider.String()) {
			close(hanging)
			<-ctx.Done()
			close(hung)
			return nil, ctx.Err()
		}
		return d.DialContext(ctx, network, address)
	}})
	opened := make(chan *net.TCPConn, 1)
	port := onHost(t, "127.0.0.1:0", func(c *net.TCPConn) { opened <- c })
	both := func(shape func(guest, host proxy.Conn)) (guest, host proxy.Conn) {
		t.Helper()
		guest, err := g.dial(within(t), netip.AddrPortFrom(Host, port))
		if err != nil {
			t.Fatal(err)
		}
		host = <-opened
		for _, c := range []net.Conn{guest, host} {
			t.Cleanup(func() { c.Close() })
			c.SetDeadline(time.Now().Add(patience))
		}
		shape(guest, host)
		return guest, host
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	idleGuest, idleHost := both(func(proxy.Conn, proxy.Conn) {})
	guestEnded, hostReads := both(func(guest, host proxy.Conn) {
		must(guest.CloseWrite())
		_, err := io.ReadAll(host)
		must(err)
	})
	guestReads, hostEnded := both(func(guest, host proxy.Conn) {
		must(host.CloseWrite())
		_, err := io.ReadAll(guest)
		must(err)
	})
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	wg.Go(func() { g.dial(ctx, netip.AddrPortFrom(outsider, 80)) })
	<-hanging
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(err)
	defer socket.Close()
	flow := g.udp(netip.AddrPortFrom(Host, socket.LocalAddr().(*net.UDPAddr).AddrPort().Port()))
	flow.Write([]byte("x"))
	socket.SetDeadline(time.Now().Add(patience))
	_, first, err := socket.ReadFrom(make([]byte, 9))
	must(err)

	if err := g.n.Suspend(within(t)); err != nil {
		t.Fatalf("Suspend = %v", err)
	}
	// The guest has heard of it, and need not say anything to do so.
	for says, c := range map[string]net.Conn{"an idle one, in the guest": idleGuest, "one that the guest had half-closed, in the guest": guestEnded} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: read = %v; want a reset", says, err)
		}
	}
	for says, c := range map[string]net.Conn{"an idle one, on the host": idleHost, "one that the host had half-closed, on the host": hostEnded} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: read = %v; want a reset", says, err)
		}
	}
	for says, c := range map[string]net.Conn{"one that the host had half-closed, in the guest": guestReads, "one that the guest had half-closed, on the host": hostReads} {
		if _, err := c.Write([]byte("x")); err == nil {
			t.Errorf("%s: a write worked; want an error", says)
		}
	}
	<-hung
	cancel() // or it is dialled again
	g.n.tcp.mu.Lock()
	if g.n.tcp.conns != 0 || len(g.n.tcp.dials) != 0 {
		t.Errorf("%d connections and %d dials are left", g.n.tcp.conns, len(g.n.tcp.dials))
	}
	g.n.tcp.mu.Unlock()
	g.n.udp.mu.Lock()
	if left := g.n.udp.flows.Len(); left != 0 {
		t.Errorf("%d UDP flows are left", left)
	}
	g.n.udp.mu.Unlock()

	// The guest asks again for what it asked for meanwhile.
	seen := g.n.stack.Stats().IP.PacketsReceived.Value()
	asleep := make(chan error, 1)
	wg.Go(func() {
		c, err := g.dial(within(t), netip.AddrPortFrom(Host, port))
		if err == nil {
			c.Close()
		}
		asleep <- err
	})
	flow.Write([]byte("lost"))
	until(t, func() bool { return g.n.stack.Stats().IP.PacketsReceived.Value() >= seen+2 })
	must(g.n.Suspend(within(t))) // what came has been dealt with when the guest answers
	select {
	case err := <-asleep:
		t.Errorf("a dial while suspended = %v; want none before it goes on", err)
	case <-opened:
		t.Error("a dial while suspended reached the host")
	default:
	}
	g.n.Resume()
	if err := <-asleep; err != nil {
		t.Errorf("a dial that began while suspended = %v", err)
	}
	(<-opened).Close()
	flow.Write([]byte("y"))
	b := make([]byte, 9)
	m, second, err := socket.ReadFrom(b)
	must(err)
	if string(b[:m]) != "y" || second.String() == first.String() {
		t.Errorf("after it the flow brings %q from %s; want y from another port than %s", b[:m], second, first)
	}
}

// A guest that takes nothing, or has no card, does not hold up the host's side.
func TestSuspendWithoutAGuest(t *testing.T) {
	n, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Suspend(within(t)); err != nil {
		t.Errorf("Suspend without a card = %v", err)
	}
	ours, theirs := cables(t)
	defer theirs.Close()
	go n.Attach(ours, vmhost.FrameStream)
	until(t, n.link.plugged)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := n.Suspend(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Suspend with a guest that does not answer = %v; want that the time is over", err)
	}
}

// A guest that is gone in the middle of a handshake does not hold up the network's end.
func TestCloseAmidAHandshake(t *testing.T) {
	for says, end := range map[string]func(*Network) error{
		"close":   (*Network).Close,
		"suspend": func(n *Network) error { return n.Suspend(within(t)) },
	} {
		r := plugRaw(t, Config{})
		port := onHost(t, "127.0.0.1:0", func(c *net.TCPConn) { io.Copy(c, c); c.Close() })
		syn := header.TCP(make([]byte, header.TCPMinimumSize))
		syn.Encode(&header.TCPFields{SrcPort: 7, DstPort: port, SeqNum: 1, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagSyn, WindowSize: 1000})
		syn.SetChecksum(^syn.CalculateChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, to4(Guest), to4(Host), header.TCPMinimumSize)))
		r.send(frame(Guest, Host, uint8(header.TCPProtocolNumber), syn))
		if answer := header.TCP(r.next().Payload()); answer.Flags() != header.TCPFlagSyn|header.TCPFlagAck {
			t.Fatalf("a SYN is answered with %s", answer.Flags())
		}
		r.unplug()
		begun := time.Now()
		if err := end(r.n); err != nil {
			t.Errorf("%s = %v", says, err)
		}
		if took := time.Since(begun); took > 15*time.Second { // the handshake's own patience is twice that
			t.Errorf("%s took %s; want at once", says, took)
		}
	}
}

// A guest that was saved wakes on another network than the one it was saved on, of another process
// perhaps. Everything is where it was, and of its connections it hears at its next segment that they
// are gone.
func TestAGuestWakesOnAnotherNetwork(t *testing.T) {
	g := plug(t, Config{})
	port := onHost(t, "127.0.0.1:0", func(c *net.TCPConn) { io.Copy(c, c); c.Close() })
	c, err := g.dial(within(t), netip.AddrPortFrom(Host, port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, "x")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	g.unplug()
	other, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	g.plugInto(other)
	io.WriteString(c, "y")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("an old connection after the wake reads %v; want a reset", err)
	}
	c, err = g.dial(within(t), netip.AddrPortFrom(Host, port))
	if err != nil {
		t.Fatalf("a new one = %v", err)
	}
	c.Close()
}

// What a guest keeps of the network is the same for every network there will ever be.
func TestWhatAGuestRemembers(t *testing.T) {
	const mac = "\x5a\x94\xef\xe4\x0c\xdd"
	for range 2 {
		r := plugRaw(t, Config{})
		for _, a := range []netip.Addr{Gateway, Host} {
			if got := r.whoHas(a); got != mac {
				t.Errorf("%s is at %x; want %x", a, got, mac)
			}
		}
		// It renews its lease of a server that has never seen it (RFC 2131, 4.3.2: RENEWING).
		m, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithHwAddr(net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}), dhcpv4.WithClientIP(Guest.AsSlice()))
		if err != nil {
			t.Fatal(err)
		}
		got := r.dhcp(Guest, Gateway, m)
		if got.MessageType() != dhcpv4.MessageTypeAck || !got.YourIPAddr.Equal(Guest.AsSlice()) || !got.Router()[0].Equal(Gateway.AsSlice()) {
			t.Errorf("a renewal gets %s; want the same address of the same gateway", got.Summary())
		}
	}
}

// whoHas asks for the hardware address of an address.
func (r *raw) whoHas(a netip.Addr) tcpip.LinkAddress {
	r.t.Helper()
	r.send(arpFrame(header.ARPRequest, header.EthernetBroadcastAddress, to4(Guest), to4(a)))
	for {
		f := r.frame()
		if answer := header.ARP(f[header.EthernetMinimumSize:]); header.Ethernet(f).Type() == header.ARPProtocolNumber && answer.Op() == header.ARPReply {
			if from := header.Ethernet(f).SourceAddress(); from != tcpip.LinkAddress(answer.HardwareAddressSender()) {
				r.t.Errorf("an answer from %x says %x", from, answer.HardwareAddressSender())
			}
			return tcpip.LinkAddress(answer.HardwareAddressSender())
		}
	}
}
