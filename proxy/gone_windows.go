package proxy

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// wsaNotConn is WSAENOTCONN, which package syscall does not name.
const wsaNotConn = syscall.Errno(10057)

// gone says that the peer ended the connection first: a half-close then has nothing left to say.
func gone(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, wsaNotConn) || errors.Is(err, syscall.WSAECONNRESET)
}
