package netstack

import (
	"context"
	"fmt"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// era is the time between two suspensions: all that the guest began in it ends with it.
type era struct {
	n   *Network
	ctx context.Context
	end context.CancelFunc
	wg  sync.WaitGroup // of what the guest began; the network waits for it, too
}

// begin counts something that the guest begins, until it calls done. Nil says that nothing may begin: the
// network is suspended or closed.
func (n *Network) begin() *era {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.era == nil || n.closed {
		return nil
	}
	n.wg.Add(1)
	n.era.wg.Add(1)
	return n.era
}

func (e *era) done() {
	e.wg.Done()
	e.n.wg.Done()
}

// run counts one more goroutine of what has begun and is not done.
func (e *era) run(f func()) {
	e.n.wg.Add(1)
	e.wg.Add(1)
	go func() {
		defer e.done()
		f()
	}()
}

// Suspend ends all that the guest has open, before it is saved: with a reset to the guest and to whoever
// was at the other end for each connection, dials in flight and UDP flows without a word. It takes nothing
// new until Resume, or until a card is attached: what the guest begins is dropped, as on a busy way, so that
// the guest asks again when it is awake. DHCP and DNS are served on.
//
// It returns when the guest, which must be running, has had its resets. An error says that it did not
// answer before the context's end; all has ended on the host then, too, and the guest will be told by the
// reset of its next segment.
func (n *Network) Suspend(ctx context.Context) error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.wg.Add(1)
	e := n.era
	n.era = nil
	n.mu.Unlock()
	if e != nil {
		e.end()
	}
	ask, answered, forget := n.echo.guest()
	defer forget()
	told := make(chan struct{})
	go func() { // writing waits where the guest takes nothing, until its card goes
		defer n.wg.Done()
		defer close(told)
		if e != nil {
			n.reset(&e.wg)
		}
		ask()
	}()
	wait := []<-chan struct{}{told}
	if n.link.plugged() {
		wait = append(wait, answered)
	}
	for _, done := range wait {
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("wait until the guest has heard that its connections ended: %w", context.Cause(ctx))
		}
	}
	return nil
}

// reset ends the stack's connections with a reset until a group has ended that waits for some of them. They
// are more than those that are joined with one of the host's: a handshake waits for the guest, and what the
// host has ended may still be on its way to it.
func (n *Network) reset(group *sync.WaitGroup) {
	ended := make(chan struct{})
	go func() { group.Wait(); close(ended) }()
	for over := false; !over; {
		select {
		case <-ended:
			over = true
		case <-time.After(10 * time.Millisecond):
		}
		for _, one := range n.stack.RegisteredEndpoints() {
			if e, ok := one.(*tcp.Endpoint); ok && tcp.EndpointState(e.State()) != tcp.StateListen {
				e.Abort()
			}
		}
	}
}

// Resume takes new connections again, after a suspension that led to nothing. Without one it does nothing.
func (n *Network) Resume() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.era == nil {
		n.era = &era{n: n}
		n.era.ctx, n.era.end = context.WithCancel(n.ctx)
	}
}
