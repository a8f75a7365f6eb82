//go:build unix

package client

import (
	"context"
	"errors"
	"net"
	"syscall"
)

func dial(ctx context.Context, path string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", path)
}

// absent says that nobody listens: no socket, or one that a killed coved left.
func absent(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
}

// ownSession keeps a terminal's signals away from coved.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
