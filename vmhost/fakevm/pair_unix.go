//go:build unix

package fakevm

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/covedesk/cove/proxy"
)

// pair makes two ends of a stream with half-close.
func pair() (a, b proxy.Conn, err error) {
	syscall.ForkLock.RLock() // not every unix has SOCK_CLOEXEC
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	var ends [2]proxy.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, ferr := net.FileConn(f) // a duplicate
		f.Close()
		if ferr != nil {
			err = ferr
			continue
		}
		ends[i] = c.(*net.UnixConn)
	}
	if err != nil {
		for _, c := range ends {
			if c != nil {
				c.Close()
			}
		}
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return ends[0], ends[1], nil
}
