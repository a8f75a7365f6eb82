// Package ports publishes ports: it listens on addresses of the host and carries what comes there to
// addresses in the guest's network, over the transport. A [Publisher] has bound before Bind returns and
// has let go before Release returns; what connects before the target is known waits. It also holds the
// pieces that the guest's own side of published ports is made of: [ServeTCP], [ServeUDP], [Datagrams].
package ports

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
)

// MaxBinds bounds the ports of one guest: each protocol has 65,535, and a person publishes tens.
const MaxBinds = 20000

// dialPatience bounds the way from an accepted connection to the container.
const dialPatience = 30 * time.Second

// Publisher holds the ports of one guest.
type Publisher struct {
	dialer proxy.Dialer
	log    *slog.Logger
	done   context.Context
	end    context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	ports map[string]*port
}

// port is one published address and its companion, if it has one.
type port struct {
	bind      protocol.Bind
	since     time.Time
	listeners []*listener
}

// Port is a published address as it is now.
type Port struct {
	Bind    protocol.Bind
	Also    string // a second address that is bound with it: see companion
	Since   time.Time
	Open    int64 // connections, or flows of datagrams
	Total   int64 // since it was bound
	Inward  int64 // bytes to the container
	Outward int64 // bytes from it
}

// New returns a Publisher that reaches containers by the dialer's protocol.ServiceConnect.
func New(dialer proxy.Dialer, log *slog.Logger) *Publisher {
	done, end := context.WithCancel(context.Background())
	return &Publisher{dialer: dialer, log: log, done: done, end: end, ports: map[string]*port{}}
}

// Close lets go of everything and waits until nothing runs.
func (p *Publisher) Close() {
	p.end()
	p.mu.Lock()
	for key := range p.ports {
		p.releaseLocked(key)
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// Bind listens, or gives a port that is held under this key its target. The error is a *protocol.AskError.
func (p *Publisher) Bind(b protocol.Bind) error {
	at, err := check(b)
	if err != nil {
		return &protocol.AskError{Kind: protocol.AskNotOffered, Text: err.Error()}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done.Err() != nil {
		return &protocol.AskError{Kind: protocol.AskFailed, Text: "the host lets go of its ports"}
	}
	if held := p.ports[b.Key]; held != nil {
		if held.bind.Protocol == b.Protocol && held.bind.Address == b.Address {
			held.bind = b
			for _, l := range held.listeners {
				l.aim(b.Target)
			}
			return nil
		}
		p.releaseLocked(b.Key)
	}
	if len(p.ports) >= MaxBinds {
		return &protocol.AskError{Kind: protocol.AskNotOffered, Text: fmt.Sprintf("listen on %s: %d ports are published already", at, len(p.ports))}
	}
	p.evictLocked(b.Protocol, at)
	l, err := p.listen(b, at)
	if err != nil {
		return asked(b, at, err)
	}
	held := &port{bind: b, since: time.Now(), listeners: []*listener{l}}
	if also, is := companion(at); is {
		// The first one is what was asked for, so nothing is lost where somebody else has this.
		if l, err := p.listen(b, also); err == nil {
			held.listeners = append(held.listeners, l)
		} else {
			p.log.Info("port", "not bound", also, "with", at, "err", err)
		}
	}
	p.ports[b.Key] = held
	p.log.Info("port", "bound", at, "protocol", b.Protocol, "target", b.Target)
	return nil
}

// companion is ::1 for 127.0.0.1: "localhost" is both, and clients try either first. The engine's default
// address can be one address only.
func companion(at netip.AddrPort) (netip.AddrPort, bool) {
	if at.Addr() != netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), at.Port()), true
}

// evictLocked takes a companion away where its address is asked for by name.
func (p *Publisher) evictLocked(protocol string, at netip.AddrPort) {
	for _, held := range p.ports {
		if len(held.listeners) > 1 && held.bind.Protocol == protocol && overlaps(held.listeners[1].at, at) {
			held.listeners[1].close()
			held.listeners = held.listeners[:1]
		}
	}
}

func overlaps(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && (a.Addr() == b.Addr() || b.Addr() == netip.IPv6Unspecified())
}

// check takes an address apart. The guest is not trusted to name one.
func check(b protocol.Bind) (netip.AddrPort, error) {
	at, err := netip.ParseAddrPort(b.Address)
	switch {
	case err != nil:
		return at, fmt.Errorf("%q is no address to listen on", clip(b.Address))
	case at.Port() == 0 || at.Addr().IsMulticast():
		return at, fmt.Errorf("%s is no address to listen on", at)
	case b.Protocol != "tcp" && b.Protocol != "udp":
		return at, fmt.Errorf("ports of the protocol %q are not published", clip(b.Protocol))
	case len(b.Key) == 0 || len(b.Key) > 200:
		return at, errors.New("a port's key has 1 to 200 bytes")
	}
	if b.Target != "" {
		if _, err := netip.ParseAddrPort(b.Target); err != nil {
			return at, fmt.Errorf("%q is no target", clip(b.Target))
		}
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), nil
}

func clip(s string) string { return s[:min(len(s), 100)] }

// asked is why the host does not listen, in the words of the guest's ask.
func asked(b protocol.Bind, at netip.AddrPort, err error) *protocol.AskError {
	e := &protocol.AskError{Kind: protocol.AskFailed, Text: fmt.Sprintf("listen on the host's %s/%s: %v", at, b.Protocol, err)}
	switch {
	case inUse(err):
		e.Kind, e.Text = protocol.AskInUse, fmt.Sprintf("the host's %s/%s: address already in use", at, b.Protocol)
	case noAddress(err):
		e.Kind, e.Text = protocol.AskNoAddress, fmt.Sprintf("the host has no address %s", at.Addr())
	case denied(err):
		e.Kind, e.Text = protocol.AskDenied, fmt.Sprintf("the host's system does not let its user listen on %s/%s", at, b.Protocol)
	}
	return e
}

// Release lets go of a port and of its connections.
func (p *Publisher) Release(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.releaseLocked(key)
}

func (p *Publisher) releaseLocked(key string) {
	held := p.ports[key]
	if held == nil {
		return
	}
	delete(p.ports, key)
	for _, l := range held.listeners {
		l.close()
	}
	p.log.Info("port", "released", held.bind.Address, "protocol", held.bind.Protocol)
}

// Hold makes these the only ports. What is held already stays as it is; the error joins those of what
// could not be bound.
func (p *Publisher) Hold(binds []protocol.Bind) error {
	p.mu.Lock()
	for key := range p.ports {
		if !slices.ContainsFunc(binds, func(b protocol.Bind) bool { return b.Key == key }) {
			p.releaseLocked(key)
		}
	}
	p.mu.Unlock()
	var errs []error
	for _, b := range binds {
		if err := p.Bind(b); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// List is every port, by protocol, number and address.
func (p *Publisher) List() []Port {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Port
	for _, held := range p.ports {
		one := Port{Bind: held.bind, Since: held.since}
		for i, l := range held.listeners {
			if i > 0 {
				one.Also = l.at.String()
			}
			one.Open += l.open.Load()
			one.Total += l.total.Load()
			one.Inward += l.bytes.AtoB.Load()
			one.Outward += l.bytes.BtoA.Load()
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Port) int {
		x, _ := netip.ParseAddrPort(a.Bind.Address)
		y, _ := netip.ParseAddrPort(b.Bind.Address)
		return cmp.Or(cmp.Compare(x.Port(), y.Port()), cmp.Compare(a.Bind.Protocol, b.Bind.Protocol), x.Addr().Compare(y.Addr()))
	})
	return all
}

// connect opens a connection to a container: a stream, or a flow of datagrams.
func (p *Publisher) connect(ctx context.Context, network, target string) (proxy.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	return p.dialer.Dial(ctx, protocol.ConnectService(network, target))
}
