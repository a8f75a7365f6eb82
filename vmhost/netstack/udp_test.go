package netstack

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// udpOnHost answers each datagram with as many as its first byte says.
func udpOnHost(t *testing.T, address string) uint16 {
	t.Helper()
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Skipf("listen on %s: %v", address, err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 65535)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			for i := range int(b[0]) {
				c.WriteTo(append([]byte{byte(i)}, b[1:n]...), from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

func TestDatagrams(t *testing.T) {
	g := plug(t, Config{})
	for _, row := range []struct {
		says, listen string
		size         int
		answers      int
	}{
		{"one for one", "127.0.0.1:0", 100, 1},
		{"several answers to one", "127.0.0.1:0", 100, 5},
		{"one that is larger than an Ethernet frame", "127.0.0.1:0", 9000, 1},
		{"the host's IPv6 loopback, if only that listens", "[::1]:0", 100, 2},
	} {
		t.Run(row.says, func(t *testing.T) {
			c := g.udp(netip.AddrPortFrom(Host, udpOnHost(t, row.listen)))
			text := strings.Repeat("x", row.size-1)
			if _, err := fmt.Fprintf(c, "%c%s", row.answers, text); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 65535)
			for i := range row.answers {
				n, err := c.Read(b)
				if err != nil || n != row.size || int(b[0]) != i || string(b[1:n]) != text {
					t.Fatalf("answer %d is %d bytes, number %d, %v; want %d bytes", i, n, b[0], err, row.size)
				}
			}
		})
	}
}

// A port on which nobody listens is said to be so, by the ICMP message that a socket understands.
func TestNobodyListensForDatagrams(t *testing.T) {
	r := plugRaw(t, Config{})
	nobody, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := nobody.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	nobody.Close()
	for _, row := range []struct {
		says string
		to   netip.AddrPort
	}{
		{"on the host", netip.AddrPortFrom(Host, free)},
		{"on the gateway", netip.AddrPortFrom(Gateway, free)},
		{"link-local, where clouds hand out credentials", netip.MustParseAddrPort("169.254.169.254:80")},
	} {
		u := header.UDP(make([]byte, header.UDPMinimumSize+1))
		u.Encode(&header.UDPFields{SrcPort: 5000, DstPort: row.to.Port(), Length: uint16(len(u))})
		r.send(frame(Guest, row.to.Addr(), uint8(header.UDPProtocolNumber), u))
		p := r.next()
		m := header.ICMPv4(p.Payload())
		quoted := header.IPv4(m.Payload())
		if p.Protocol() != uint8(header.ICMPv4ProtocolNumber) || m.Type() != header.ICMPv4DstUnreachable || m.Code() != header.ICMPv4PortUnreachable {
			t.Errorf("%s: protocol %d, ICMP type %d code %d; want port unreachable", row.says, p.Protocol(), m.Type(), m.Code())
			continue
		}
		ports := header.UDP(quoted.Payload())
		if p.SourceAddress() != to4(row.to.Addr()) || quoted.DestinationAddress() != to4(row.to.Addr()) || ports.SourcePort() != 5000 || ports.DestinationPort() != row.to.Port() {
			t.Errorf("%s: from %s, about %s, ports %d and %d", row.says, p.SourceAddress(), quoted.DestinationAddress(), ports.SourcePort(), ports.DestinationPort())
		}
	}
}

func TestIdleFlowsEnd(t *testing.T) {
	g := plug(t, Config{})
	port := udpOnHost(t, "127.0.0.1:0")
	c := g.udp(netip.AddrPortFrom(Host, port))
	flows := func() int {
		g.n.udp.mu.Lock()
		defer g.n.udp.mu.Unlock()
		return g.n.udp.flows.Len()
	}
	ask := func(answers byte) {
		t.Helper()
		c.Write([]byte{answers, 'x'})
		for range answers {
			if _, err := c.Read(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
		}
		until(t, func() bool { return flows() == 1 })
	}
	ask(0)
	g.n.udp.endIdle(time.Now().Add(unanswered - 5*time.Second))
	if flows() != 1 {
		t.Errorf("a flow ends %s after it was used; want %s", unanswered-5*time.Second, unanswered)
	}
	g.n.udp.endIdle(time.Now().Add(unanswered + time.Second))
	if flows() != 0 {
		t.Errorf("an unanswered flow is there %s after it was used", unanswered+time.Second)
	}
	ask(1) // it begins anew
	g.n.udp.endIdle(time.Now().Add(unanswered + time.Second))
	if flows() != 1 {
		t.Errorf("an answered flow ended %s after it was used; want %s", unanswered+time.Second, answered)
	}
	g.n.udp.endIdle(time.Now().Add(answered + time.Second))
	if flows() != 0 {
		t.Errorf("an answered flow is there %s after it was used", answered+time.Second)
	}
}

// A guest that sends to everybody costs no more than the cap, and who came last is served.
func TestFlowsAreBounded(t *testing.T) {
	g := plug(t, Config{})
	port := udpOnHost(t, "127.0.0.1:0")
	var served atomic.Int64
	for range maxFlows + 50 {
		c := g.udp(netip.AddrPortFrom(Host, port))
		c.Write([]byte{1, 'x'})
		if _, err := c.Read(make([]byte, 10)); err == nil {
			served.Add(1)
		}
		c.Close()
	}
	g.n.udp.mu.Lock()
	defer g.n.udp.mu.Unlock()
	if n := g.n.udp.flows.Len(); n > maxFlows || served.Load() != maxFlows+50 {
		t.Errorf("%d flows are kept, %d were served; want %d at most, and all served", n, served.Load(), maxFlows)
	}
}
