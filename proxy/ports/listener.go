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

// listener is one bound address. What comes before it is aimed waits: a stream in the kernel's queue, a
// datagram in the socket's buffer.
type listener struct {
	at    netip.AddrPort
	bytes proxy.Counters // A is the client's side
	open  atomic.Int64
	total atomic.Int64

	stop   context.CancelFunc
	socket interface{ Close() error }
	ended  chan struct{}

	mu     sync.Mutex
	target string
	aimed  chan struct{} // closed at the first target
}

// aim sets where new connections go.
func (l *listener) aim(target string) {
	if target == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.target == "" {
		close(l.aimed)
	}
	l.target = target
}

func (l *listener) aimedAt() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.target
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
	l := &listener{at: at, stop: stop, ended: make(chan struct{}), aimed: make(chan struct{})}
	l.aim(b.Target)
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
		serve = func() {
			ServeTCP(ctx, socket, func(client *net.TCPConn) { p.carry(ctx, l, client) })
		}
	default:
		socket, err := net.ListenUDP("udp"+family, net.UDPAddrFromAddrPort(at))
		if err != nil {
			stop()
			return nil, err
		}
		l.socket = socket
		serve = func() {
			ServeUDP(ctx, socket, UDP{
				Open: &l.open, Total: &l.total, Bytes: &l.bytes,
				Dial: func(client netip.AddrPort) (net.Conn, error) {
					p.log.Info("port", "at", l.at, "protocol", "udp", "client", client)
					c, err := p.connect(ctx, "udp", l.aimedAt())
					if err != nil {
						return nil, err
					}
					return Datagrams(c), nil
				}})
		}
	}
	p.wg.Go(func() {
		defer close(l.ended)
		select {
		case <-l.aimed:
			serve()
		case <-ctx.Done():
		}
	})
	return l, nil
}

// carry joins a client with the container. A container that does not take the connection shows as a
// reset, as it does without a proxy between.
func (p *Publisher) carry(ctx context.Context, l *listener, client *net.TCPConn) {
	begun := time.Now()
	l.total.Add(1)
	l.open.Add(1)
	defer l.open.Add(-1)
	target := l.aimedAt()
	log := p.log.With(slog.String("at", l.at.String()), slog.String("client", client.RemoteAddr().String()))
	guest, err := p.connect(ctx, "tcp", target)
	if err != nil {
		client.SetLinger(0)
		client.Close()
		if ctx.Err() == nil {
			log.Info("port", "target", target, "err", err)
		}
		return
	}
	stop := context.AfterFunc(ctx, func() { client.Close(); guest.Close() })
	defer stop()
	err = proxy.Join(client, guest, &l.bytes)
	log.Info("port", "target", target, "lasted", time.Since(begun).Round(time.Millisecond), "err", err)
}

// maxOpen bounds the connections through one listener: each costs two descriptors and two buffers.
const maxOpen = 8192

// ServeTCP accepts until the listener is closed, and handles every connection in a goroutine of its own.
// It returns when all have ended.
func ServeTCP(ctx context.Context, l *net.TCPListener, handle func(*net.TCPConn)) {
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
		wg.Go(func() { defer func() { <-room }(); handle(c) })
	}
}
