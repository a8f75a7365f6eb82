package transport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// errNoRecord says that the peer speaks records no more: it begins a new session.
var errNoRecord = errors.New("the peer's session is over")

// records makes a net.Conn of a byte pipe: what is written goes as one record each, what is read are
// the bytes of records. Deadlines do nothing: yamux uses them only to give up on a pipe, and the
// pipe's owner closes it instead. One goroutine reads, one writes.
type records struct {
	in      *bufio.Reader
	out     io.Writer
	writing *sync.Mutex // of the pipe, which an older session may still write to; may be nil
	close   func() error

	left   int // bytes of the record under way
	buf    []byte
	over   atomic.Bool
	broken atomic.Bool // the pipe takes no more
}

func (r *records) Read(b []byte) (int, error) {
	for r.left == 0 {
		var head [recordHeader]byte
		if _, err := io.ReadFull(r.in, head[:]); err != nil {
			return 0, err
		}
		n := int(binary.BigEndian.Uint32(head[:]) & 0xffffff)
		if head[0] != recordMark || n > maxRecord {
			return 0, errNoRecord
		}
		r.left = n
	}
	n, err := r.in.Read(b[:min(len(b), r.left)])
	r.left -= n
	return n, err
}

// Write sends b as one record, so that an end which goes away in the middle leaves at most one behind.
func (r *records) Write(b []byte) (int, error) {
	if len(b) > maxRecord {
		return 0, errors.New("mux message too long")
	}
	if r.writing != nil {
		r.writing.Lock()
		defer r.writing.Unlock()
	}
	if r.over.Load() {
		return 0, net.ErrClosed
	}
	r.buf = binary.BigEndian.AppendUint32(r.buf[:0], recordMark<<24|uint32(len(b)))
	r.buf = append(r.buf, b...)
	if _, err := r.out.Write(r.buf); err != nil {
		r.broken.Store(true)
		return 0, err
	}
	return len(b), nil
}

func (r *records) Close() error {
	r.over.Store(true)
	return r.close()
}

func (*records) LocalAddr() net.Addr              { return pipeAddr{} }
func (*records) RemoteAddr() net.Addr             { return pipeAddr{} }
func (*records) SetDeadline(time.Time) error      { return nil }
func (*records) SetReadDeadline(time.Time) error  { return nil }
func (*records) SetWriteDeadline(time.Time) error { return nil }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }
