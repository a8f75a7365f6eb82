package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/vmhost"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// patience bounds every wait. It is for a machine under load; little here takes a second on a quiet one.
const patience = time.Minute

// guest is a second stack on the other end of the cable.
type guest struct {
	t     *testing.T
	n     *Network
	stack *stack.Stack
	link  *link
	end   net.Conn // the guest's end of the cable
	ends  sync.WaitGroup
}

// plug makes a network and a guest on it. Both are gone when the test ends.
func plug(t *testing.T, c Config) *guest {
	t.Helper()
	n, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	g := &guest{t: t}
	g.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	g.link = newLink(uint32(n.MTU()), func([]byte) bool { return false })
	g.link.mac = "\x52\x54\x00\x12\x34\x56"
	if err := g.stack.CreateNIC(nic, g.link); err != nil {
		t.Fatal(err)
	}
	own := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{Address: to4(Guest), PrefixLen: 24}}
	if err := g.stack.AddProtocolAddress(nic, own, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	g.stack.SetSpoofing(nic, true) // a guest may claim anything
	everywhere, _ := tcpip.NewSubnet(tcpip.AddrFrom4([4]byte{}), tcpip.MaskFromBytes(make([]byte, 4)))
	local, _ := tcpip.NewSubnet(to4(Subnet.Addr()), tcpip.MaskFromBytes([]byte{255, 255, 255, 0}))
	g.stack.SetRouteTable([]tcpip.Route{{Destination: local, NIC: nic}, {Destination: everywhere, Gateway: to4(Gateway), NIC: nic}})
	g.plugInto(n)
	t.Cleanup(func() { g.unplug(); g.stack.Destroy() })
	return g
}

func (g *guest) plugInto(n *Network) {
	g.n = n
	card, end := cables(g.t)
	g.end = end
	g.ends.Go(func() { n.Attach(card, vmhost.FrameStream) })
	g.ends.Go(func() { g.link.serve(end, vmhost.FrameStream) })
	until(g.t, func() bool { return n.link.plugged() && g.link.plugged() }) // a first frame that is lost costs a second
}

func (g *guest) unplug() {
	g.end.Close()
	g.ends.Wait()
}

// cables is a connected pair of sockets, as a driver has with its hypervisor.
func cables(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// dial connects from the guest.
func (g *guest) dial(ctx context.Context, to netip.AddrPort) (proxy.Conn, error) {
	return g.dialFrom(ctx, 0, to)
}

// dialFrom connects from a port of the guest's; 0 is any.
func (g *guest) dialFrom(ctx context.Context, port uint16, to netip.AddrPort) (proxy.Conn, error) {
	var queue waiter.Queue
	e, err := g.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
	if err != nil {
		return nil, errors.New(err.String())
	}
	if port != 0 {
		if err := e.Bind(tcpip.FullAddress{NIC: nic, Addr: to4(Guest), Port: port}); err != nil {
			e.Close()
			return nil, errors.New(err.String())
		}
	}
	entry, done := waiter.NewChannelEntry(waiter.WritableEvents)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	err = e.Connect(tcpip.FullAddress{NIC: nic, Addr: to4(to.Addr()), Port: to.Port()})
	if _, is := err.(*tcpip.ErrConnectStarted); is {
		select {
		case <-done:
			err = e.LastError()
		case <-ctx.Done():
			e.Close()
			return nil, ctx.Err()
		}
	}
	if err != nil {
		e.Close()
		return nil, errors.New(err.String())
	}
	return newGuestConn(&queue, e), nil
}

// udp is a socket of the guest's that is connected to an address.
func (g *guest) udp(to netip.AddrPort) *gonet.UDPConn {
	g.t.Helper()
	c, err := gonet.DialUDP(g.stack, nil, &tcpip.FullAddress{NIC: nic, Addr: to4(to.Addr()), Port: to.Port()}, ipv4.ProtocolNumber)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// onHost listens on an address of the host's loopback and hands every connection to serve.
func onHost(t *testing.T, address string, serve func(*net.TCPConn)) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("listen on %s: %v", address, err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c.(*net.TCPConn))
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}
