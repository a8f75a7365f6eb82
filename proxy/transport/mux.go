package transport

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/covedesk/cove/proxy"
	"github.com/libp2p/go-yamux/v5"
)

// A multiplexer over one byte pipe, for where nothing better is there. Both sides say muxMagic and
// the host's nonce first and skip whatever comes before it: a virtio-serial port still holds the rest
// of an older session.
const (
	muxMagic     = "COVEMUX\n"
	muxNonceSize = 16
)

func muxConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false                   // a paused guest is not a dead one
	c.MeasureRTTInterval = 24 * 365 * time.Hour // its timer would wake an idle daemon
	c.ConnectionWriteTimeout = 24 * 365 * time.Hour
	c.InitialStreamWindowSize = 1 << 20
	c.MaxStreamWindowSize = 4 << 20
	c.ReadBufSize = 64 << 10
	c.AcceptBacklog = 1024
	c.MaxIncomingStreams = 16 << 10
	c.LogOutput = io.Discard
	return c
}

// OpenMux returns a link over a byte pipe whose other end runs ServeMux. The session begins with the
// first Open.
func OpenMux(rw io.ReadWriteCloser) proxy.Link { return &muxLink{rw: rw} }

type muxLink struct {
	rw io.ReadWriteCloser

	mu      sync.Mutex
	session *yamux.Session
	err     error // the session could not begin, or the link is closed
}

func (l *muxLink) String() string { return "mux" }

func (l *muxLink) Open(ctx context.Context) (proxy.Conn, error) {
	session, err := l.begin(ctx)
	if err != nil {
		return nil, err
	}
	stream, err := session.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	return &muxConn{Stream: stream}, nil
}

// begin starts the session once. A caller who gives up breaks the pipe, since half a greeting is on it.
func (l *muxLink) begin(ctx context.Context) (*yamux.Session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != nil || l.err != nil {
		return l.session, l.err
	}
	stop := context.AfterFunc(ctx, func() { l.rw.Close() })
	defer stop()
	nonce := make([]byte, muxNonceSize)
	rand.Read(nonce)
	want := append([]byte(muxMagic), nonce...)
	if _, l.err = l.rw.Write(want); l.err == nil {
		l.err = skipTo(l.rw, want)
	}
	if l.err == nil {
		l.session, l.err = yamux.Client(&pipeConn{l.rw}, muxConfig(), nil)
	}
	if l.err != nil {
		l.err = fmt.Errorf("begin mux session: %w", l.err)
	}
	return l.session, l.err
}

func (l *muxLink) Close() error {
	l.rw.Close() // frees a begin that waits
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != nil {
		l.session.Close()
	}
	l.session, l.err = nil, net.ErrClosed
	return nil
}

// ServeMux serves sessions on a byte pipe, one after the other, until the pipe ends or the context does.
func ServeMux(ctx context.Context, rw io.ReadWriteCloser, srv *Server) error {
	stop := context.AfterFunc(ctx, func() { rw.Close() })
	defer stop()
	greeting := make([]byte, muxNonceSize)
	if err := skipTo(rw, []byte(muxMagic)); err != nil {
		return err
	}
	if _, err := io.ReadFull(rw, greeting); err != nil {
		return err
	}
	if _, err := rw.Write(append([]byte(muxMagic), greeting...)); err != nil {
		return err
	}
	session, err := yamux.Server(&pipeConn{rw}, muxConfig(), nil)
	if err != nil {
		return fmt.Errorf("serve mux session: %w", err)
	}
	defer session.Close()
	return srv.Serve(ctx, muxListener{session})
}

type muxListener struct{ s *yamux.Session }

func (l muxListener) Close() error { return l.s.Close() }

func (l muxListener) Accept() (proxy.Conn, error) {
	stream, err := l.s.AcceptStream()
	if err != nil {
		return nil, errors.Join(net.ErrClosed, err)
	}
	return &muxConn{Stream: stream}, nil
}

// muxConn is a stream whose Close leaves nobody stuck: what is still open is reset after the end of
// our own side, so no byte already written is lost and a peer that goes on writing gets an error.
type muxConn struct{ *yamux.Stream }

// deadline gives yamux's timeout the name that net.Conn promises.
func deadline(n int, err error) (int, error) {
	if errors.Is(err, yamux.ErrTimeout) {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

func (c *muxConn) Read(b []byte) (int, error)  { return deadline(c.Stream.Read(b)) }
func (c *muxConn) Write(b []byte) (int, error) { return deadline(c.Stream.Write(b)) }

func (c *muxConn) Close() error {
	err := c.Stream.CloseWrite()
	return errors.Join(err, c.Stream.Reset())
}

// skipTo reads byte by byte past the first occurrence of want.
func skipTo(r io.Reader, want []byte) error {
	window := make([]byte, 0, 2*len(want))
	var b [1]byte
	for {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return err
		}
		if len(window) == cap(window) {
			window = append(window[:0], window[len(want):]...)
		}
		window = append(window, b[0])
		if bytes.HasSuffix(window, want) {
			return nil
		}
	}
}

// pipeConn makes a net.Conn of a byte pipe. Deadlines do nothing: yamux uses them only to give up on
// a pipe, and the pipe's owner closes it instead.
type pipeConn struct{ io.ReadWriteCloser }

func (*pipeConn) LocalAddr() net.Addr              { return pipeAddr{} }
func (*pipeConn) RemoteAddr() net.Addr             { return pipeAddr{} }
func (*pipeConn) SetDeadline(time.Time) error      { return nil }
func (*pipeConn) SetReadDeadline(time.Time) error  { return nil }
func (*pipeConn) SetWriteDeadline(time.Time) error { return nil }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }
