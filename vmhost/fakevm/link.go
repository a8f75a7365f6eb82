package fakevm

import (
	"context"
	"net"
	"sync"

	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
)

// link is a hypervisor's sockets without the hypervisor: every Open makes a pair.
type link struct {
	name     string
	incoming chan proxy.Conn
	done     chan struct{}

	mu     sync.Mutex
	closed bool
	open   map[proxy.Conn]struct{} // the guest's ends
}

var (
	_ proxy.Link         = (*link)(nil)
	_ transport.Listener = (*link)(nil)
)

func newLink(name string) *link {
	return &link{name: name, incoming: make(chan proxy.Conn), done: make(chan struct{}), open: map[proxy.Conn]struct{}{}}
}

func (l *link) String() string { return l.name }

// Open waits for the guest to accept.
func (l *link) Open(ctx context.Context) (proxy.Conn, error) {
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	c := &tracked{theirs, l}
	if !l.track(c) {
		ours.Close()
		theirs.Close()
		return nil, net.ErrClosed
	}
	select {
	case l.incoming <- c:
		return ours, nil
	case <-l.done:
		err = net.ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	ours.Close()
	c.Close()
	return nil, err
}

func (l *link) track(c proxy.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.open[c] = struct{}{}
	}
	return !l.closed
}

func (l *link) forget(c proxy.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}

// Accept is the guest's.
func (l *link) Accept() (proxy.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends the link and its connections.
func (l *link) Close() error {
	l.mu.Lock()
	first, open := !l.closed, l.open
	l.closed, l.open = true, map[proxy.Conn]struct{}{}
	l.mu.Unlock()
	if first {
		close(l.done)
	}
	for c := range open {
		c.Close()
	}
	return nil
}

// tracked is a connection that its link ends.
type tracked struct {
	proxy.Conn
	link *link
}

func (c *tracked) Close() error {
	c.link.forget(c)
	return c.Conn.Close()
}
