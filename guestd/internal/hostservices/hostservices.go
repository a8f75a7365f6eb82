//go:build linux

// Package hostservices gives containers a way to services of the host's user, such as the ssh agent: a
// socket in the guest for each, which a container sees only when it mounts it. Who connects there waits
// until the host, which alone dials, has dialled back; a connection that nobody asked for is refused. A
// host that does not come, and a flood of callers, cost a bounded number of waiting connections for a
// bounded time.
package hostservices

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
)

// AgentSocket is where containers find the user's ssh agent: where Docker Desktop has it, so that what is
// written for that works.
const AgentSocket = "/run/host-services/ssh-auth.sock"

const (
	// maxWaiting bounds the connections that wait for the host. A flood takes no more than this of the
	// room that the host has for asks (64), most of which belongs to ports.
	maxWaiting = 16
	// maxOpen bounds all of them: an agent's clients ask and go, so this is many.
	maxOpen = 256
	// patience bounds the wait for the host to dial back.
	patience = 15 * time.Second
)

// asker asks the host.
type asker interface {
	Ask(context.Context, protocol.Ask) error
}

// Doors are the sockets and who waits at them.
type Doors struct {
	host    asker
	waiting chan struct{}
	open    chan struct{}

	mu    sync.Mutex
	last  uint64            // the newest call
	calls map[uint64]caller // those that the host may take
}

// caller waits for the host.
type caller struct {
	conn  *net.UnixConn
	taken chan struct{} // closed when the host came
}

// New returns Doors that ask this host.
func New(host asker) *Doors {
	return &Doors{host: host, waiting: make(chan struct{}, maxWaiting), open: make(chan struct{}, maxOpen), calls: map[uint64]caller{}}
}

// Listen makes the socket of a service. Every user of a container may connect: who may is decided by who
// may mount it.
func Listen(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Serve takes connections to a service of the host until the listener is closed, and waits for them.
func (d *Doors) Serve(l *net.UnixListener, service string) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		d.open <- struct{}{} // more wait in the socket's queue
		conn, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			<-d.open
			slog.Warn("accept", "service", service, "err", err)
			time.Sleep(100 * time.Millisecond) // out of descriptors: let what is open end first
			continue
		}
		wg.Go(func() {
			defer func() { <-d.open }()
			// What the host refuses stands in its own log.
			var refused *protocol.AskError
			if err := d.call(conn, service); err != nil && !errors.As(err, &refused) {
				slog.Warn("the host's service is not reached", "service", service, "err", err)
			}
		})
	}
}

// call asks the host to come and waits for it. It returns when the connection has ended.
func (d *Doors) call(conn *net.UnixConn, service string) error {
	defer conn.Close()
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, fmt.Errorf("the host did not come in %v", patience))
	defer cancel()
	select {
	case d.waiting <- struct{}{}:
	case <-ctx.Done():
		return errors.New("too many wait for the host")
	}
	c := caller{conn: conn, taken: make(chan struct{})}
	d.mu.Lock()
	d.last++
	id := d.last
	d.calls[id] = c
	d.mu.Unlock()
	err := d.host.Ask(ctx, protocol.Ask{Open: &protocol.Open{Service: service, Call: id}})
	<-d.waiting
	if d.take(id) == nil {
		<-c.taken // the host has it, and ends it
		return nil
	}
	if err == nil {
		err = errors.New("the host said that it came, and did not")
	}
	return err
}

// take gives a caller to whoever is first.
func (d *Doors) take(id uint64) *caller {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, is := d.calls[id]
	if !is {
		return nil
	}
	delete(d.calls, id)
	return &c
}

// Callback is the handler of protocol.ServiceCallback: it joins the host to who waits for it.
func (d *Doors) Callback(host proxy.Conn) {
	id, err := protocol.ParseCallback(transport.Argument(host))
	if err != nil {
		transport.Refuse(host, "which call?")
		return
	}
	c := d.take(id)
	if c == nil {
		transport.Refuse(host, "nobody waits for this call")
		return
	}
	defer close(c.taken)
	defer c.conn.Close()
	if transport.Accept(host) != nil {
		return
	}
	proxy.Join(c.conn, host, nil)
}
