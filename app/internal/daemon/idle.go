package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/internal/lifecycle"
	"github.com/covedesk/cove/app/internal/settings"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy/dockerapi"
	"github.com/covedesk/cove/proxy/ports"
)

// idleEvery is how often it is looked whether the engine is used. The guest is asked at the end of a time
// without calls only, and then as often.
const idleEvery = 5 * time.Second

// What containers that do nothing may still use in each second: a process that wakes up now and then, and the
// words that interfaces say of themselves.
const (
	idleProcessor = 50 * time.Millisecond
	idleTraffic   = 512 // bytes
)

// use is one look at how the engine is used.
type use struct {
	at    time.Time
	front dockerapi.Activity
	ports ports.Activity
	own   ownUse
	guest protocol.Usage
	asked bool // the guest said its part
}

// used says whether the engine was used from one look to the next.
func used(a, b use, s settings.Sleep) bool {
	if b.front.Open > 0 || b.front != a.front || b.own.open > 0 || b.own != a.own || b.ports.Open > 0 || b.ports != a.ports {
		return true
	}
	switch {
	case !a.asked || !b.asked:
		return false // a guest that was not asked says nothing either way: see followUse
	case !s.Containers:
		return b.guest.Containers > 0
	case b.guest.Containers != a.guest.Containers:
		return true
	}
	over := b.at.Sub(a.at)
	return float64(b.guest.ContainersCPU-a.guest.ContainersCPU) > over.Seconds()*float64(idleProcessor) ||
		float64(b.guest.ContainersNet-a.guest.ContainersNet) > over.Seconds()*idleTraffic
}

// ownUse is how the engine is used by Cove's own API: shells, logs, measurements.
type ownUse struct {
	open int
	last time.Time
}

// ownUses counts them.
type ownUses struct {
	mu sync.Mutex
	ownUse
}

// begin counts one until the function that it gives is called.
func (u *ownUses) begin() (end func()) {
	u.count(1)
	return sync.OnceFunc(func() { u.count(-1) })
}

func (u *ownUses) count(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.open += n
	u.last = time.Now()
}

func (u *ownUses) now() ownUse {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.ownUse
}

// look is how the engine is used now.
func (d *Daemon) look() use {
	return use{at: time.Now(), front: d.front.Activity(), ports: d.ports.Activity(), own: d.uses.now()}
}

// sleepWhenIdle suspends the engine when it was not used for as long as the settings say.
func (d *Daemon) sleepWhenIdle(ctx context.Context) {
	t := time.NewTicker(idleEvery)
	defer t.Stop()
	var last use
	var since time.Time // of the last use
	var of *vm
	prepared := false // for a sleep that is soon to come
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		v, s, ok := d.maySleep()
		if !ok {
			of = nil
			continue
		}
		now := d.look()
		if v != of {
			of, last, since, prepared = v, now, now.at, false
			continue
		}
		// Without calls it is for the containers to say whether they do something. They are asked from one
		// look before the end on.
		if now.at.Sub(since) >= s.After-2*idleEvery {
			u, err := usage(ctx, v)
			if err != nil {
				continue // it does not answer: no time to suspend it
			}
			now.guest, now.asked = u, true
		}
		if used(last, now, s) {
			since, prepared = now.at, false
		}
		if !prepared && now.at.Sub(since) >= 2*idleEvery {
			prepared = true
			d.prepare(ctx, v)
		}
		both := last.asked && now.asked
		last = now
		if now.at.Sub(since) < s.After || !both {
			continue
		}
		why := fmt.Sprintf("not used for %s", now.at.Sub(since).Round(time.Second))
		err := d.life.Suspend(ctx, why, func() bool {
			again := d.look()
			return again.front != now.front || again.own != now.own || !d.ports.SuspendIf(now.ports)
		})
		if err != nil && ctx.Err() == nil {
			d.log.Info("the idle engine was not suspended", "err", err)
			since = time.Now()
		}
	}
}

// preparePatience bounds what is asked of an engine ahead of a sleep: it is not to come later for it.
const preparePatience = idleEvery

// prepare asks the engine ahead what a sleep will be asked.
func (d *Daemon) prepare(ctx context.Context, v *vm) {
	ctx, cancel := context.WithTimeout(ctx, preparePatience)
	defer cancel()
	if err := d.front.Prepare(ctx, v); err != nil {
		d.log.Debug("prepare", "err", err)
	}
}

// maySleep gives the VM that runs, if it can be suspended and the settings let it.
func (d *Daemon) maySleep() (*vm, settings.Sleep, bool) {
	state, _ := d.life.State()
	if state.Phase != api.Running {
		return nil, settings.Sleep{}, false
	}
	s := d.sleepSettings()
	one, err := d.life.Await(context.Background(), "")
	if err != nil || s.After == 0 {
		return nil, s, false
	}
	v := one.(*vm)
	if v.wayToSleep() == awake {
		d.sleepless.Do(func() {
			d.life.Notice(fmt.Sprintf("The setting sleep.after has no effect: machines on %s can neither be saved nor paused here.", d.driver.Name()))
		})
		return nil, s, false
	}
	return v, s, true
}

// sleepSettings are those as they are now. With settings that cannot be read nothing sleeps.
func (d *Daemon) sleepSettings() settings.Sleep {
	d.settingsLock.Lock()
	defer d.settingsLock.Unlock()
	s, err := d.store()
	if err != nil {
		return settings.Sleep{}
	}
	return s.Values().Sleep
}

// wakeFor wakes the engine for a client of a published port, if he may: see ports.Options.
func (d *Daemon) wakeFor(client netip.Addr) bool {
	if !client.Unmap().IsLoopback() && !d.sleepSettings().Network {
		return false
	}
	select {
	case d.knocks <- struct{}{}:
	default: // one knock is heard, whoever waits
	}
	return true
}

// hearKnocks wakes the engine for the clients of published ports.
func (d *Daemon) hearKnocks(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.knocks:
		}
		if _, err := d.life.Await(ctx, "a connection to a published port"); err != nil && ctx.Err() == nil {
			d.log.Warn("wake for a published port", "err", err)
		}
	}
}

// errUsed says that the engine was used in the moment when it was to be suspended.
var errUsed = fmt.Errorf("the engine is used again: %w", lifecycle.ErrWanted)
