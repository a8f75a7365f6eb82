package netstack

import (
	"errors"
	"net"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	dhcpPort       = 67
	dhcpClientPort = 68
)

// serveDHCP gives the guest its address (RFC 2131). There is one card and so one lease, for whoever asks:
// nothing is kept. gvisor-tap-vsock's server keeps a lease for each address that a guest claims.
func (n *Network) serveDHCP() error {
	var queue waiter.Queue
	e, err := n.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
	if err != nil {
		return errors.New("serve DHCP: " + err.String())
	}
	e.SocketOptions().SetBroadcast(true)
	if err := e.Bind(tcpip.FullAddress{NIC: nic, Port: dhcpPort}); err != nil {
		return errors.New("serve DHCP: " + err.String())
	}
	conn := gonet.NewUDPConn(&queue, e)
	n.wg.Go(func() {
		<-n.ctx.Done()
		conn.Close()
	})
	n.wg.Go(func() {
		b := make([]byte, 2048)
		for {
			size, _, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			asked, err := dhcpv4.FromBytes(b[:size])
			if err != nil || asked.OpCode != dhcpv4.OpcodeBootRequest {
				continue
			}
			if answer := n.lease(asked); answer != nil {
				conn.WriteTo(answer.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpClientPort})
			}
		}
	})
	return nil
}

// lease answers a request; nil is silence.
func (n *Network) lease(asked *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	kind := map[dhcpv4.MessageType]dhcpv4.MessageType{dhcpv4.MessageTypeDiscover: dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeRequest: dhcpv4.MessageTypeAck}[asked.MessageType()]
	if kind == dhcpv4.MessageTypeNone {
		return nil
	}
	if want := asked.RequestedIPAddress(); kind == dhcpv4.MessageTypeAck && want != nil && !want.IsUnspecified() && !want.Equal(Guest.AsSlice()) {
		kind = dhcpv4.MessageTypeNak
	}
	with := []dhcpv4.Modifier{dhcpv4.WithMessageType(kind), dhcpv4.WithServerIP(Gateway.AsSlice()), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(Gateway.AsSlice()))}
	if kind != dhcpv4.MessageTypeNak {
		with = append(with, dhcpv4.WithYourIP(Guest.AsSlice()), dhcpv4.WithLeaseTime(uint32((24*time.Hour)/time.Second)),
			dhcpv4.WithNetmask(net.CIDRMask(Subnet.Bits(), 32)), dhcpv4.WithRouter(Gateway.AsSlice()), dhcpv4.WithDNS(Gateway.AsSlice()),
			dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{byte(n.mtu >> 8), byte(n.mtu)}))
	}
	answer, err := dhcpv4.NewReplyFromRequest(asked, with...)
	if err != nil {
		return nil
	}
	return answer
}
