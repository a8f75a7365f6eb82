//go:build cgo

package vz

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"unsafe"

	"github.com/Code-Hex/vz/v3"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"golang.org/x/sys/unix"
)

// port is our end of a socket pair whose other end is a port of the guest.
type port struct{ *net.UnixConn }

func newPort() (*port, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "port"), os.NewFile(uintptr(fds[1]), "port")
	defer ours.Close()
	c, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return &port{c.(*net.UnixConn)}, theirs, nil
}

// link is the framework's socket device as a way to the guest.
type link struct {
	m      *machine
	device *vz.VirtioSocketDevice
}

func (l *link) String() string { return "vsock" }
func (l *link) Close() error   { l.m.release(); return nil }

// Open connects to guestd. The framework's connect cannot be cancelled: one that comes too late is closed.
func (l *link) Open(ctx context.Context) (proxy.Conn, error) {
	type answer struct {
		c   *vz.VirtioSocketConnection
		err error
	}
	got := make(chan answer, 1)
	go func() {
		c, err := l.device.Connect(protocol.VsockPort)
		got <- answer{c, err}
	}()
	select {
	case a := <-got:
		if a.err != nil {
			return nil, a.err
		}
		c := &conn{VirtioSocketConnection: a.c, m: l.m, raw: half(a.c)}
		l.m.keep(c)
		return c, nil
	case <-ctx.Done():
		go func() {
			if a := <-got; a.err == nil {
				a.c.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// halfCloser is what a connection of the framework can do and vz v3.7.1 does not show.
type halfCloser interface {
	CloseWrite() error
	CloseRead() error
}

// half finds the connection that vz.VirtioSocketConnection hides. A vz whose field has another name
// gives nil: the start-up self-test of half-close then fails, and the multiplexer is chosen.
func half(c *vz.VirtioSocketConnection) halfCloser {
	f := reflect.ValueOf(c).Elem().FieldByName("rawConn")
	if !f.IsValid() || f.Type() != reflect.TypeFor[net.Conn]() || !f.CanAddr() {
		return nil
	}
	raw, _ := (*(*net.Conn)(unsafe.Pointer(f.UnsafeAddr()))).(halfCloser)
	return raw
}

// conn is a connection with its two ends.
type conn struct {
	*vz.VirtioSocketConnection
	m   *machine
	raw halfCloser
}

var _ proxy.Conn = (*conn)(nil)

var errNoHalf = errors.New("this version of vz hides half-close")

func (c *conn) CloseWrite() error {
	if c.raw == nil {
		return errNoHalf
	}
	return c.raw.CloseWrite()
}

func (c *conn) CloseRead() error {
	if c.raw == nil {
		return errNoHalf
	}
	return c.raw.CloseRead()
}

func (c *conn) Close() error {
	c.m.drop(c)
	return c.VirtioSocketConnection.Close()
}
