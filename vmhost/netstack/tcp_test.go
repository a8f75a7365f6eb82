package netstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy"
)

// outsider is an address of the world outside that the tests' dialers answer for.
var outsider = netip.MustParseAddr("203.0.113.7")

// Each direction ends by itself, whoever ends it first, and every byte of both arrives. (The contract of
// proxy.Conn asks for more than TCP has: a peer that gives up reading cannot be heard.)
func TestEachDirectionEndsByItself(t *testing.T) {
	g := plug(t, Config{})
	sent := make([]byte, 3<<20+7)
	rand.Read(sent)
	for _, row := range []struct {
		says       string
		guestFirst bool
	}{{"the guest ends first", true}, {"the host ends first", false}} {
		t.Run(row.says, func(t *testing.T) {
			first := func(c proxy.Conn) error {
				if _, err := c.Write(sent); err != nil {
					return err
				}
				if err := c.CloseWrite(); err != nil {
					return err
				}
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent[:99999]) {
					return fmt.Errorf("the one who ended first read %d bytes, %v; want 99999", len(got), err)
				}
				return nil
			}
			second := func(c proxy.Conn) error {
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
					return fmt.Errorf("the other one read %d bytes, %v; want %d", len(got), err, len(sent))
				}
				if _, err := c.Write(sent[:99999]); err != nil {
					return err
				}
				return c.CloseWrite()
			}
			onHosts, onGuests := second, first
			if !row.guestFirst {
				onHosts, onGuests = first, second
			}
			done := make(chan error, 1)
			port := onHost(t, "127.0.0.1:0", func(c *net.TCPConn) {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				done <- onHosts(c)
			})
			c, err := g.dial(within(t), netip.AddrPortFrom(Host, port))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			if err := onGuests(c); err != nil {
				t.Error("in the guest:", err)
			}
			if err := <-done; err != nil {
				t.Error("on the host:", err)
			}
		})
	}
}

func TestWhatIsRefused(t *testing.T) {
	hello := func(c *net.TCPConn) { io.WriteString(c, "hello"); c.Close() }
	port := onHost(t, "127.0.0.1:0", hello)
	six := onHost(t, "[::1]:0", hello)
	everywhere := onHost(t, "0.0.0.0:0", hello)
	g := plug(t, Config{})
	const refused, no = "connection was refused", ""
	for _, row := range []struct {
		says string
		to   netip.AddrPort
		err  string
	}{
		{"the host alias reaches the host's loopback", netip.AddrPortFrom(Host, port), no},
		{"and what listens on its IPv6 loopback only", netip.AddrPortFrom(Host, six), no},
		{"a port of it on which nobody listens is refused", netip.AddrPortFrom(Host, 9), refused},
		{"the gateway is not the host", netip.AddrPortFrom(Gateway, port), refused},
		{"nor for what listens everywhere", netip.AddrPortFrom(Gateway, everywhere), refused},
		{"the gateway has no control API", netip.AddrPortFrom(Gateway, 80), refused},
		{"another address of the subnet is nobody", netip.AddrPortFrom(netip.MustParseAddr("192.168.127.77"), port), refused},
		{"0.0.0.0 is not the host", netip.AddrPortFrom(netip.MustParseAddr("0.0.0.1"), port), refused},
		{"link-local is the guest's own link", netip.AddrPortFrom(netip.MustParseAddr("169.254.169.254"), 80), refused},
		{"a reserved address is nobody", netip.AddrPortFrom(netip.MustParseAddr("240.0.0.1"), port), refused},
	} {
		ctx, cancel := context.WithTimeout(within(t), 20*time.Second)
		c, err := g.dial(ctx, row.to)
		cancel()
		if err == nil {
			got, _ := io.ReadAll(c)
			if row.err != no || string(got) != "hello" {
				t.Errorf("%s: dial %s reads %q; want %q", row.says, row.to, got, row.err)
			}
			c.Close()
		} else if row.err == no || !strings.Contains(err.Error(), row.err) {
			t.Errorf("%s: dial %s = %v; want %q", row.says, row.to, err, row.err)
		}
	}
}

// What the guest is told of a way that there is not, it is told at once.
func TestNoRouteIsSaid(t *testing.T) {
	g := plug(t, Config{Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}
	}})
	begun := time.Now()
	_, err := g.dial(within(t), netip.AddrPortFrom(outsider, 80))
	if err == nil || !strings.Contains(err.Error(), "no route to host") && !strings.Contains(err.Error(), "host is unreachable") {
		t.Errorf("dial = %v; want that there is no route", err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it was said after %s; want at once", took)
	}
}

// A thousand dials that nobody answers leave room for the others, whether they go to one address or to many.
func TestBlackHolesLeaveRoom(t *testing.T) {
	for _, row := range []struct {
		says  string
		dials int
		to    func(i int) netip.AddrPort
	}{
		{"to one address", 1500, func(i int) netip.AddrPort { return netip.AddrPortFrom(outsider, uint16(1000+i)) }},
		{"to as many addresses as there are places", maxDials + 100, func(i int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 80)
		}},
	} {
		t.Run(row.says, func(t *testing.T) {
			port := onHost(t, "127.0.0.1:0", func(c *net.TCPConn) { io.WriteString(c, "hello"); c.Close() })
			var hanging atomic.Int64
			var d net.Dialer
			g := plug(t, Config{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				if strings.HasPrefix(address, "127.") {
					return d.DialContext(ctx, network, address)
				}
				hanging.Add(1)
				<-ctx.Done()
				return nil, ctx.Err()
			}})
			ctx, cancel := context.WithCancel(within(t))
			var wg sync.WaitGroup
			for i := range row.dials {
				wg.Go(func() {
					if c, err := g.dial(ctx, row.to(i)); err == nil {
						c.Close()
						t.Error("a dial to nobody worked")
					}
				})
			}
			until(t, func() bool { return hanging.Load() >= min(int64(row.dials), maxDialsTo) })
			if hanging.Load() < 1000 {
				t.Errorf("%d dials are in flight; want 1,000 at least", hanging.Load())
			}
			for range 20 {
				c, err := g.dial(within(t), netip.AddrPortFrom(Host, port))
				if err != nil {
					t.Fatalf("a dial beside them = %v", err)
				}
				if got, err := io.ReadAll(c); string(got) != "hello" {
					t.Errorf("read %q, %v; want hello", got, err)
				}
				c.Close()
			}
			cancel()
			wg.Wait()
		})
	}
}

// A server that resets is seen to: the guest must not take half an answer for a whole one.
func TestAResetStaysOne(t *testing.T) {
	g := plug(t, Config{})
	port := onHost(t, "127.0.0.1:0", func(c *net.TCPConn) {
		io.WriteString(c, "half an ")
		io.ReadFull(c, make([]byte, 1))
		c.SetLinger(0)
		c.Close()
	})
	c, err := g.dial(within(t), netip.AddrPortFrom(Host, port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(c, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	c.Write([]byte("x"))
	if rest, err := io.ReadAll(c); err == nil {
		t.Errorf("read %q and an end; want an error", rest)
	}
}

// And a guest that resets, by the server.
func TestAGuestsResetStaysOne(t *testing.T) {
	g := plug(t, Config{})
	done := make(chan error, 1)
	port := onHost(t, "127.0.0.1:0", func(c *net.TCPConn) {
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		_, err := io.ReadAll(c)
		done <- err
	})
	c, err := g.dial(within(t), netip.AddrPortFrom(Host, port))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "half a ")
	c.(*guestConn).abort()
	if err := <-done; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server reads to %v; want a reset", err)
	}
}

func TestNothingIsLeftOfClosedConnections(t *testing.T) {
	g := plug(t, Config{})
	port := onHost(t, "127.0.0.1:0", func(c *net.TCPConn) { io.Copy(c, c); c.Close() })
	for i := range 200 {
		c, err := g.dial(within(t), netip.AddrPortFrom(Host, port))
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprint("round ", i)
		io.WriteString(c, text)
		c.CloseWrite()
		if got, err := io.ReadAll(c); string(got) != text {
			t.Fatalf("read %q, %v; want %q", got, err, text)
		}
		c.Close()
	}
	until(t, func() bool {
		g.n.tcp.mu.Lock()
		defer g.n.tcp.mu.Unlock()
		return g.n.tcp.conns == 0 && len(g.n.tcp.dials) == 0 && len(g.n.tcp.to) == 0 && g.n.tcp.first == nil && g.n.tcp.last == nil
	})
}

// A port of the guest's is its own again when the host ended the connection first and the guest has
// followed: it may be used for the same place at once. (Random ports meet once in 250 such tests.)
func TestAPortIsUsedAgain(t *testing.T) {
	g := plug(t, Config{})
	port := onHost(t, "127.0.0.1:0", func(c *net.TCPConn) { io.WriteString(c, "hello"); c.Close() })
	for i := range 50 {
		var c proxy.Conn
		until(t, func() bool { // the guest's own stack lets go of the port a moment after the end
			var err error
			if c, err = g.dialFrom(within(t), 40000, netip.AddrPortFrom(Host, port)); err != nil && err.Error() != "port is in use" {
				t.Fatalf("dial %d = %v", i, err)
			}
			return err == nil
		})
		if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
			t.Fatalf("dial %d reads %q, %v; want hello", i, got, err)
		}
		c.Close()
	}
}

// until waits for a condition.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come about")
		}
	}
}
