package vz

import (
	"errors"
	"net"
	"reflect"
	"sync"
	"syscall"
	"unsafe"

	"github.com/covedesk/cove/proxy"
)

// halfCloser ends one direction of a connection.
type halfCloser interface {
	CloseWrite() error
	CloseRead() error
}

// ErrNoHalfClose says that a connection can be closed only whole, because vz hides what it stands on.
var ErrNoHalfClose = errors.New("this version of vz hides half-close")

// hidden finds the connection that vz 3.7.1 keeps in a private field and whose half-close it does not
// show. What has no such field gives nil: CloseWrite then fails, so does the self-test of the transport,
// and the multiplexer is chosen.
func hidden(c any) halfCloser {
	v := reflect.ValueOf(c)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil
	}
	f := v.Elem().FieldByName("rawConn")
	if !f.IsValid() || f.Type() != reflect.TypeFor[net.Conn]() {
		return nil
	}
	raw, _ := (*(*net.Conn)(unsafe.Pointer(f.UnsafeAddr()))).(halfCloser)
	return raw
}

// conn is a connection as the rest of Cove wants it.
type conn struct {
	net.Conn
	half   halfCloser // nil: there is none
	closed func()     // told once; may be nil
	once   sync.Once
	err    error // of the first Close
}

var _ proxy.Conn = (*conn)(nil)

// CloseWrite ends our direction. Its error is ErrNoHalfClose where that cannot be done.
func (c *conn) CloseWrite() error { return c.shut(halfCloser.CloseWrite) }

// CloseRead gives up the other direction. Its error is ErrNoHalfClose where that cannot be done.
func (c *conn) CloseRead() error { return c.shut(halfCloser.CloseRead) }

func (c *conn) shut(f func(halfCloser) error) error {
	if c.half == nil {
		return ErrNoHalfClose
	}
	// macOS says "not connected" of a socket whose peer is gone: there is nothing left to end.
	if err := f(c.half); err != nil && !errors.Is(err, syscall.ENOTCONN) {
		return err
	}
	return nil
}

func (c *conn) Close() error {
	c.once.Do(func() {
		c.err = c.Conn.Close()
		if c.closed != nil {
			c.closed()
		}
	})
	return c.err
}
