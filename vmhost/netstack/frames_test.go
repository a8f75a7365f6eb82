package netstack

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/covedesk/cove/vmhost"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func netipPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// frame is an IPv4 packet of the guest's in a frame.
func frame(from, to netip.Addr, protocol uint8, body []byte) []byte {
	b := make([]byte, header.EthernetMinimumSize+header.IPv4MinimumSize+len(body))
	header.Ethernet(b).Encode(&header.EthernetFields{SrcAddr: "\x52\x54\x00\x12\x34\x56", DstAddr: gatewayMAC, Type: header.IPv4ProtocolNumber})
	h := header.IPv4(b[header.EthernetMinimumSize:])
	h.Encode(&header.IPv4Fields{TotalLength: uint16(header.IPv4MinimumSize + len(body)), TTL: 64, Protocol: protocol, SrcAddr: to4(from), DstAddr: to4(to)})
	h.SetChecksum(^h.CalculateChecksum())
	copy(h[header.IPv4MinimumSize:], body)
	return b
}

// raw is a cable without a stack on it. It answers ARP, and next gives the next IPv4 packet.
type raw struct {
	t      *testing.T
	n      *Network
	conn   net.Conn
	unplug func()
}

func plugRaw(t *testing.T, c Config) *raw {
	t.Helper()
	n, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := cables(t)
	done := make(chan struct{})
	go func() { defer close(done); n.Attach(ours, vmhost.FrameStream) }()
	unplug := func() { theirs.Close(); <-done }
	t.Cleanup(func() { unplug(); n.Close() })
	theirs.SetDeadline(time.Now().Add(patience))
	return &raw{t, n, theirs, unplug}
}

func (r *raw) send(f []byte) {
	r.t.Helper()
	if _, err := r.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(f))), f...)); err != nil {
		r.t.Fatal(err)
	}
}

// frame gives the next frame of any kind.
func (r *raw) frame() []byte {
	r.t.Helper()
	var head [4]byte
	if _, err := io.ReadFull(r.conn, head[:]); err != nil {
		r.t.Fatal("no frame came:", err)
	}
	f := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(r.conn, f); err != nil {
		r.t.Fatal(err)
	}
	return f
}

func (r *raw) next() header.IPv4 {
	r.t.Helper()
	for {
		f := r.frame()
		body := f[header.EthernetMinimumSize:]
		switch header.Ethernet(f).Type() {
		case header.IPv4ProtocolNumber:
			return header.IPv4(body)
		case header.ARPProtocolNumber:
			asked := header.ARP(body)
			r.send(arpFrame(header.ARPReply, gatewayMAC, tcpip.AddrFromSlice(asked.ProtocolAddressTarget()), tcpip.AddrFromSlice(asked.ProtocolAddressSender())))
		}
	}
}

// arpFrame is a frame of the guest's that asks or answers.
func arpFrame(op header.ARPOp, to tcpip.LinkAddress, sender, target tcpip.Address) []byte {
	const own = tcpip.LinkAddress("\x52\x54\x00\x12\x34\x56")
	f := make([]byte, header.EthernetMinimumSize+header.ARPSize)
	header.Ethernet(f).Encode(&header.EthernetFields{SrcAddr: own, DstAddr: to, Type: header.ARPProtocolNumber})
	a := header.ARP(f[header.EthernetMinimumSize:])
	a.SetIPv4OverEthernet()
	a.SetOp(op)
	copy(a.HardwareAddressSender(), own)
	copy(a.ProtocolAddressSender(), sender.AsSlice())
	if op == header.ARPReply {
		copy(a.HardwareAddressTarget(), to)
	}
	copy(a.ProtocolAddressTarget(), target.AsSlice())
	return f
}

// dhcp sends a message and gives the answer.
func (r *raw) dhcp(from, to netip.Addr, m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	r.t.Helper()
	body := m.ToBytes()
	u := header.UDP(make([]byte, header.UDPMinimumSize+len(body)))
	u.Encode(&header.UDPFields{SrcPort: dhcpClientPort, DstPort: dhcpPort, Length: uint16(len(u))})
	copy(u.Payload(), body)
	r.send(frame(from, to, uint8(header.UDPProtocolNumber), u))
	got, err := dhcpv4.FromBytes(header.UDP(r.next().Payload()).Payload())
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

func echoRequest(payload string) []byte {
	m := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize+len(payload)))
	m.SetType(header.ICMPv4Echo)
	m.SetIdent(7)
	m.SetSequence(9)
	copy(m.Payload(), payload)
	m.SetChecksum(^checksum.Checksum(m, 0))
	return m
}

// Nobody is answered for: a ping gets what really came back.
func TestPings(t *testing.T) {
	there, nobody, forbidden := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("203.0.113.3")
	r := plugRaw(t, Config{Ping: func(ctx context.Context, to netip.Addr, ttl uint8, payload []byte) ([]byte, error) {
		switch {
		case to == there && ttl == 64:
			return payload, nil
		case to == nobody:
			return nil, &net.OpError{Op: "write", Err: syscall.EHOSTUNREACH}
		case to == forbidden:
			return nil, ErrNoPing
		}
		return nil, errors.New("unexpected")
	}})
	for _, row := range []struct {
		says string
		to   netip.Addr
		kind header.ICMPv4Type
		code header.ICMPv4Code
	}{
		{"a host that answers", there, header.ICMPv4EchoReply, 0},
		{"a host to which there is no way", nobody, header.ICMPv4DstUnreachable, header.ICMPv4HostUnreachable},
		{"a host of hosts that may not be pinged from here", forbidden, header.ICMPv4DstUnreachable, header.ICMPv4HostProhibited},
		{"an address of nobody's on the guest's own link", netip.MustParseAddr("192.168.127.99"), header.ICMPv4DstUnreachable, header.ICMPv4HostProhibited},
		{"the gateway", Gateway, header.ICMPv4EchoReply, 0},
		{"the host", Host, header.ICMPv4EchoReply, 0},
	} {
		r.send(frame(Guest, row.to, uint8(header.ICMPv4ProtocolNumber), echoRequest("payload")))
		p := r.next()
		m := header.ICMPv4(p.Payload())
		if p.DestinationAddress() != to4(Guest) || m.Type() != row.kind || m.Code() != row.code || checksum.Checksum(m, 0) != 0xffff {
			t.Errorf("%s: ICMP type %d code %d; want type %d code %d and a right checksum", row.says, m.Type(), m.Code(), row.kind, row.code)
		}
		if row.kind == header.ICMPv4EchoReply && (p.SourceAddress() != to4(row.to) || m.Ident() != 7 || m.Sequence() != 9 || string(m.Payload()) != "payload") {
			t.Errorf("%s: the answer is from %s, %d, %d, %q; want the guest's own", row.says, p.SourceAddress(), m.Ident(), m.Sequence(), m.Payload())
		}
	}
}

func TestDHCP(t *testing.T) {
	r := plugRaw(t, Config{MTU: 9000})
	for _, row := range []struct {
		says string
		with []dhcpv4.Modifier
		want dhcpv4.MessageType
	}{
		{"a discovery gets an offer", []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover)}, dhcpv4.MessageTypeOffer},
		{"a request is granted", []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest)}, dhcpv4.MessageTypeAck},
		{"a request for another address is not", []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 1, 1, 1)))}, dhcpv4.MessageTypeNak},
	} {
		m, err := dhcpv4.New(append(row.with, dhcpv4.WithHwAddr(net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}))...)
		if err != nil {
			t.Fatal(err)
		}
		got := r.dhcp(netip.IPv4Unspecified(), broadcast, m)
		if got.MessageType() != row.want {
			t.Errorf("%s: %s; want %s", row.says, got.MessageType(), row.want)
		}
		mtu := got.Options.Get(dhcpv4.OptionInterfaceMTU)
		if row.want != dhcpv4.MessageTypeNak && (!got.YourIPAddr.Equal(Guest.AsSlice()) || len(got.Router()) != 1 || !got.DNS()[0].Equal(Gateway.AsSlice()) || len(mtu) != 2 || binary.BigEndian.Uint16(mtu) != 9000) {
			t.Errorf("%s: %s", row.says, got.Summary())
		}
	}
}

// FuzzFrames gives the network a guest's frames. It must not crash, must not stop to serve, and must dial
// nothing but what policy allows.
func FuzzFrames(f *testing.F) {
	f.Add(frame(Guest, Gateway, 1, echoRequest("x")))
	f.Add(frame(netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1"), 6, make([]byte, 20)))
	f.Add(frame(Guest, netip.MustParseAddr("203.0.113.1"), 17, []byte{0, 7, 0, 7, 0, 9, 0, 0, 1}))
	syn := header.TCP(make([]byte, header.TCPMinimumSize))
	syn.Encode(&header.TCPFields{SrcPort: 7, DstPort: 80, SeqNum: 1, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagSyn, WindowSize: 1000})
	f.Add(frame(Guest, netip.MustParseAddr("0.0.0.0"), 6, syn))
	f.Add(frame(Guest, netip.MustParseAddr("203.0.113.1"), 6, syn))
	f.Add(frame(Guest, broadcast, 17, make([]byte, 300)))
	n, err := New(Config{
		Dial: func(_ context.Context, _, address string) (net.Conn, error) {
			to := netip.MustParseAddrPort(address).Addr()
			if !to.IsLoopback() && !outside(to) {
				panic("the guest made us dial " + address)
			}
			return nil, syscall.ECONNREFUSED
		},
		Ping: func(_ context.Context, to netip.Addr, _ uint8, _ []byte) ([]byte, error) {
			if !outside(to) {
				panic("the guest made us ping " + to.String())
			}
			return nil, ErrNoPing
		},
	})
	if err != nil {
		f.Fatal(err)
	}
	ours, theirs := net.Pipe()
	go n.Attach(ours, vmhost.FrameStream)
	go io.Copy(io.Discard, theirs)
	f.Cleanup(func() { theirs.Close(); n.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > maxFrame {
			return
		}
		theirs.SetWriteDeadline(time.Now().Add(patience))
		if _, err := theirs.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)); err != nil {
			t.Fatal("the network takes no frames any more:", err)
		}
	})
}
