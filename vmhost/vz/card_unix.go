//go:build unix

package vz

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A card's sockets hold one frame at least, or macOS refuses it (EMSGSIZE), and some more towards the
// reader: the sizes of gvisor-tap-vsock's for the same framework (pkg/transport/unixgram_unix.go).
const (
	cardSend    = 1 << 20
	cardReceive = 4 << 20
)

// newCard makes the pair of datagram sockets of a network card: our end, and the other one as the
// framework wants it. The file must outlive the machine.
func newCard() (net.Conn, *os.File, error) {
	syscall.ForkLock.RLock() // as in newPort
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	for _, fd := range fds { // a smaller buffer is slower, and loses frames under load
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, cardSend)
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, cardReceive)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "card"), os.NewFile(uintptr(fds[1]), "card")
	defer ours.Close()
	c, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return c, theirs, nil
}
