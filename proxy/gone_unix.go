//go:build unix

package proxy

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// gone says that the peer ended the connection first: a half-close then has nothing left to say.
func gone(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
