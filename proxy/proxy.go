// Package proxy joins streams. Every byte taken from one side reaches the other, a half-close
// stays a half-close, and both sides are closed before [Join] returns. It names what the rest
// of Cove means by a connection and by a way to the guest, and imports the standard library only.
package proxy

import (
	"context"
	"net"
)

// Conn is a full-duplex byte stream whose two directions end separately. The engine's API needs
// that: `docker run -i` ends its input with CloseWrite and goes on reading the output.
//
// CloseWrite tells the peer that no more bytes come; the peer's Read then gives io.EOF after the
// bytes already sent. CloseRead gives up the other direction. Close ends both; closing twice is
// no error. All methods may be called from several goroutines.
type Conn interface {
	net.Conn
	CloseWrite() error
	CloseRead() error
}

// Dialer opens authenticated connections to a named service of the guest ("docker", "shell", …).
// The context bounds the dial only, not the connection.
type Dialer interface {
	Dial(ctx context.Context, service string) (Conn, error)
}

// DialFunc is a function as a Dialer.
type DialFunc func(ctx context.Context, service string) (Conn, error)

// Dial calls f.
func (f DialFunc) Dial(ctx context.Context, service string) (Conn, error) { return f(ctx, service) }

// Link is one raw way from the host to the guest's service listener: AF_VSOCK, a hypervisor's own
// sockets, or a multiplexer over a byte pipe. What it opens is not yet authenticated: see
// proxy/transport. Only the host opens links; there is no listener on the host for a container to reach.
type Link interface {
	// String names the link for people and logs, such as "vsock" or "mux".
	String() string
	// Open connects to the guest's service listener. The context bounds the dial only.
	Open(ctx context.Context) (Conn, error)
	// Close ends the link and every connection that it opened.
	Close() error
}
