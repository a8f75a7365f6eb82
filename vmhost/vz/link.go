package vz

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
)

// link is the framework's socket device as a way to the guest. Its sockets die with the machine, and
// nobody promises how: the link is closed before the machine is stopped.
type link struct {
	// connect reaches a port of the guest. It cannot be cancelled, and may never return: "If the guest
	// operating system doesn't listen for connections to the specified port, this method does nothing"
	// (VZVirtioSocketDevice, connect(toPort:)).
	connect func(port uint32) (net.Conn, error)

	mu   sync.Mutex
	open map[*conn]struct{} // nil: closed
	shut chan struct{}      // closed with the link
}

var _ proxy.Link = (*link)(nil)

func newLink(connect func(port uint32) (net.Conn, error)) *link {
	return &link{connect: connect, open: map[*conn]struct{}{}, shut: make(chan struct{})}
}

func (l *link) String() string { return "vsock" }

// Open connects to guestd. After Close its error is net.ErrClosed.
func (l *link) Open(ctx context.Context) (proxy.Conn, error) {
	select {
	case <-l.shut:
		return nil, net.ErrClosed
	default:
	}
	type answer struct {
		c   net.Conn
		err error
	}
	got, gone := make(chan answer), make(chan struct{})
	defer close(gone)
	go func() { // lives as long as connect does, which nobody can shorten
		c, err := l.connect(protocol.VsockPort)
		select {
		case got <- answer{c, err}:
		case <-gone:
			if err == nil {
				c.Close()
			}
		}
	}()
	select {
	case a := <-got:
		if a.err != nil {
			return nil, fmt.Errorf("connect to port %d of the guest: %w", protocol.VsockPort, a.err)
		}
		return l.keep(a.c)
	case <-l.shut:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to port %d of the guest: %w", protocol.VsockPort, context.Cause(ctx))
	}
}

// keep remembers a connection until it is closed.
func (l *link) keep(raw net.Conn) (proxy.Conn, error) {
	c := &conn{Conn: raw, half: hidden(raw)}
	c.closed = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.open, c)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		raw.Close()
		return nil, net.ErrClosed
	}
	l.open[c] = struct{}{}
	return c, nil
}

// hangUp ends the link's connections; new ones can be opened.
func (l *link) hangUp() {
	l.mu.Lock()
	open := slices.Collect(maps.Keys(l.open))
	l.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
}

// Close ends the link and its connections, and nothing else of the machine.
func (l *link) Close() error {
	l.mu.Lock()
	open := l.open
	l.open = nil
	if open != nil {
		close(l.shut)
	}
	l.mu.Unlock()
	for c := range open {
		c.Close()
	}
	return nil
}
