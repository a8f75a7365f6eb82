package fakevm

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/covedesk/cove/vmhost"
)

// gate is where a guest waits that stands still.
type gate struct {
	mu    sync.Mutex
	shut  chan struct{} // closed when it goes on; nil while it runs
	since time.Time
}

func (g *gate) pass(ctx context.Context) {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut == nil {
		return
	}
	select {
	case <-shut:
	case <-ctx.Done():
	}
}

var _ vmhost.Pauser = (*Machine)(nil)

var errEnded = errors.New("the fake machine has ended")

// Pause lets the guest hear nothing on the control port. Its services are served on: nobody is to ask them.
func (m *Machine) Pause(ctx context.Context) error {
	select {
	case <-m.done:
		return errEnded
	default:
	}
	g := &m.guest.still
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil {
		g.shut, g.since = make(chan struct{}), time.Now()
	}
	return ctx.Err()
}

// GoOn lets it hear, with a clock that is behind.
func (m *Machine) GoOn(ctx context.Context) error {
	select {
	case <-m.done:
		return errEnded
	default:
	}
	g := &m.guest.still
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		m.guest.fallBehind(time.Since(g.since))
		close(g.shut)
		g.shut = nil
	}
	return ctx.Err()
}

// Still says whether the machine is paused.
func (m *Machine) Still() bool {
	g := &m.guest.still
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut != nil
}

// offered is the machine with no more than it is able to.
func (m *Machine) offered(able Ability) vmhost.Machine {
	type grower struct {
		vmhost.Balloon
		vmhost.DiskGrower
	}
	switch able {
	case Pauses:
		return struct {
			grower
			vmhost.Pauser
		}{grower{m, m}, m}
	case Wakes:
		return grower{m, m}
	}
	return m
}
