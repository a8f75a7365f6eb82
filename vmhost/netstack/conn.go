package netstack

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/covedesk/cove/proxy"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/waiter"
)

// guestConn is a connection of the guest's.
type guestConn struct {
	*gonet.TCPConn
	end   tcpip.Endpoint
	reset atomic.Bool // Close resets it
}

var _ proxy.Conn = (*guestConn)(nil)

func newGuestConn(q *waiter.Queue, e tcpip.Endpoint) *guestConn {
	return &guestConn{TCPConn: gonet.NewTCPConn(q, e), end: e}
}

// Read gives the system's error for a reset, by which proxy.Join knows it.
func (c *guestConn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	return n, c.known(err)
}

func (c *guestConn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	return n, c.known(err)
}

// CloseWrite is no error where the connection is gone: there is nothing left to say.
func (c *guestConn) CloseWrite() error { return c.known(c.TCPConn.CloseWrite()) }
func (c *guestConn) CloseRead() error  { return c.known(c.TCPConn.CloseRead()) }

// SetLinger makes Close a reset, as net.TCPConn's does with 0: the guest must not take a cut-off answer for
// a whole one.
func (c *guestConn) SetLinger(seconds int) error {
	c.reset.Store(seconds == 0)
	return nil
}

func (c *guestConn) Close() error {
	if c.reset.Load() {
		c.end.Abort()
		return nil
	}
	return c.TCPConn.Close()
}

func (c *guestConn) abort() {
	c.reset.Store(true)
	c.end.Abort()
}

// known is a gVisor error as the system's, which gonet gives as text only.
func (c *guestConn) known(err error) error {
	var op *net.OpError
	if err == nil || err == io.EOF || !errors.As(err, &op) || op.Timeout() {
		return err
	}
	switch op.Err.Error() {
	case (&tcpip.ErrConnectionReset{}).String(), (&tcpip.ErrConnectionAborted{}).String(), (&tcpip.ErrTimeout{}).String():
		op.Err = syscall.ECONNRESET
	case (&tcpip.ErrClosedForSend{}).String():
		op.Err = syscall.EPIPE
	case (&tcpip.ErrNotConnected{}).String():
		op.Err = syscall.ENOTCONN
	case (&tcpip.ErrInvalidEndpointState{}).String():
		op.Err = net.ErrClosed
	}
	return op
}

// resetOnClose makes a connection's Close break it.
func resetOnClose(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(seconds int) error }); ok {
		l.SetLinger(0)
	}
}
