// Package netstack is the machine's network, in this process and without any privilege: the guest's
// packets end in a TCP/IP stack of our own, and what it asks for is done by ordinary sockets of the
// user's, so that it works wherever the user's own programs do, VPNs included. The guest finds a gateway,
// DHCP, DNS that answers as the host does, and one address whose ports are the host's own loopback. Nothing
// else of the host's loopback can be reached, by no address; everything that a guest can make us keep
// is bounded; and nothing has to be told when the host's network changes.
package netstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/covedesk/cove/vmhost"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// The addresses of the network. No host that the user wants to reach may be in it; this is the subnet
// of podman machine and CRC, which is rare elsewhere, and outside docker's own default pools as
// long as the guest has it on its card.
var (
	Subnet  = netip.MustParsePrefix("192.168.127.0/24")
	Gateway = netip.MustParseAddr("192.168.127.1")
	Guest   = netip.MustParseAddr("192.168.127.2")
	// Host is where the host's loopback is found: host.docker.internal.
	Host = netip.MustParseAddr("192.168.127.254")
)

// LargeMTU is the largest packet there can be: IPv4's limit, and 16 bytes less for what cards add
// (QEMU's host_mtu goes no further). Under emulation it is worth six to ten times the throughput of 1500.
const LargeMTU = 65520

// nic is the stack's only one.
const nic tcpip.NICID = 1

// Dialer opens the guest's connections on the host: network is "tcp" or "udp", address an address and a
// port. A TCP connection must end its directions separately: see proxy.Conn.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Config is what a network is made from. The zero value is the host's own.
type Config struct {
	MTU      int      // of the guest's card; 0: LargeMTU
	Dial     Dialer   // nil: the host's sockets
	Resolver Resolver // nil: the host's
	Ping     Pinger   // nil: the host's, if it lets users ping
	Log      *slog.Logger
}

// Network is a running network.
type Network struct {
	mtu   int
	dial  Dialer
	log   *slog.Logger
	stack *stack.Stack
	link  *link
	tcp   *tcpForwarder
	udp   *udpForwarder
	echo  *echo

	ctx    context.Context // ends with the network
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once

	mu     sync.Mutex // guards all below, and wg's first steps
	closed bool
	era    *era // what the guest begins belongs to it; nil while suspended
}

var _ vmhost.Network = (*Network)(nil)

// New makes a network. Nothing is opened on the host before the guest asks.
func New(c Config) (*Network, error) {
	if c.MTU == 0 {
		c.MTU = LargeMTU
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Resolver == nil {
		c.Resolver = SystemResolver()
	}
	if c.Ping == nil {
		c.Ping = newSystemPinger()
	}
	if c.MTU < 576 || c.MTU > LargeMTU {
		return nil, fmt.Errorf("make the network: an MTU of %d is not in 576 to %d", c.MTU, LargeMTU)
	}
	n := &Network{mtu: c.MTU, dial: c.Dial, log: c.Log}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.Resume()
	if err := n.build(c); err != nil {
		n.Close()
		return nil, fmt.Errorf("make the network: %w", err)
	}
	return n, nil
}

func (n *Network) build(c Config) error {
	n.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC, udp.NewProtocol, icmp.NewProtocol4},
	})
	if err := tune(n.stack); err != nil {
		return err
	}
	n.echo = newEcho(n, c.Ping)
	n.link = newLink(uint32(n.mtu), n.intercept)
	if err := n.stack.CreateNIC(nic, n.link); err != nil {
		return errors.New(err.String())
	}
	for _, a := range []netip.Addr{Gateway, Host} {
		address := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{Address: to4(a), PrefixLen: Subnet.Bits()}}
		if err := n.stack.AddProtocolAddress(nic, address, stack.AddressProperties{}); err != nil {
			return errors.New(err.String())
		}
	}
	// It takes packets for every address and answers from it: it is the rest of the world.
	n.stack.SetPromiscuousMode(nic, true)
	n.stack.SetSpoofing(nic, true)
	everywhere, err := tcpip.NewSubnet(tcpip.AddrFrom4([4]byte{}), tcpip.MaskFromBytes(make([]byte, 4)))
	if err != nil {
		return err
	}
	n.stack.SetRouteTable([]tcpip.Route{{Destination: everywhere, NIC: nic}})

	n.tcp = newTCPForwarder(n)
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, n.tcp.HandlePacket)
	n.udp = newUDPForwarder(n)
	n.stack.SetTransportProtocolHandler(udp.ProtocolNumber, n.udp.HandlePacket)
	if err := n.serveDHCP(); err != nil {
		return err
	}
	return n.serveDNS(c.Resolver)
}

// MTU is the largest packet.
func (n *Network) MTU() int { return n.mtu }

// Attach plugs a card in: see vmhost.Network. A network that was suspended goes on.
func (n *Network) Attach(conn net.Conn, framing vmhost.Framing) error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		conn.Close()
		return fmt.Errorf("attach a network card: the network is closed: %w", net.ErrClosed)
	}
	n.wg.Add(1) // what the guest's frames begin counts on it
	n.mu.Unlock()
	defer n.wg.Done()
	n.Resume()
	stop := context.AfterFunc(n.ctx, func() { conn.Close() })
	defer stop()
	return n.link.serve(conn, framing)
}

// Close ends every connection and waits until nothing of the network is left.
func (n *Network) Close() error {
	n.once.Do(func() {
		n.mu.Lock()
		n.closed = true
		n.mu.Unlock()
		n.cancel()
		if n.stack == nil {
			return
		}
		n.reset(&n.wg)
		n.stack.Destroy()
	})
	return nil
}

func to4(a netip.Addr) tcpip.Address { return tcpip.AddrFrom4(a.As4()) }

// from4 is an address of the stack's as the standard library has it.
func from4(a tcpip.Address) netip.Addr {
	if a.Len() != 4 {
		return netip.Addr{}
	}
	return netip.AddrFrom4(a.As4())
}
