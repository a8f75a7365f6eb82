//go:build linux

package ports

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"github.com/covedesk/cove/guestd/protocol"
	"golang.org/x/sys/unix"
)

// Socket is where the guest's own programs speak with its first process about ports: root alone, and in
// no container.
const Socket = "/run/cove/ports.sock"

// request is the first line on a connection to Socket: a Launch with its listener beside it, or a
// userland proxy's claim, which holds as long as the connection.
type request struct {
	Watch bool           `json:"watch,omitempty"`
	Claim *protocol.Bind `json:"claim,omitempty"`
}

// answer is a line back: to the request, and to the word release.
type answer struct {
	Error string `json:"error,omitempty"`
}

// releaseLine asks to let go of what was claimed; the answer comes when the host has.
const releaseLine = "release\n"

// desk takes what the guest's own programs say about ports.
type desk struct{ book *Book }

// Open listens on Socket for as long as the guest lives.
func Open(book *Book) error {
	os.Remove(Socket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: Socket, Net: "unix"})
	if err != nil {
		return err
	}
	if err := os.Chmod(Socket, 0o600); err != nil {
		l.Close()
		return err
	}
	go desk{book}.accept(l)
	return nil
}

func (d desk) accept(l *net.UnixListener) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			slog.Error("ports", "err", err)
			return
		}
		go func() {
			defer c.Close()
			d.serve(c)
		}()
	}
}

// serve reads the request and what came beside it.
func (d desk) serve(c *net.UnixConn) {
	line, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, m, _, _, err := c.ReadMsgUnix(line, oob)
	if err != nil {
		return
	}
	var r request
	if err := json.Unmarshal(line[:n], &r); err != nil {
		tell(c, err)
		return
	}
	switch {
	case r.Watch:
		w, err := d.watcher(c, oob[:m])
		tell(c, err)
		if err == nil {
			w.run()
		}
	case r.Claim != nil:
		d.claim(c, *r.Claim)
	default:
		tell(c, errors.New("neither a launch nor a claim"))
	}
}

func (d desk) watcher(c *net.UnixConn, oob []byte) (*watcher, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return nil, errors.New("no listener came with the launch")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("no listener came with the launch")
	}
	unix.CloseOnExec(fds[0])
	listener := os.NewFile(uintptr(fds[0]), "seccomp")
	raw, err := c.SyscallConn()
	if err != nil {
		listener.Close()
		return nil, err
	}
	var peer *unix.Ucred
	var perr error
	err = raw.Control(func(fd uintptr) { peer, perr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, perr); err != nil {
		listener.Close()
		return nil, err
	}
	return &watcher{book: d.book, engine: int(peer.Pid), listener: listener}, nil
}

// claim leads an address to a container until the proxy lets go or ends.
func (d desk) claim(c *net.UnixConn, bind protocol.Bind) {
	ctx, cancel := context.WithTimeout(context.Background(), bindPatience)
	defer cancel()
	lease, err := d.book.Bind(ctx, bind)
	tell(c, err)
	if err != nil {
		return
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		slog.Warn("userland proxy", "address", bind.Address, "err", err)
	}
	lease.Release()
	if line == releaseLine {
		tell(c, nil)
	}
}

func tell(c net.Conn, err error) {
	var a answer
	if err != nil {
		a.Error = err.Error()
	}
	if b, err := json.Marshal(a); err == nil {
		c.Write(append(b, '\n'))
	}
}

// readAnswer is the other side of tell.
func readAnswer(c net.Conn) error {
	line, err := bufio.NewReader(c).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("hear guestd's answer: %w", err)
	}
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return fmt.Errorf("hear guestd's answer: %w", err)
	}
	if a.Error != "" {
		return errors.New(a.Error)
	}
	return nil
}
