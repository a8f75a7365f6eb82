package transport

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/covedesk/cove/proxy"
	"github.com/libp2p/go-yamux/v5"
)

// muxConn makes of a yamux stream what proxy.Conn promises: errors have net's names, several may write
// at once, and one who gives up reading or closes leaves nobody stuck.
type muxConn struct {
	stream *yamux.Stream

	// yamux takes the credit for each Write before the one under way has spent it: two at once end
	// the whole session. Two readers can miss each other's wake-ups.
	reading, writing sync.Mutex

	mu           sync.Mutex
	readDeadline time.Time
	deaf, closed bool
	once         sync.Once
}

var _ proxy.Conn = (*muxConn)(nil)

func newMuxConn(s *yamux.Stream) *muxConn { return &muxConn{stream: s} }

func (c *muxConn) Read(b []byte) (int, error) {
	if err := c.readable(); err != nil { // who gave up reading holds the lock from then on
		return 0, err
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	if err := c.readable(); err != nil {
		return 0, err
	}
	n, err := c.stream.Read(b)
	return n, c.name(err, true)
}

// readable says why nothing can be read.
func (c *muxConn) readable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.deaf || c.closed:
		return net.ErrClosed
	case !c.readDeadline.IsZero() && !time.Now().Before(c.readDeadline):
		// Not left to yamux, which then hands out bytes but not the credit for them, until the peer stalls.
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (c *muxConn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	n, err := c.stream.Write(b)
	return n, c.name(err, false)
}

// name gives yamux's errors the names that net.Conn promises and proxy.Join knows.
func (c *muxConn) name(err error, reads bool) error {
	if err == nil || err == io.EOF {
		return err
	}
	c.mu.Lock()
	over := c.closed || reads && c.deaf
	c.mu.Unlock()
	var reset *yamux.StreamError
	switch {
	case over || errors.Is(err, yamux.ErrStreamClosed):
		return net.ErrClosed
	case errors.Is(err, yamux.ErrTimeout):
		return os.ErrDeadlineExceeded
	case !reads && errors.As(err, &reset) && reset.Remote:
		return errors.Join(io.ErrClosedPipe, err) // the peer is gone
	}
	return err
}

func (c *muxConn) CloseWrite() error {
	if err := c.stream.CloseWrite(); err != nil && !errors.Is(err, yamux.ErrStreamReset) {
		return err
	}
	return nil // a peer that is gone needs no word
}

// CloseRead gives up what the peer sends. yamux would let it fill its window and then wait for ever, so
// what comes is taken and thrown away until either side closes.
func (c *muxConn) CloseRead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deaf || c.closed {
		return nil
	}
	c.deaf = true
	c.stream.SetReadDeadline(time.Unix(1, 0)) // ends a Read that waits
	go func() {                               // ends with the stream
		c.reading.Lock()
		defer c.reading.Unlock()
		c.stream.SetReadDeadline(time.Time{})
		io.Copy(io.Discard, c.stream)
	}()
	return nil
}

// Close ends our side and then resets what is still open, so that no byte already written is lost and
// a peer that goes on writing gets an error.
func (c *muxConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.once.Do(func() {
		c.stream.CloseWrite()
		c.stream.Reset()
	})
	return nil
}

func (c *muxConn) LocalAddr() net.Addr  { return pipeAddr{} }
func (c *muxConn) RemoteAddr() net.Addr { return pipeAddr{} }

func (c *muxConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *muxConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deaf || c.closed {
		return nil
	}
	c.readDeadline = t
	return c.stream.SetReadDeadline(t)
}

func (c *muxConn) SetWriteDeadline(t time.Time) error { return c.stream.SetWriteDeadline(t) }
