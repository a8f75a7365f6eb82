package ports

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
)

const patience = 30 * time.Second

// guest plays the guest: it connects to the address that it is asked for, which is on this machine.
type guest struct{}

func (guest) Dial(ctx context.Context, service string) (proxy.Conn, error) {
	network, address := protocol.ParseConnect(strings.TrimPrefix(service, protocol.ServiceConnect+"/"))
	out, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if network == "tcp" {
		return out.(*net.TCPConn), nil
	}
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	go func() { RelayDatagrams(Datagrams(theirs), out) }()
	return ours, nil
}

// pair is a connected pair of streams.
func pair() (*net.TCPConn, *net.TCPConn, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	a, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	b, err := l.Accept()
	if err != nil {
		return nil, nil, err
	}
	return a.(*net.TCPConn), b.(*net.TCPConn), nil
}

// asleep is a Publisher without a guest yet.
func asleep(t *testing.T, wake func(netip.Addr) bool) *Publisher {
	p := New(Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Wake: wake})
	t.Cleanup(p.Close)
	return p
}

func newPublisher(t *testing.T) *Publisher {
	p := asleep(t, nil)
	p.Lead(guest{})
	return p
}

// freePort is a port of the protocol that nobody has on 127.0.0.1.
func freePort(t *testing.T, network string) string {
	t.Helper()
	for range 100 {
		// Not one that the system gives to connections: another test's may have it a moment later.
		port := strconv.Itoa(20000 + rand.IntN(12000))
		var c io.Closer
		var err error
		if network == "tcp" {
			c, err = net.Listen("tcp4", "127.0.0.1:"+port)
		} else {
			c, err = net.ListenPacket("udp4", "127.0.0.1:"+port)
		}
		if err == nil {
			c.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return ""
}

// echoTCP answers all that it gets with "echo " before it, once the client has ended its side.
func echoTCP(t *testing.T) string { t.Helper(); return echoAt(t, "127.0.0.1:0") }

func echoAt(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b, _ := io.ReadAll(c)
				fmt.Fprintf(c, "echo %s", b)
			}()
		}
	}()
	return l.Addr().String()
}

func echoUDP(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, maxPayload)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(append([]byte("echo "), b[:n]...), from)
		}
	}()
	return c.LocalAddr().String()
}

func ask(t *testing.T, address, text string) (string, error) {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	// A reset is told once, and may be told to the write: a read after it sees a plain end.
	_, wrote := io.WriteString(c, text)
	shut := c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	return string(b), errors.Join(wrote, shut, err)
}

func kind(err error) string {
	var e *protocol.AskError
	if errors.As(err, &e) {
		return e.Kind
	}
	return fmt.Sprint(err)
}

func TestAPortCarriesAStreamWithItsHalfClose(t *testing.T) {
	p := newPublisher(t)
	port := freePort(t, "tcp")
	if err := p.Bind(protocol.Bind{Key: "k", Protocol: "tcp", Address: "127.0.0.1:" + port, Target: echoTCP(t)}); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		if got, err := ask(t, net.JoinHostPort(host, port), "hello"); got != "echo hello" || err != nil {
			t.Errorf("the port on %s answered %q, %v", host, got, err)
		}
	}
	list := p.List()
	if len(list) != 1 || list[0].Total != 2 || list[0].Inward != 10 || list[0].Outward != 20 || list[0].Also != "[::1]:"+port {
		t.Errorf("List() = %+v; want 2 connections, 10 bytes in, 20 out, and ::1", list)
	}
}

func TestWhatConnectsBeforeTheTargetIsKnownIsServedThen(t *testing.T) {
	p := newPublisher(t)
	for _, network := range []string{"tcp", "udp"} {
		port := freePort(t, network)
		b := protocol.Bind{Key: network, Protocol: network, Address: "127.0.0.1:" + port}
		if err := p.Bind(b); err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial(network, b.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "early")
		if network == "tcp" {
			c.(*net.TCPConn).CloseWrite()
			b.Target = echoTCP(t)
		} else {
			b.Target = echoUDP(t)
		}
		if err := p.Bind(b); err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		buf := make([]byte, 100)
		if n, err := c.Read(buf); string(buf[:n]) != "echo early" {
			t.Errorf("%s: the early client got %q, %v", network, buf[:n], err)
		}
	}
}

func TestAReleasedPortIsFreeAndItsConnectionsEnd(t *testing.T) {
	p := newPublisher(t)
	port := freePort(t, "tcp")
	b := protocol.Bind{Key: "k", Protocol: "tcp", Address: "127.0.0.1:" + port, Target: echoTCP(t)}
	for range 20 {
		if err := p.Bind(b); err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", b.Address)
		if err != nil {
			t.Fatal(err)
		}
		p.Release("k")
		l, err := net.Listen("tcp4", b.Address)
		if err != nil {
			t.Fatal("after Release:", err)
		}
		l.Close()
		c.SetDeadline(time.Now().Add(patience))
		if _, err := io.ReadAll(c); errors.Is(err, context.DeadlineExceeded) {
			t.Error("the connection goes on after Release")
		}
		c.Close()
	}
	p.Release("unknown")
}

func TestRefusalsSayWhatIsWrong(t *testing.T) {
	p := newPublisher(t)
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, row := range []struct {
		what string
		bind protocol.Bind
		want string
		text string
	}{
		{"a taken port is in use", protocol.Bind{Key: "a", Protocol: "tcp", Address: taken.Addr().String()}, protocol.AskInUse, taken.Addr().String() + "/tcp: address already in use"},
		{"an address that is not the host's is none", protocol.Bind{Key: "b", Protocol: "tcp", Address: "192.0.2.1:80"}, protocol.AskNoAddress, "192.0.2.1"},
		{"SCTP is not published", protocol.Bind{Key: "c", Protocol: "sctp", Address: "127.0.0.1:80"}, protocol.AskNotOffered, "sctp"},
		{"port 0 is no address", protocol.Bind{Key: "d", Protocol: "tcp", Address: "127.0.0.1:0"}, protocol.AskNotOffered, "no address"},
		{"words are no address", protocol.Bind{Key: "e", Protocol: "tcp", Address: "localhost"}, protocol.AskNotOffered, "localhost"},
		{"a multicast address is none", protocol.Bind{Key: "f", Protocol: "udp", Address: "224.0.0.1:53"}, protocol.AskNotOffered, "224.0.0.1"},
		{"a port needs a key", protocol.Bind{Protocol: "tcp", Address: "127.0.0.1:80"}, protocol.AskNotOffered, "key"},
		{"a target is an address", protocol.Bind{Key: "g", Protocol: "tcp", Address: "127.0.0.1:80", Target: "x"}, protocol.AskNotOffered, "target"},
	} {
		err := p.Bind(row.bind)
		if kind(err) != row.want || !strings.Contains(fmt.Sprint(err), row.text) {
			t.Errorf("%s: Bind(%+v) = %v (%s); want %s with %q", row.what, row.bind, err, kind(err), row.want, row.text)
		}
	}
	if l := p.List(); len(l) != 0 {
		t.Errorf("after refusals %+v is bound", l)
	}
}

func TestAnAskedAddressTakesTheCompanions(t *testing.T) {
	p := newPublisher(t)
	port := freePort(t, "tcp")
	one, two := echoTCP(t), echoTCP(t)
	for _, b := range []protocol.Bind{{Key: "4", Protocol: "tcp", Address: "127.0.0.1:" + port, Target: one}, {Key: "6", Protocol: "tcp", Address: "[::1]:" + port, Target: two}} {
		if err := p.Bind(b); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range p.List() {
		if l.Also != "" {
			t.Errorf("%s still has %s", l.Bind.Address, l.Also)
		}
	}
}

func TestHoldMakesTheListTheOnlyPorts(t *testing.T) {
	p := newPublisher(t)
	target := echoTCP(t)
	bind := func(key string) protocol.Bind {
		return protocol.Bind{Key: key, Protocol: "tcp", Address: "127.0.0.1:" + freePort(t, "tcp"), Target: target}
	}
	kept, dropped, fresh := bind("kept"), bind("dropped"), bind("fresh")
	p.Bind(kept)
	p.Bind(dropped)
	c, err := net.Dial("tcp", kept.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := p.Hold([]protocol.Bind{kept, fresh}); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, l := range p.List() {
		keys = append(keys, l.Bind.Key)
	}
	if len(keys) != 2 || !strings.Contains(strings.Join(keys, " "), "kept") || !strings.Contains(strings.Join(keys, " "), "fresh") {
		t.Errorf("held are %q; want kept and fresh", keys)
	}
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, "still")
	c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "echo still" {
		t.Errorf("a connection over Hold got %q, %v", b, err)
	}
}

func TestATargetThatRefusesShowsAsAReset(t *testing.T) {
	p := newPublisher(t)
	b := protocol.Bind{Key: "k", Protocol: "tcp", Address: "127.0.0.1:" + freePort(t, "tcp"), Target: "127.0.0.1:" + freePort(t, "tcp")}
	if err := p.Bind(b); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, b.Address, "x"); err == nil {
		t.Error("the client saw a plain end; want a reset")
	}
}

func TestDatagramsOfManyClientsFindTheirWayBack(t *testing.T) {
	p := newPublisher(t)
	b := protocol.Bind{Key: "k", Protocol: "udp", Address: "127.0.0.1:" + freePort(t, "udp"), Target: echoUDP(t)}
	if err := p.Bind(b); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			c, err := net.Dial("udp", b.Address)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			text := fmt.Sprint("client ", i)
			buf := make([]byte, 100)
			for end := time.Now().Add(patience); time.Now().Before(end); { // datagrams may be lost
				io.WriteString(c, text)
				c.SetReadDeadline(time.Now().Add(time.Second))
				n, err := c.Read(buf)
				if err == nil {
					if string(buf[:n]) != "echo "+text {
						t.Errorf("client %d got %q", i, buf[:n])
					}
					return
				}
			}
			t.Errorf("client %d got nothing", i)
		})
	}
	wg.Wait()
}

func TestALargeAndAnEmptyDatagramStayWhole(t *testing.T) {
	a, b, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	from, to := Datagrams(a), Datagrams(b)
	sizes := []int{0, 1, 1400, maxPayload}
	go func() {
		for _, n := range sizes {
			from.Write(make([]byte, n))
		}
		a.CloseWrite()
	}()
	buf := make([]byte, maxPayload)
	for _, want := range sizes {
		if n, err := to.Read(buf); n != want || err != nil {
			t.Fatalf("Read gave %d bytes, %v; want %d", n, err, want)
		}
	}
	if _, err := to.Read(buf); err != io.EOF {
		t.Errorf("the end is %v; want EOF", err)
	}
	if _, err := from.Write(make([]byte, maxPayload+1)); err == nil {
		t.Error("a datagram of 65,536 bytes was taken")
	}
}

func TestCloseEndsEverything(t *testing.T) {
	p := newPublisher(t)
	port := freePort(t, "tcp")
	for _, network := range []string{"tcp", "udp"} {
		if err := p.Bind(protocol.Bind{Key: network, Protocol: network, Address: "127.0.0.1:" + port}); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() { p.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("Close hangs")
	}
	if err := p.Bind(protocol.Bind{Key: "x", Protocol: "tcp", Address: "127.0.0.1:" + port}); kind(err) != protocol.AskFailed {
		t.Errorf("Bind after Close = %v; want that it failed", err)
	}
}

func TestTheOldestFlowGoesForANewOne(t *testing.T) {
	s := &udpServer{flows: map[netip.AddrPort]*flow{}}
	var ended []int
	for i := range 3 {
		f := &flow{client: netip.AddrPortFrom(netip.IPv6Loopback(), uint16(i+1)), end: func() { ended = append(ended, i) }}
		f.used.Store(int64(100 - i))
		s.flows[f.client] = f
	}
	s.evictLocked()
	if len(ended) != 1 || ended[0] != 2 || len(s.flows) != 2 {
		t.Errorf("ended %v of 3; want the one that was silent longest", ended)
	}
}
