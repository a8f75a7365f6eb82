package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/covedesk/cove/proxy"
)

// Client dials services of the guest over one link.
type Client struct {
	link   proxy.Link
	secret Secret
	warm   warm
}

var _ proxy.Dialer = (*Client)(nil)

// New returns a Client on the link.
func New(link proxy.Link, secret Secret) *Client { return &Client{link: link, secret: secret} }

// Link names the link, such as "vsock".
func (c *Client) Link() string { return c.link.String() }

// Dial opens an authenticated connection to a service. A peer that is not our guest is
// ErrNotOurGuest, a service that our guest does not give a *RefusedError. After KeepWarm the connection
// may be one that was opened before.
func (c *Client) Dial(ctx context.Context, service string) (proxy.Conn, error) {
	if conn, err, is := c.dialWarm(ctx, service); is {
		return conn, err
	}
	return c.dial(ctx, service)
}

// within runs f on a connection whose deadlines follow the context.
func within(ctx context.Context, conn proxy.Conn, f func() error) error {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

func (c *Client) dial(ctx context.Context, service string) (proxy.Conn, error) {
	conn, err := c.link.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("dial guest over %s: %w", c.link, err)
	}
	if err := within(ctx, conn, func() error { return greet(conn, c.secret, service) }); err != nil {
		conn.Close()
		return nil, fmt.Errorf("dial guest service %q over %s: %w", service, c.link, err)
	}
	return conn, nil
}

// EchoService sends back all it gets and ends its side when the caller has ended his.
const EchoService = "echo"

// SelfTest shows that half-close works: a message, the end of our side, then the whole message back
// and the end of theirs.
func SelfTest(ctx context.Context, d proxy.Dialer) error {
	conn, err := d.Dial(ctx, EchoService)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	message := bytes.Repeat([]byte("half-close "), 1000) // more than one packet of any link
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write(message)
		written <- errors.Join(err, conn.CloseWrite())
	}()
	back, err := io.ReadAll(conn)
	if werr := <-written; err == nil {
		err = werr
	}
	if err != nil {
		return fmt.Errorf("self-test: %w", err)
	}
	if !bytes.Equal(back, message) {
		return fmt.Errorf("self-test: %d of %d bytes came back after a half-close", len(back), len(message))
	}
	return nil
}

// Attempt is what came of one link's self-test.
type Attempt struct {
	Link string
	Err  error // nil: it works
	Took time.Duration
}

// selfTestPatience bounds the test of one link. A round trip takes milliseconds even under emulation.
const selfTestPatience = 15 * time.Second

// Choose tests the links in order and returns a Client on the first that works, with what came of
// every one tried. Without any the error joins theirs.
func Choose(ctx context.Context, links []proxy.Link, secret Secret) (*Client, []Attempt, error) {
	var attempts []Attempt
	var errs []error
	for _, l := range links {
		c := New(l, secret)
		start := time.Now()
		test, cancel := context.WithTimeout(ctx, selfTestPatience)
		err := SelfTest(test, c)
		cancel()
		attempts = append(attempts, Attempt{Link: l.String(), Err: err, Took: time.Since(start)})
		if err == nil {
			return c, attempts, nil
		}
		if ctx.Err() != nil {
			return nil, attempts, ctx.Err()
		}
		errs = append(errs, fmt.Errorf("%s: %w", l, err))
	}
	return nil, attempts, fmt.Errorf("no way to the guest works: %w", errors.Join(errs...))
}
