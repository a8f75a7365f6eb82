package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/covedesk/cove/proxy"
)

// laterService is a connection that says later which service it is for: one byte of length and the name.
// It is authenticated as any other; nobody but the two ends can write to it.
const laterService = "later"

// warmPatience bounds the opening of a connection for later: nobody waits for it.
const warmPatience = 30 * time.Second

// warm are connections that wait for a service.
type warm struct {
	mu      sync.Mutex
	most    int
	idle    []proxy.Conn
	filling bool
}

// KeepWarm keeps so many connections open for later: a Dial that finds one costs one round trip in place
// of three and a handshake. It is for a link that has passed its self-test; the link's Close ends them. Those that
// are too many are closed: 0 is for a Client that is not used any more.
func (c *Client) KeepWarm(most int) {
	w := &c.warm
	w.mu.Lock()
	w.most = most
	for len(w.idle) > most {
		w.idle[0].Close()
		w.idle = w.idle[1:]
	}
	w.mu.Unlock()
	c.fill()
}

// fill opens what is missing, in a goroutine of which there is one at a time.
func (c *Client) fill() {
	w := &c.warm
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.filling || len(w.idle) >= w.most {
		return
	}
	w.filling = true
	go func() {
		for {
			ctx, cancel := context.WithTimeout(context.Background(), warmPatience)
			conn, err := c.openLater(ctx)
			cancel()
			w.mu.Lock()
			if err == nil && len(w.idle) < w.most {
				w.idle = append(w.idle, conn)
			} else if err == nil {
				conn.Close()
			}
			if err != nil || len(w.idle) >= w.most {
				w.filling = false // the next Dial tries again
				w.mu.Unlock()
				return
			}
			w.mu.Unlock()
		}
	}()
}

// openLater opens and authenticates a connection. The answer comes when it has its service.
func (c *Client) openLater(ctx context.Context) (proxy.Conn, error) {
	conn, err := c.link.Open(ctx)
	if err != nil {
		return nil, err
	}
	if err := within(ctx, conn, func() error { return prove(conn, c.secret, laterService) }); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// dialWarm gives a service on a connection that waits, and says whether it did, or whether the guest
// refused. One that died while it waited is passed over.
func (c *Client) dialWarm(ctx context.Context, service string) (proxy.Conn, error, bool) {
	for ctx.Err() == nil && len(service) <= maxService {
		w := &c.warm
		w.mu.Lock()
		if len(w.idle) == 0 {
			w.mu.Unlock()
			break
		}
		conn := w.idle[0]
		w.idle = w.idle[1:]
		w.mu.Unlock()
		c.fill()
		err := within(ctx, conn, func() error {
			if _, err := conn.Write(append([]byte{byte(len(service))}, service...)); err != nil {
				return err
			}
			return answered(conn, service)
		})
		if err == nil {
			return conn, nil, true
		}
		conn.Close()
		var refused *RefusedError
		if errors.As(err, &refused) || ctx.Err() != nil {
			return nil, fmt.Errorf("dial guest service %q over %s: %w", service, c.link, err), true
		}
	}
	if ctx.Err() == nil {
		c.fill()
	}
	return nil, nil, false
}

// laterName reads which service a connection is for after all.
func laterName(c io.Reader) (string, error) {
	var size [1]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return "", err
	}
	if size[0] > maxService {
		return "", ErrNotOurHost
	}
	name := make([]byte, size[0])
	_, err := io.ReadFull(c, name)
	return string(name), err
}
