package ports

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
)

// listener is one bound address.
type listener struct {
	at      netip.AddrPort
	bytes   proxy.Counters // A is the client's side
	open    atomic.Int64
	total   atomic.Int64
	dropped atomic.Int64 // datagrams

	stop   context.CancelFunc
	socket interface{ Close() error }
	ended  chan struct{}

	mu      sync.Mutex
	target  string
	booting bool          // the guest boots: its targets may be those of before, and nothing goes there yet
	aimed   chan struct{} // closed when connections may go to another target
}

// aim sets where new connections go.
func (l *listener) aim(target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if target == "" || target == l.target {
		return
	}
	l.target = target
	l.tellLocked()
}

// disown makes new connections wait for a target that is the next guest's, until settle.
func (l *listener) disown() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target, l.booting = "", true
}

// settle lets connections go to the target, if there is one.
func (l *listener) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.booting = false
	l.tellLocked()
}

func (l *listener) tellLocked() {
	close(l.aimed)
	l.aimed = make(chan struct{})
}

// leads is where connections go, or "" with whether the guest boots, and what is closed when that changes.
func (l *listener) leads() (target string, booting bool, aimed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.booting {
		return "", true, l.aimed
	}
	return l.target, false, l.aimed
}

// close lets go of the address and ends what came through it. The address is free when it returns.
func (l *listener) close() {
	l.stop()
	l.socket.Close()
	<-l.ended
}

// listen binds and serves.
func (p *Publisher) listen(b protocol.Bind, at netip.AddrPort) (*listener, error) {
	ctx, stop := context.WithCancel(p.done)
	l := &listener{at: at, stop: stop, ended: make(chan struct{}), aimed: make(chan struct{}), target: b.Target}
	// One family each: the engine asks for both where it wants both.
	family := "4"
	if at.Addr().Is6() {
		family = "6"
	}
	var serve func()
	switch b.Protocol {
	case "tcp":
		socket, err := net.ListenTCP("tcp"+family, net.TCPAddrFromAddrPort(at))
		if err != nil {
			stop()
			return nil, err
		}
		l.socket = socket
		serve = func() { acceptTCP(ctx, socket, func(c *net.TCPConn) func() { return p.admit(ctx, l, c) }) }
	default:
		socket, err := net.ListenUDP("udp"+family, net.UDPAddrFromAddrPort(at))
		if err != nil {
			stop()
			return nil, err
		}
		l.socket = socket
		serve = func() {
			ServeUDP(ctx, socket, UDP{
				Open: &l.open, Total: &l.total, Dropped: &l.dropped, Bytes: &l.bytes,
				asleep: func(client netip.AddrPort) (waits, stray bool) {
					waits = !p.ready(l)
					return waits, waits && !p.wakes(client.Addr())
				},
				Dial: func(ctx context.Context, client netip.AddrPort) (net.Conn, error) {
					p.log.Info("port", "at", l.at, "protocol", "udp", "client", client)
					c, era, err := p.reach(ctx, ctx, l, "udp")
					if err != nil {
						return nil, err
					}
					return &passage{Conn: Datagrams(c), stop: context.AfterFunc(era, func() { c.Close() })}, nil
				}})
		}
	}
	p.wg.Go(func() {
		defer close(l.ended)
		serve()
	})
	return l, nil
}

// passage is a flow to a container that ends with its era.
type passage struct {
	net.Conn
	stop func() bool
}

func (p *passage) Close() error {
	p.stop()
	return p.Conn.Close()
}

// admit takes a client that was accepted. One that has to wait waits here until there is a place for it.
func (p *Publisher) admit(ctx context.Context, l *listener, client *net.TCPConn) (carry func()) {
	// Counted before it is seen whether the guest is awake: see SuspendIf.
	l.total.Add(1)
	l.open.Add(1)
	var held *place
	if !p.ready(l) {
		h, err := p.hold(ctx, client.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
		if err != nil {
			l.open.Add(-1)
			reset(client)
			return nil
		}
		held = &h
	}
	return func() {
		defer l.open.Add(-1)
		p.carry(ctx, l, client, held)
	}
}

// carry joins a client with the container. A container that does not take the connection shows as a
// reset, as it does without a proxy between, and so does what cuts one: the guest's sleep, its end.
func (p *Publisher) carry(ctx context.Context, l *listener, client *net.TCPConn, held *place) {
	begun := time.Now()
	log := p.log.With(slog.String("at", l.at.String()), slog.String("client", client.RemoteAddr().String()))
	var from proxy.Conn = client
	waiting, stop := ctx, func() {}
	if held != nil {
		listened := listenTo(client, held)
		from, waiting, stop = listened, listened.ctx, listened.stop
	}
	guest, era, err := p.reach(ctx, waiting, l, "tcp")
	stop()
	target, _, _ := l.leads()
	if err != nil {
		reset(client)
		if ctx.Err() == nil {
			log.Info("port", "target", target, "err", err)
		}
		return
	}
	cut := func() {
		client.SetDeadline(time.Unix(1, 0))
		guest.SetDeadline(time.Unix(1, 0))
	}
	defer context.AfterFunc(ctx, cut)()
	defer context.AfterFunc(era, cut)()
	waited := time.Since(begun)
	err = proxy.Join(from, guest, &l.bytes)
	log.Info("port", "target", target, "waited", waited.Round(time.Millisecond), "lasted", time.Since(begun).Round(time.Millisecond), "err", err)
}

// reset closes a connection so that the client does not take it for an answer.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// maxOpen bounds the connections through one listener: each costs two descriptors and two buffers.
const maxOpen = 8192

// ServeTCP accepts until the listener is closed, and handles every connection in a goroutine of its own.
// It returns when all have ended.
func ServeTCP(ctx context.Context, l *net.TCPListener, handle func(*net.TCPConn)) {
	acceptTCP(ctx, l, func(c *net.TCPConn) func() { return func() { handle(c) } })
}

// acceptTCP is ServeTCP with a word on each connection before the next is accepted; nil is no.
func acceptTCP(ctx context.Context, l *net.TCPListener, admit func(*net.TCPConn) (handle func())) {
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, maxOpen)
	for {
		c, err := l.AcceptTCP()
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed) || ctx.Err() != nil:
			return
		default: // out of descriptors or memory: let what is open end first
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			c.Close()
			return
		}
		handle := admit(c)
		if handle == nil {
			<-room
			continue
		}
		wg.Go(func() { defer func() { <-room }(); handle() })
	}
}
