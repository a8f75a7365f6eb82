//go:build linux

// Package clock keeps the guest's clock right. Once the host has said hello it never steps back: where it
// is behind, it steps forward; where it is ahead, it runs slower until it is right.
package clock

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A clock that is slowed runs at 9/10 of its speed, by the length of a tick in microseconds: 10,000 where
// there are 100 to a second, and the kernel takes 9,000 at the least (adjtimex(2)).
const (
	tick     = 10000
	slowTick = 9000
)

// helloAge is more than the host's hello can have waited for the guest's boot. A clock that is further
// ahead of it was never right.
const helloAge = 10 * time.Minute

// System is the kernel's clock.
type System interface {
	Step(by time.Duration) error
	Tick(micros int64) error
}

// Clock corrects a System.
type Clock struct {
	System System

	mu    sync.Mutex // guards all below
	hello bool       // was heard
	ease  *time.Timer
}

// plan is what a correction comes to: a step forward, or so long at the slower speed, by the guest's own
// clock.
func plan(by time.Duration) (step, slow time.Duration) {
	if by >= 0 {
		return by, 0
	}
	return 0, -by * slowTick / (tick - slowTick)
}

// Hello takes the time in the host's hello. It was written when the machine was started, so it is a time
// that is over: the clock is not before it. The first one also mends a clock that was never set.
func (c *Clock) Hello(host, now time.Time) {
	if host.IsZero() {
		return
	}
	c.mu.Lock()
	first := !c.hello
	c.hello = true
	c.mu.Unlock()
	by := host.Sub(now)
	if by > 0 || first && by < -helloAge {
		c.step(by)
	}
}

// Move corrects a clock that is wrong by so much: behind the host's where it is positive.
func (c *Clock) Move(by time.Duration) {
	step, slow := plan(by)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ease != nil {
		c.ease.Stop()
		c.endLocked()
	}
	if slow == 0 {
		c.step(step)
		return
	}
	slog.Info("the clock is slowed", "ahead", -by, "for", slow)
	if err := c.System.Tick(slowTick); err != nil {
		slog.Warn("slow the clock", "err", err)
		return
	}
	var ease *time.Timer
	ease = time.AfterFunc(slow, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.ease == ease { // else a later correction took its place
			c.endLocked()
		}
	})
	c.ease = ease
}

func (c *Clock) endLocked() {
	c.ease = nil
	if err := c.System.Tick(tick); err != nil {
		slog.Warn("give the clock its speed", "err", err)
	}
}

func (c *Clock) step(by time.Duration) {
	slog.Info("the clock is set", "by", by)
	if err := c.System.Step(by); err != nil {
		slog.Warn("set the clock", "err", err)
	}
}

// Kernel is the System of this machine.
type Kernel struct{}

// Step adds to the clock in one go, whatever time passes meanwhile.
func (Kernel) Step(by time.Duration) error {
	t := unix.NsecToTimeval(int64(by))
	for t.Usec < 0 { // the kernel wants a part that is not negative
		t.Sec, t.Usec = t.Sec-1, t.Usec+1_000_000
	}
	return adjust(unix.Timex{Modes: unix.ADJ_SETOFFSET, Time: t})
}

// Tick sets how much the clock goes forward in a hundredth of a second.
func (Kernel) Tick(micros int64) error {
	return adjust(unix.Timex{Modes: unix.ADJ_TICK, Tick: micros})
}

func adjust(t unix.Timex) error {
	if _, err := unix.Adjtimex(&t); err != nil {
		return fmt.Errorf("adjtimex: %w", err)
	}
	return nil
}
