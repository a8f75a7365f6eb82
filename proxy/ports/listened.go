package ports

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// maxAhead is how much of what a client says is read while it is held: a request's head mostly. After it
// nobody notices when the client leaves.
const maxAhead = 2 << 10

// listened is a client that is held. What it says meanwhile is kept for whoever reads it, so that one
// that leaves is noticed. The end of what it says is none: it may be a half-close.
type listened struct {
	*net.TCPConn
	ctx   context.Context // of the wait: ends when the client leaves
	end   context.CancelCauseFunc
	place *place
	ahead []byte
	wg    sync.WaitGroup
}

// errLeft is why a wait ends whose client went away.
var errLeft = errors.New("the client went away")

func listenTo(client *net.TCPConn, held *place) *listened {
	c := &listened{TCPConn: client, place: held}
	c.ctx, c.end = context.WithCancelCause(held.ctx)
	c.wg.Go(c.listen)
	return c
}

func (c *listened) listen() {
	b := make([]byte, maxAhead)
	n := 0
	for n < len(b) {
		m, err := c.TCPConn.Read(b[n:])
		n += m
		switch {
		case err == nil:
			continue
		case err == io.EOF && c.place.stray: // it waits for nothing that it was promised
			c.end(errLeft)
		case err != io.EOF && !errors.Is(err, os.ErrDeadlineExceeded):
			c.end(errLeft)
		}
		break
	}
	c.ahead = append(c.ahead, b[:n]...) // no more than it said
}

// stop ends the wait. Reads go on where the client's words began.
func (c *listened) stop() {
	c.SetReadDeadline(time.Unix(1, 0))
	c.wg.Wait()
	c.SetReadDeadline(time.Time{})
	c.end(nil)
	c.place.end()
}

// Read gives what was read ahead, then what comes.
func (c *listened) Read(b []byte) (int, error) {
	if len(c.ahead) == 0 {
		return c.TCPConn.Read(b)
	}
	n := copy(b, c.ahead)
	if c.ahead = c.ahead[n:]; len(c.ahead) == 0 {
		c.ahead = nil
	}
	return n, nil
}
