package daemon

import (
	"time"

	"github.com/covedesk/cove/guestd/protocol"
)

// The guest's clock is compared with ours: it drifts, and stands still while the machine is paused or the
// host sleeps.
const (
	clockEvery = time.Minute
	// wakeEvery is how often it is asked whether the host slept, and so half of how long a guest that woke
	// with it has a clock that is wrong.
	wakeEvery = time.Second
	// clockTolerance is an error that is left: steps smaller than it help nobody.
	clockTolerance = 50 * time.Millisecond
	// clockRounds bounds how often a comparison is made again because the guest was slow to answer.
	clockRounds = 10
	// slowAnswer is an answer that says too little of the guest's clock.
	slowAnswer = 300 * time.Millisecond
)

// reading is what one answer says of the guest's clock: it was seen between two moments of ours.
type reading struct{ sent, guest, received time.Time }

// error is how far the guest's clock is behind ours at the least, negative where it is ahead, and nothing
// where it may be right.
func (r reading) error() time.Duration {
	sent, guest, received := r.sent.Round(0), r.guest.Round(0), r.received.Round(0)
	if d := sent.Sub(guest); d > clockTolerance {
		return d
	}
	if d := received.Sub(guest); d < -clockTolerance {
		return d
	}
	return 0
}

func (r reading) slow() bool { return r.received.Sub(r.sent) > slowAnswer }

// slept says whether the host slept between two looks that were to be wakeEvery apart, or its clock was
// set: Go's monotonic time stands still in a sleep (Linux, macOS), or the second look comes late (Windows).
func slept(wall, monotonic time.Duration) bool {
	return (wall-monotonic).Abs() > clockTolerance || wall > 3*wakeEvery
}

// clockwork is what the keeper of a guest's time waits for.
type clockwork struct {
	pongs chan pong
	look  chan struct{}
}

type pong struct {
	protocol.Pong
	received time.Time
}

func newClockwork() clockwork {
	return clockwork{pongs: make(chan pong, 1), look: make(chan struct{}, 1)}
}

// answered takes the guest's answer.
func (c clockwork) answered(p protocol.Pong) {
	select {
	case c.pongs <- pong{p, time.Now()}:
	default: // the keeper did not even take the one before: it will ask again
	}
}

// now asks for a comparison at once.
func (c clockwork) now() {
	select {
	case c.look <- struct{}{}:
	default:
	}
}

// keepTime keeps the guest's clock right from its first word to the machine's end.
func (v *vm) keepTime() {
	select {
	case <-v.done:
		return
	case <-v.word:
	}
	t := time.NewTicker(wakeEvery)
	defer t.Stop()
	var pings uint64
	var compared time.Time // never: at once
	for last := time.Now(); ; {
		if now := time.Now(); slept(now.Round(0).Sub(last.Round(0)), now.Sub(last)) || now.Sub(compared) >= clockEvery {
			v.compareClocks(&pings)
			compared = time.Now()
		}
		last = time.Now()
		select {
		case <-v.done:
			return
		case <-v.clock.look:
			compared = time.Time{}
		case <-t.C:
		}
	}
}

// compareClocks corrects the guest's clock where it is wrong. A guest that stands still is waited for.
func (v *vm) compareClocks(pings *uint64) {
	for range clockRounds {
		*pings++
		r := reading{sent: time.Now()}
		if v.say(protocol.Message{Ping: &protocol.Ping{ID: *pings}}) != nil {
			return // it sleeps, and gets the time when it wakes
		}
		p, ok := v.awaitPong(*pings)
		if !ok {
			return
		}
		r.guest, r.received = p.Time, p.received
		wrong := r.error()
		if wrong != 0 {
			v.d.log.Info("the guest's clock is corrected", "behind", wrong, "answer", r.received.Sub(r.sent))
			v.say(protocol.Message{SetClock: &protocol.SetClock{By: wrong}})
		}
		// One that is ahead takes its time. Any other correction is looked at again, and so is what a slow
		// answer says too little of.
		if wrong < 0 || wrong == 0 && !r.slow() {
			return
		}
	}
}

// awaitPong waits for the guest's answer to one Ping. After clockEvery it counts as lost.
func (v *vm) awaitPong(id uint64) (pong, bool) {
	lost := time.NewTimer(clockEvery)
	defer lost.Stop()
	for {
		select {
		case p := <-v.clock.pongs:
			if p.ID == id {
				return p, true
			}
		case <-v.done:
			return pong{}, false
		case <-lost.C:
			return pong{}, false
		}
	}
}
