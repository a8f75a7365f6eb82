package transport

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/proxytest"
)

// warmLink keeps what it opened.
type warmLink struct {
	unixLink
	mu     sync.Mutex
	opened []proxy.Conn
}

func (l *warmLink) Open(ctx context.Context) (proxy.Conn, error) {
	c, err := l.unixLink.Open(ctx)
	if err == nil {
		l.mu.Lock()
		l.opened = append(l.opened, c)
		l.mu.Unlock()
	}
	return c, err
}

func (l *warmLink) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.opened)
}

func (c *Client) idle() int {
	c.warm.mu.Lock()
	defer c.warm.mu.Unlock()
	return len(c.warm.idle)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never came:", what)
		}
	}
}

func warmed(t *testing.T) (*guest, *Client, *warmLink) {
	t.Helper()
	g, secret := newGuest(), NewSecret()
	g.SetSecret(secret)
	link := &warmLink{unixLink: overUnix(t, g)}
	c := New(link, secret)
	c.KeepWarm(2)
	eventually(t, "two connections that wait", func() bool { return c.idle() == 2 })
	return g, c, link
}

func TestWarmConnectionsKeepTheContract(t *testing.T) {
	g, c, _ := warmed(t)
	if err := SelfTest(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	proxytest.Run(t, g.open(c))
}

func TestAWarmConnectionIsTakenAndReplaced(t *testing.T) {
	_, c, link := warmed(t)
	for n := range 5 {
		conn, err := c.Dial(t.Context(), EchoService)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		eventually(t, "the next one that waits", func() bool { return c.idle() == 2 })
		if got, want := link.count(), 3+n; got != want {
			t.Fatalf("after %d dials %d connections were opened; want %d", n+1, got, want)
		}
	}
}

func TestADeadWarmConnectionIsPassedOver(t *testing.T) {
	_, c, link := warmed(t)
	for _, conn := range link.opened {
		conn.Close()
	}
	if err := SelfTest(t.Context(), c); err != nil {
		t.Error("after those that waited died:", err)
	}
}

func TestARefusalOnAWarmConnectionIsTheGuests(t *testing.T) {
	_, c, _ := warmed(t)
	var refused *RefusedError
	if _, err := c.Dial(t.Context(), "refused"); !errors.As(err, &refused) || refused.Message != "not today" {
		t.Errorf("Dial of a refused service = %v; want its word", err)
	}
	if _, err := c.Dial(t.Context(), strings.Repeat("x", maxService+1)); err == nil || errors.As(err, &refused) {
		t.Errorf("a service name that is too long = %v; want that it is", err)
	}
}

func TestAnOldSecretsWarmConnectionsAreWorthless(t *testing.T) {
	g, c, _ := warmed(t)
	g.SetSecret(NewSecret())
	if conn, err := c.Dial(t.Context(), EchoService); err == nil {
		conn.Close()
		t.Error("a connection that waited outlived its secret")
	}
}

func TestAServicesArgumentReachesIt(t *testing.T) {
	secret := NewSecret()
	asked := make(chan string, 2)
	s := NewServer(map[string]Handler{"say": func(c proxy.Conn) { asked <- Argument(c); Accept(c) }})
	s.SetSecret(secret)
	link := overUnix(t, &guest{Server: s})
	c := New(link, secret)
	for name, want := range map[string]string{"say/tcp/[::1]:80": "tcp/[::1]:80", "say": ""} {
		conn, err := c.Dial(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if got := <-asked; got != want {
			t.Errorf("Dial(%q) gives the handler %q; want %q", name, got, want)
		}
	}
}
