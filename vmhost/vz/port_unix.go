//go:build unix

package vz

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/vmhost"
	"golang.org/x/sys/unix"
)

// portBuffer is how much a port holds in each direction: macOS gives a local socket 8 KiB, and one frame
// of the multiplexer is larger.
const portBuffer = 256 << 10

// newPort makes a port of the guest: our end of a pair of local sockets, and the other one as the
// framework wants it. The file must outlive the machine, which knows its number only.
func newPort() (proxy.Conn, *os.File, error) {
	syscall.ForkLock.RLock() // macOS cannot make a socket that no child inherits in one step
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	for _, fd := range fds { // a smaller buffer is slower, not wrong
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, portBuffer)
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, portBuffer)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "port"), os.NewFile(uintptr(fds[1]), "port")
	defer ours.Close()
	c, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	half, _ := c.(halfCloser)
	return &conn{Conn: c, half: half}, theirs, nil
}

// takeLock takes the machine's lock for as long as the closer is open. Where another machine has it,
// the error is a *vmhost.Problem.
func takeLock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the machine: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, &vmhost.Problem{ID: vmhost.ProblemBusy, Summary: "This machine already runs, or has not ended yet.",
			Remedy: "Wait a moment, then start again. If it stays so, another coved has it: `pgrep -l coved` shows it."}
	}
	return nil, fmt.Errorf("lock the machine: %w", err)
}
