package transport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/covedesk/cove/proxy"
	"github.com/libp2p/go-yamux/v5"
)

// A multiplexer over one byte pipe, for where nothing better is there. A pipe such as a virtio-serial
// port outlives its users and holds the rest of what an older one said, cut off anywhere. So:
//
//	host  → guest  as many zeros as complete any record, muxMagic, a nonce
//	guest → host   muxMagic, the same nonce
//	both           yamux in records: recordMark, length in three bytes, as many bytes
//
// Zeros where a record should begin end the guest's old session, and it looks for a new greeting. What
// containers send is inside of records, where no greeting is looked for.
const (
	muxMagic     = "COVEMUX\n"
	muxNonceSize = 16

	recordMark   = 0xc5
	recordHeader = 4
	maxRecord    = 64 << 10 // yamux's largest message, header included
)

func muxConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false                   // a paused guest is not a dead one
	c.MeasureRTTInterval = 24 * 365 * time.Hour // its timer would wake an idle daemon
	c.ConnectionWriteTimeout = 24 * 365 * time.Hour
	c.InitialStreamWindowSize = 1 << 20
	c.MaxStreamWindowSize = 4 << 20
	c.ReadBufSize = 0 // the records are read through a buffer already
	c.MaxMessageSize = maxRecord
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
	return newMuxConn(stream), nil
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
	greeting := make([]byte, recordHeader+maxRecord, recordHeader+maxRecord+len(muxMagic)+muxNonceSize)
	greeting = append(greeting, muxMagic...)
	want := greeting[recordHeader+maxRecord : cap(greeting)]
	rand.Read(want[len(muxMagic):])
	// Both at once: the guest may not hear us before it has got rid of its own rest.
	written := make(chan error, 1)
	go func() {
		_, err := l.rw.Write(greeting[:cap(greeting)])
		if err != nil {
			l.rw.Close()
		}
		written <- err
	}()
	in := bufio.NewReaderSize(l.rw, maxRecord)
	l.err = skipTo(in, want)
	if l.err != nil {
		l.rw.Close()
	}
	if err := <-written; err != nil {
		l.err = err
	}
	if l.err == nil {
		l.session, l.err = yamux.Client(&records{in: in, out: l.rw, close: l.rw.Close}, muxConfig(), nil)
	}
	if ctx.Err() != nil && l.err != nil {
		l.err = context.Cause(ctx)
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
// A host that begins anew ends the session before it.
func ServeMux(ctx context.Context, rw io.ReadWriteCloser, srv *Server) error {
	stop := context.AfterFunc(ctx, func() { rw.Close() })
	defer stop()
	defer rw.Close()
	var serving sync.WaitGroup
	defer serving.Wait()
	in := bufio.NewReaderSize(rw, maxRecord)
	var writing sync.Mutex
	for {
		if err := skipTo(in, []byte(muxMagic)); err != nil {
			return err
		}
		answer := append([]byte(muxMagic), make([]byte, muxNonceSize)...)
		if _, err := io.ReadFull(in, answer[len(muxMagic):]); err != nil {
			return err
		}
		writing.Lock()
		_, err := rw.Write(answer)
		writing.Unlock()
		if err != nil {
			return err
		}
		r := &records{in: in, out: rw, writing: &writing}
		r.close = func() error {
			if r.broken.Load() {
				return rw.Close() // a read that waits would hold yamux
			}
			return nil
		}
		session, err := yamux.Server(r, muxConfig(), nil)
		if err != nil {
			return fmt.Errorf("serve mux session: %w", err)
		}
		// A service that ends slowly holds up no new session.
		serving.Go(func() { srv.Serve(ctx, muxListener{session}) })
		<-session.CloseChan()
		session.Close() // returns when yamux reads the pipe no more
	}
}

type muxListener struct{ s *yamux.Session }

func (l muxListener) Close() error { return l.s.Close() }

func (l muxListener) Accept() (proxy.Conn, error) {
	stream, err := l.s.AcceptStream()
	if err != nil {
		return nil, errors.Join(net.ErrClosed, err)
	}
	return newMuxConn(stream), nil
}

// skipTo reads byte by byte past the first occurrence of want.
func skipTo(r io.ByteReader, want []byte) error {
	window := make([]byte, 0, 2*len(want))
	for {
		b, err := r.ReadByte()
		if err != nil {
			return err
		}
		if len(window) == cap(window) {
			window = append(window[:0], window[len(want)+1:]...) // what the end of may yet match
		}
		window = append(window, b)
		if bytes.HasSuffix(window, want) {
			return nil
		}
	}
}
