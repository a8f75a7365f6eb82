package ports

import (
	"container/list"
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
)

// Bounds of those who wait for a guest that sleeps.
const (
	// heldPatience is how long: a wake takes a second, and minutes when it turns into a cold boot on a slow
	// machine. A call to docker.sock waits as long.
	heldPatience = 10 * time.Minute
	// maxHeld bounds the connections that wait for a guest that was asked to wake: each costs a descriptor
	// and 12 KiB. Those beyond it wait in the kernel's backlog.
	maxHeld = 4096
	// maxStrays bounds the connections of those who may not wake it. The oldest goes for a new one, so that
	// a scan of the network does not fill the backlog.
	maxStrays = 256
	// maxDialling bounds how many of those who waited are connected at once when it wakes.
	maxDialling = 64
)

// dialPatience bounds the way from an accepted connection, once the guest is awake, to the container.
const dialPatience = 30 * time.Second

// way is how the guest is reached now.
//
//	asleep -lead-> awake -suspend-> asleep
//
// It starts asleep.
type way struct {
	mu     sync.Mutex
	dialer proxy.Dialer       // nil: asleep
	era    context.Context    // of being awake: its end cuts what went through
	cut    context.CancelFunc // ends it
	moved  chan struct{}      // closed when the dialer changes
}

func newWay() *way {
	w := &way{moved: make(chan struct{})}
	w.era, w.cut = context.WithCancel(context.Background())
	return w
}

// now is the dialer with its era, and what is closed when that changes.
func (w *way) now() (proxy.Dialer, context.Context, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dialer, w.era, w.moved
}

func (w *way) lead(d proxy.Dialer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut()
	w.era, w.cut = context.WithCancel(context.Background())
	w.turnLocked(d)
}

func (w *way) suspend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turnLocked(nil)
	w.cut()
}

// turn changes the dialer within the era, and gives the one before.
func (w *way) turn(d proxy.Dialer) (before proxy.Dialer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before = w.dialer
	w.turnLocked(d)
	return before
}

func (w *way) turnLocked(d proxy.Dialer) {
	w.dialer = d
	close(w.moved)
	w.moved = make(chan struct{})
}

// ready says whether the listener's connections can go through now.
func (p *Publisher) ready(l *listener) bool {
	d, _, _ := p.way.now()
	target, _, _ := l.leads()
	return d != nil && target != ""
}

// reach connects to where the listener leads: a stream, or a flow of datagrams. While the guest sleeps,
// and until the target is known, it waits; what the guest's sleep cuts it tries again. With the connection
// comes the context whose end cuts it. The context waiting is for the wait alone.
func (p *Publisher) reach(ctx, waiting context.Context, l *listener, network string) (proxy.Conn, context.Context, error) {
	waiting, cancel := context.WithTimeoutCause(waiting, heldPatience, errors.New("the guest did not wake in time"))
	defer cancel()
	waited, booted := false, false
	var begun time.Time // of the first dial
	for {
		d, era, moved := p.way.now()
		target, booting, aimed := l.leads()
		if d == nil || target == "" {
			waited, booted = true, booted || booting
			select {
			case <-moved:
			case <-aimed:
			case <-waiting.Done():
				return nil, nil, context.Cause(waiting)
			}
			continue
		}
		c, err := p.dial(ctx, era, d, protocol.ConnectService(network, target), waited)
		if err == nil && era.Err() == nil {
			return c, era, nil
		}
		if err == nil {
			c.Close()
		}
		if ctx.Err() != nil {
			return nil, nil, err
		}
		if era.Err() != nil {
			continue
		}
		if begun.IsZero() {
			begun = time.Now()
		}
		if !booted || time.Since(begun) > dialPatience {
			return nil, nil, err
		}
		// Its container was started a moment ago, by the engine's own boot, and may not listen yet.
		select {
		case <-time.After(bootRetry):
		case <-waiting.Done():
			return nil, nil, err
		}
	}
}

// bootRetry is the pause before another try to reach a container that has just been started.
const bootRetry = 100 * time.Millisecond

// dial dials until the patience or the era is over. Those who waited are many at once and take turns.
func (p *Publisher) dial(ctx, era context.Context, d proxy.Dialer, service string, turns bool) (proxy.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(era, cancel)
	defer stop()
	if turns {
		select {
		case p.dialling <- struct{}{}:
			defer func() { <-p.dialling }()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	ctx, timed := context.WithTimeout(ctx, dialPatience)
	defer timed()
	return d.Dial(ctx, service)
}

// wakes asks for the guest on behalf of a client that waits, and says whether he may. A
// guest that is awake needs no leave: its container only starts.
func (p *Publisher) wakes(client netip.Addr) bool {
	if d, _, _ := p.way.now(); d != nil || p.wake == nil {
		return true
	}
	return p.wake(client.Unmap().WithZone(""))
}

// place is a connection's among those that wait: until end is called, or the context ends because the
// client left or another needs the place more.
type place struct {
	ctx   context.Context
	end   func()
	stray bool // may not wake the guest
}

// hold finds a place for a client that has to wait, and waits for one.
func (p *Publisher) hold(ctx context.Context, client netip.Addr) (place, error) {
	if !p.wakes(client) {
		return p.strays.join(ctx), nil
	}
	select {
	case p.held <- struct{}{}:
		return place{ctx: ctx, end: func() { <-p.held }}, nil
	case <-ctx.Done():
		return place{}, ctx.Err()
	}
}

// strays are the connections of those who may not wake the guest.
type strays struct {
	mu  sync.Mutex
	all list.List // of context.CancelCauseFunc, the oldest first
}

func (s *strays) join(ctx context.Context) place {
	ctx, cancel := context.WithCancelCause(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all.Len() >= maxStrays {
		oldest := s.all.Front()
		oldest.Value.(context.CancelCauseFunc)(errors.New("its place was needed"))
		s.all.Remove(oldest)
	}
	me := s.all.PushBack(cancel)
	return place{ctx: ctx, stray: true, end: func() {
		cancel(nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all.Remove(me)
	}}
}
