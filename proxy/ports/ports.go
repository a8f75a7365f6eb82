// Package ports publishes ports: it listens on addresses of the host and carries what comes there to
// addresses in the guest's network, over the transport. A [Publisher] has bound before Bind returns and
// has let go before Release returns. It outlives the guest's VM: what comes while the guest sleeps, or
// before its target is known, wakes it and waits. It also holds the pieces that the guest's own side of
// published ports is made of: [ServeTCP], [ServeUDP], [Datagrams].
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

// retryEvery is how often a port that was to be held and could not be bound is tried again.
const retryEvery = 5 * time.Second

// Options are what a Publisher needs of its owner.
type Options struct {
	Log *slog.Logger
	// Wake asks for the guest on behalf of a client at this address, and says whether he may. It is called
	// for each connection and each datagram that has to wait while the guest sleeps, and must not wait
	// itself. One that comes while the guest is about to sleep must not be forgotten: it is not said again.
	// Those who may not wake it wait until somebody else does. Nil: nobody wakes it, and all wait alike.
	Wake func(client netip.Addr) bool
}

// Publisher holds the ports of one guest, over all its sleeps. It begins asleep: see Lead.
type Publisher struct {
	log    *slog.Logger
	wake   func(netip.Addr) bool
	retry  time.Duration
	way    *way
	done   context.Context
	end    context.CancelFunc
	wg     sync.WaitGroup
	strays strays
	held   chan struct{} // places of those who wait
	// dialling are the turns of those who waited.
	dialling chan struct{}

	mu       sync.Mutex
	ports    map[string]*port
	past     Activity // of ports that are no more
	retrying bool
}

// port is one published address and its companion, if it has one.
type port struct {
	bind      protocol.Bind
	since     time.Time
	listeners []*listener // none: fault says why
	fault     string
	kept      bool // from Disown to Settle
	orphan    bool // one that is kept, and that the guest has not bound, or has released again
}

// Port is a published address as it is now.
type Port struct {
	Bind    protocol.Bind
	Also    string // a second address that is bound with it: see companion
	Fault   string // why it is not bound; it is tried again
	Since   time.Time
	Open    int64 // connections, or flows of datagrams, those that wait among them
	Total   int64 // since it was bound
	Inward  int64 // bytes to the container
	Outward int64 // bytes from it
	Dropped int64 // datagrams that there was no room for
}

// New returns a Publisher without a guest.
func New(o Options) *Publisher {
	done, end := context.WithCancel(context.Background())
	return &Publisher{log: o.Log, wake: o.Wake, retry: retryEvery, way: newWay(), done: done, end: end, ports: map[string]*port{},
		held: make(chan struct{}, maxHeld), dialling: make(chan struct{}, maxDialling)}
}

// Lead says that the guest is awake: containers are reached by the dialer's protocol.ServiceConnect, and
// those who wait go through.
func (p *Publisher) Lead(d proxy.Dialer) { p.way.lead(d) }

// Suspend says that the guest sleeps or is gone. What went through ends with a reset towards the client;
// what comes from now on, and what had not reached its container yet, waits for Lead.
func (p *Publisher) Suspend() { p.way.suspend() }

// SuspendIf is Suspend if there was nothing since the Activity was read, and says whether there was not.
// Nobody slips through between the two: who comes too late for one waits for the next Lead.
func (p *Publisher) SuspendIf(quiet Activity) bool {
	d := p.way.turn(nil)
	if p.Activity() != quiet {
		p.way.turn(d)
		return false
	}
	p.way.suspend()
	return true
}

// Activity is how much the ports are used.
type Activity struct {
	Open  int64 // connections and flows of datagrams now
	Total int64 // since the Publisher was made
	Bytes int64 // both ways, since then
}

// Activity is how much the ports are used, in all.
func (p *Publisher) Activity() Activity {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.past
	for _, held := range p.ports {
		for _, l := range held.listeners {
			a.add(l)
		}
	}
	return a
}

func (a *Activity) add(l *listener) {
	a.Open += l.open.Load()
	a.Total += l.total.Load()
	a.Bytes += l.bytes.AtoB.Load() + l.bytes.BtoA.Load()
}

// Close lets go of everything and waits until nothing runs.
func (p *Publisher) Close() {
	p.end()
	p.Clear()
	p.wg.Wait()
}

// Clear lets go of every port, because there is no guest any more.
func (p *Publisher) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.ports {
		p.releaseLocked(key)
	}
}

// Bind listens, or gives a port that is held under this key its target. The error is a *protocol.AskError.
func (p *Publisher) Bind(b protocol.Bind) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.bindLocked(b)
	return err
}

// bindLocked says with an error whether it may be another time.
func (p *Publisher) bindLocked(b protocol.Bind) (later bool, _ error) {
	at, err := check(b)
	if err != nil {
		return false, &protocol.AskError{Kind: protocol.AskNotOffered, Text: err.Error()}
	}
	if p.done.Err() != nil {
		return false, &protocol.AskError{Kind: protocol.AskFailed, Text: "the host lets go of its ports"}
	}
	held := p.ports[b.Key]
	if held != nil && (held.bind.Protocol != b.Protocol || held.bind.Address != b.Address) {
		p.releaseLocked(b.Key)
		held = nil
	}
	switch {
	case held == nil && len(p.ports) >= MaxBinds:
		return false, &protocol.AskError{Kind: protocol.AskNotOffered, Text: fmt.Sprintf("listen on %s: %d ports are published already", at, len(p.ports))}
	case held == nil:
		held = &port{since: time.Now()}
	}
	held.bind, held.orphan = b, false
	if len(held.listeners) > 0 {
		for _, l := range held.listeners {
			l.aim(b.Target)
		}
		return false, nil
	}
	p.evictLocked(b.Protocol, at)
	l, err := p.listen(b, at)
	if err != nil {
		e := asked(b, at, err)
		held.fault = e.Text
		return true, e
	}
	held.listeners, held.fault = []*listener{l}, ""
	if also, is := companion(at); is {
		// The first one is what was asked for, so nothing is lost where somebody else has this.
		if l, err := p.listen(b, also); err == nil {
			held.listeners = append(held.listeners, l)
		} else {
			p.log.Info("port", "not bound", also, "with", at, "err", err)
		}
	}
	if held.kept { // it was a fault so far
		for _, l := range held.listeners {
			l.disown()
			l.aim(b.Target)
		}
	}
	p.ports[b.Key] = held
	p.log.Info("port", "bound", at, "protocol", b.Protocol, "target", b.Target)
	return false, nil
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
			p.past.add(held.listeners[1])
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
	if held := p.ports[key]; held != nil && held.kept {
		held.disown()
		return
	}
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
		p.past.add(l)
	}
	p.log.Info("port", "released", held.bind.Address, "protocol", held.bind.Protocol)
}

// Hold makes these the only ports, beside those that wait for their guest. What is held already stays as it is,
// with those who wait and what goes through. What could not be bound is held as a fault, and tried again until it is bound or no longer
// wanted; the error joins those of new faults and of what cannot be bound at all.
func (p *Publisher) Hold(binds []protocol.Bind) error {
	wanted := make(map[string]bool, len(binds))
	for _, b := range binds {
		wanted[b.Key] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.ports {
		if !wanted[key] && !p.ports[key].orphan {
			p.releaseLocked(key)
		}
	}
	var errs []error
	for _, b := range binds {
		later, err := p.bindLocked(b)
		switch {
		case err == nil:
			continue
		case later && p.ports[b.Key] == nil:
			p.ports[b.Key] = &port{bind: b, since: time.Now(), fault: err.Error()}
			p.retryLocked()
		case later:
			continue // known
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// retryLocked tries faults again until there are none.
func (p *Publisher) retryLocked() {
	if p.retrying {
		return
	}
	p.retrying = true
	p.wg.Go(func() {
		for {
			select {
			case <-p.done.Done():
				return
			case <-time.After(p.retry):
			}
			p.mu.Lock()
			left := false
			for _, held := range p.ports {
				if held.fault != "" && p.done.Err() == nil {
					later, _ := p.bindLocked(held.bind)
					left = left || later
				}
			}
			p.retrying = left
			p.mu.Unlock()
			if !left {
				return
			}
		}
	})
}

// Disown says that the guest which comes next is another: it boots, where the one before was to wake. The
// ports stay as they are, with who waits, until Settle. What it binds and releases meanwhile is noted and no
// more: an engine that was cut off binds what it finds of its old ports, where no container is, and releases it
// before it starts their containers again.
func (p *Publisher) Disown() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, held := range p.ports {
		held.kept = true
		held.disown()
	}
}

func (held *port) disown() {
	held.orphan = true
	for _, l := range held.listeners {
		l.disown()
	}
}

// Settle says that the guest's engine has started its containers: who waits goes to those that are there, and the
// ports that a guest of before had and this one has not are let go of.
func (p *Publisher) Settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, held := range p.ports {
		if held.orphan {
			p.releaseLocked(key)
		}
		held.kept = false
		for _, l := range held.listeners {
			l.settle()
		}
	}
}

// Table is what is to be bound, for a Hold by who comes after.
func (p *Publisher) Table() []protocol.Bind {
	all := []protocol.Bind{}
	for _, one := range p.List() {
		all = append(all, one.Bind)
	}
	return all
}

// List is every port, by protocol, number and address.
func (p *Publisher) List() []Port {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Port
	for _, held := range p.ports {
		one := Port{Bind: held.bind, Since: held.since, Fault: held.fault}
		for i, l := range held.listeners {
			if i > 0 {
				one.Also = l.at.String()
			}
			one.Open += l.open.Load()
			one.Total += l.total.Load()
			one.Inward += l.bytes.AtoB.Load()
			one.Outward += l.bytes.BtoA.Load()
			one.Dropped += l.dropped.Load()
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
