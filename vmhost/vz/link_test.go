//go:build unix

package vz

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/proxytest"
)

// patience bounds every wait, for a machine under load.
const patience = time.Minute

// likeVZ hides its connection as vz.VirtioSocketConnection does.
type likeVZ struct {
	rawConn net.Conn
	net.Conn
}

// without is what a vz with another field would be.
type without struct {
	raw net.Conn
	net.Conn
}

// pair gives a connection as the framework makes one, and the guest's end.
func pair(t testing.TB) (net.Conn, proxy.Conn) {
	t.Helper()
	ours, theirs, err := newPort()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	c, err := net.FileConn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	return c, ours
}

func TestLinkIsAWayToTheGuest(t *testing.T) {
	guests := make(chan proxy.Conn, 1)
	l := newLink(func(port uint32) (net.Conn, error) {
		if port != protocol.VsockPort {
			return nil, errors.New("another port")
		}
		c, guest := pair(t)
		guests <- guest
		return &likeVZ{c, c}, nil
	})
	turn := make(chan struct{}, 1) // an Open and its guest belong together
	proxytest.Run(t, func(ctx context.Context) (proxy.Conn, proxytest.Peer, error) {
		turn <- struct{}{}
		defer func() { <-turn }()
		c, err := l.Open(ctx)
		if err != nil {
			return nil, nil, err
		}
		return c, <-guests, nil
	})
	if n := len(l.open); n != 0 {
		t.Errorf("the link remembers %d connections after all were closed", n)
	}
}

func TestPortIsAConn(t *testing.T) {
	proxytest.Run(t, func(context.Context) (proxy.Conn, proxytest.Peer, error) {
		ours, theirs, err := newPort()
		if err != nil {
			return nil, nil, err
		}
		defer theirs.Close()
		c, err := net.FileConn(theirs)
		if err != nil {
			return nil, nil, err
		}
		return ours, &conn{Conn: c, half: c.(halfCloser)}, nil
	})
}

func TestHidden(t *testing.T) {
	c, guest := pair(t)
	defer c.Close()
	defer guest.Close()
	for _, row := range []struct {
		says string
		c    any
		want bool
	}{
		{"the field is found", &likeVZ{c, c}, true},
		{"another name is not", &without{c, c}, false},
		{"another type is not", &struct{ rawConn io.Reader }{c}, false},
		{"a field without half-close is none", &likeVZ{struct{ net.Conn }{c}, c}, false},
		{"an empty field is none", &likeVZ{nil, c}, false},
		{"no pointer, no field", likeVZ{c, c}, false},
		{"nothing at all", nil, false},
	} {
		if got := hidden(row.c) != nil; got != row.want {
			t.Errorf("%s: hidden(%T) found = %v; want %v", row.says, row.c, got, row.want)
		}
	}
}

func TestAConnectionWithoutHalfCloseSaysSo(t *testing.T) {
	raw, guest := pair(t)
	defer guest.Close()
	c, err := newLink(func(uint32) (net.Conn, error) { return &without{raw, raw}, nil }).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.CloseWrite(); !errors.Is(err, ErrNoHalfClose) {
		t.Errorf("CloseWrite = %v; want ErrNoHalfClose", err)
	}
	if err := c.CloseRead(); !errors.Is(err, ErrNoHalfClose) {
		t.Errorf("CloseRead = %v; want ErrNoHalfClose", err)
	}
	go guest.Write([]byte("x"))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Error("it is of no use at all:", err)
	}
}

func TestLinkClose(t *testing.T) {
	raw, guest := pair(t)
	l := newLink(func(uint32) (net.Conn, error) { return &likeVZ{raw, raw}, nil })
	c, err := l.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	l.Close()
	ends(t, "a connection of a closed link", func() { io.Copy(io.Discard, guest) })
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("a connection of a closed link can be written to")
	}
	if _, err := l.Open(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Open of a closed link = %v; want net.ErrClosed", err)
	}
}

func TestAConnectionThatCrossesTheLinksCloseIsClosed(t *testing.T) {
	raw, guest := pair(t)
	l := newLink(nil)
	l.Close()
	if _, err := l.keep(raw); !errors.Is(err, net.ErrClosed) {
		t.Errorf("keep after Close = %v; want net.ErrClosed", err)
	}
	ends(t, "the connection", func() { io.Copy(io.Discard, guest) })
}

func TestCloseTwiceIsNoErrorAndToldOnce(t *testing.T) {
	raw, guest := pair(t)
	defer guest.Close()
	told := 0
	c := &conn{Conn: raw, half: raw.(halfCloser), closed: func() { told++ }}
	if first, second := c.Close(), c.Close(); first != nil || second != nil || told != 1 {
		t.Errorf("Close = %v, then %v, told %d times; want no error, once", first, second, told)
	}
}

func TestAConnectThatNeverEnds(t *testing.T) {
	for _, row := range []struct {
		says string
		give func(cancel func(), l *link)
		want error
	}{
		{"is given up with the context", func(cancel func(), _ *link) { cancel() }, context.Canceled},
		{"is given up with the link", func(_ func(), l *link) { l.Close() }, net.ErrClosed},
	} {
		late := make(chan net.Conn)
		asked := make(chan struct{})
		l := newLink(func(uint32) (net.Conn, error) { close(asked); return <-late, nil })
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-asked; row.give(cancel, l) }()
		var err error
		ends(t, "Open", func() { _, err = l.Open(ctx) })
		if !errors.Is(err, row.want) {
			t.Errorf("%s: Open = %v; want %v", row.says, err, row.want)
		}
		raw, guest := pair(t)
		late <- raw
		ends(t, "a connection that came too late", func() { io.Copy(io.Discard, guest) })
		cancel()
	}
}

func TestAConnectThatFails(t *testing.T) {
	refused := errors.New("refused")
	l := newLink(func(uint32) (net.Conn, error) { return nil, refused })
	if _, err := l.Open(t.Context()); !errors.Is(err, refused) {
		t.Errorf("Open = %v; want the cause", err)
	}
}

func TestTakeLock(t *testing.T) {
	path := t.TempDir() + "/vm.lock"
	first, err := takeLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := takeLock(path); id(err) != "busy" {
		t.Errorf("takeLock of a taken lock = %v; want a problem named busy", err)
	}
	first.Close()
	second, err := takeLock(path)
	if err != nil {
		t.Fatal("takeLock of a lock that was let go:", err)
	}
	second.Close()
	if _, err := takeLock(t.TempDir() + "/none/vm.lock"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("takeLock in a folder that is not there = %v; want os.ErrNotExist", err)
	}
}

// ends fails the test when f does not return.
func ends(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal(what, "does not end")
	}
}
