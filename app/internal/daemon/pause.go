package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/vmhost"
)

// bed is where a VM is while its engine sleeps.
type bed string

const (
	awake    bed = ""       // its machine can neither be saved nor paused
	toDisk   bed = "disk"   // saved: the machine ends
	toMemory bed = "memory" // paused: the machine stands still
)

// wayToSleep is what the machine can do, and of that what the settings want.
func (v *vm) wayToSleep() bed {
	_, saves := v.machine.(vmhost.Suspender)
	_, pauses := v.machine.(vmhost.Pauser)
	switch {
	case saves && !(pauses && v.d.sleepSettings().Memory):
		return toDisk
	case pauses:
		return toMemory
	}
	return awake
}

// still is a machine that stands still.
type still struct {
	at   time.Time
	undo func() // what settle did
}

// standing is the VM that stands still while the engine sleeps; nil where there is none.
func (d *Daemon) standing() *vm {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.still
}

// leave is for the end of coved: an engine that was saved stays so, and one that stands still is stopped in order.
func (d *Daemon) leave(ctx context.Context, why string) error {
	if err := d.life.Leave(ctx, why); err != nil || d.standing() == nil {
		return err
	}
	return d.life.Stop(ctx, why)
}

const (
	// givePatience bounds how long a guest that is about to stand still may go on to report what it has free.
	givePatience = 15 * time.Second
	// askPatience bounds the question how much that may be.
	askPatience = 2 * time.Second
	// giveEvery is longer than its kernel takes to report what became free: 2 s (mm/page_reporting.c).
	giveEvery = 3 * time.Second
	// wantedEvery is how long somebody who wants the engine meanwhile may have to wait for nothing.
	wantedEvery = 50 * time.Millisecond
	// giveLeast is what is worth another wait.
	giveLeast = 16 << 20
)

// hasToGive says whether the guest has memory to give back that is worth a wait.
func (v *vm) hasToGive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	u, err := usage(ctx, v)
	return err != nil || u.Memory.Cached > giveLeast
}

// giveMemory waits until the host has back what the guest, which has said its last word, has given up, or until
// somebody wants the engine.
func (v *vm) giveMemory(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, givePatience)
	defer cancel()
	quiet, looked := v.d.look(), time.Now()
	for before, is := v.memory(ctx); is; {
		select {
		case <-ctx.Done():
			return
		case <-v.machine.Done():
			return
		case <-time.After(wantedEvery):
		}
		if now := v.d.look(); now.front != quiet.front || now.ports != quiet.ports || now.own != quiet.own {
			return
		}
		if time.Since(looked) < giveEvery {
			continue
		}
		now, _ := v.memory(ctx)
		if before.Resident-now.Resident < giveLeast {
			return
		}
		before, looked = now, time.Now()
	}
}

// standStill pauses a machine whose guest has said its last word.
func (v *vm) standStill(ctx context.Context, undo func()) error {
	if err := v.machine.(vmhost.Pauser).Pause(ctx); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	select {
	case <-v.done:
		return errors.New("the VM ended")
	default:
	}
	v.still = &still{at: time.Now(), undo: undo}
	v.d.mu.Lock()
	v.d.still = v
	v.d.mu.Unlock()
	close(v.over)
	return nil
}

// wake lets a machine that stands still go on, and follows it to its guest's first answer. With an error it has
// ended.
func (v *vm) wake(ctx context.Context, stage func(string)) (err error) {
	v.d.mu.Lock()
	v.d.still = nil
	v.d.mu.Unlock()
	select {
	case <-v.machine.Done():
		<-v.done
	default:
	}
	v.mu.Lock()
	was, gone := v.still, false
	select {
	case <-v.done:
		gone = true
	default:
		v.still, v.over = nil, make(chan struct{})
	}
	v.mu.Unlock()
	if gone {
		return &api.Error{Failure: *ended(v.machine.Exit())}
	}
	defer func() {
		if err != nil {
			v.d.log.Error("wake", "err", err)
			v.Stop(context.Background())
		}
	}()
	v.start.again()
	stage("letting the VM go on")
	if err := v.start.timed("let it go on", func() error { return v.machine.(vmhost.Pauser).GoOn(ctx) }); err != nil {
		return err
	}
	was.undo()
	stage("reaching the guest")
	if err := v.start.timed("transport", func() error { return v.goOn(ctx) }); err != nil {
		return v.because(api.Failure{Cause: vmhost.ProblemSaved, Summary: "The VM goes on, and its guest does not answer: " + err.Error() + ".", Remedy: "See `cove logs coved`.", Evidence: v.d.tailOf("console", 20)})
	}
	v.clock.now()
	// The settings may have been changed meanwhile.
	v.resize()
	go v.catchUpDisk()
	go v.catchUpSwap(context.Background())
	return nil
}

// fillStill says what stands still.
func (v *vm) fillStill(s *api.Status) {
	v.mu.Lock()
	still := v.still
	v.mu.Unlock()
	if still == nil {
		return // it goes on
	}
	s.Paused = &api.Paused{At: still.at}
	if at, is := v.memory(context.Background()); is {
		s.Paused.Bytes = at.Resident
	}
	v.start.set(func() { s.Engine = v.start.engine })
}
