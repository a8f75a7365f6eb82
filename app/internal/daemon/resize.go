package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/internal/settings"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/vmhost"
	"github.com/docker/go-units"
)

const (
	// memoryStep is how much is taken of the guest at once, and memorySpare what it must have available
	// beyond that: programs that need some in the meantime do not have to wait for it. In bytes.
	memoryStep  = 64 << 20
	memorySpare = 128 << 20
	// memoryEvery is the time between two steps, and memoryRetry from one that cannot be made to the next.
	memoryEvery = time.Second
	memoryRetry = 15 * time.Second
	// swapPatience bounds a change of the guest's swap: what is in it has to find room in its memory.
	swapPatience = 5 * time.Minute
)

// follow has a VM that runs follow a changed setting where it can without a restart, and says in the change
// what a restart would stop where it cannot.
func (d *Daemon) follow(ctx context.Context, c api.SettingChange) api.SettingChange {
	v := d.running(ctx)
	if v == nil {
		return c
	}
	switch c.Key {
	case "cpus":
		v.start.set(func() { c.Restart = c.Restart && strconv.Itoa(v.start.machine.CPUs) != c.Value })
	case "memory":
		at, is := v.memory(ctx)
		want, err := units.RAMInBytes(c.Value)
		if !is || err != nil || want > at.Size {
			break
		}
		c.Restart = false
		if want < at.Granted {
			c.Note = "The VM gives memory up step by step, as far as its programs let it."
		}
		if !c.DryRun {
			v.resize()
		}
	case "swap":
		if c.DryRun || c.Value == c.Before {
			break
		}
		if err := v.setSwap(ctx, c.Value); err != nil {
			c.Note = "The VM's swap is as it was: " + err.Error() + "."
		}
	}
	if c.Restart {
		if u, err := usage(ctx, v); err == nil {
			c.Stops = u.Containers
		}
	}
	return c
}

// running is the VM whose engine serves; nil where there is none. It wakes and starts none.
func (d *Daemon) running(ctx context.Context) *vm {
	if state, _ := d.life.State(); state.Phase != api.Running {
		return nil
	}
	v, err := d.life.Await(ctx, "")
	if err != nil {
		return nil
	}
	return v.(*vm)
}

func (d *Daemon) values() (settings.Values, error) {
	d.settingsLock.Lock()
	defer d.settingsLock.Unlock()
	s, err := d.store()
	if err != nil {
		return settings.Values{}, err
	}
	return s.Values(), nil
}

// memory is how the machine's memory stands, where it can say.
func (v *vm) memory(ctx context.Context) (vmhost.Memory, bool) {
	b, is := v.machine.(vmhost.Balloon)
	if !is {
		return vmhost.Memory{}, false
	}
	m, err := b.Memory(ctx)
	if err != nil {
		v.d.log.Warn("memory of the VM", "err", err)
		return m, false
	}
	return m, true
}

// resize has keepSize look at the settings.
func (v *vm) resize() {
	select {
	case v.resized <- struct{}{}:
	default: // it will
	}
}

// keepSize has the guest follow the setting for memory, as it is and as it changes, until the machine ends.
// The swap is what the setting says at the start, also of a guest that was saved with another.
func (v *vm) keepSize() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-v.machine.Done()
		cancel()
	}()
	want := v.catchUpSwap(ctx)
	for {
		var again <-chan time.Time
		if wait := v.stepMemory(ctx, want.Memory); wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-v.resized:
			if now, err := v.d.values(); err == nil {
				want = now
			}
		}
	}
}

// catchUpSwap gives the guest the swap that the settings say, and gives the settings.
func (v *vm) catchUpSwap(ctx context.Context) settings.Values {
	want, err := v.d.values()
	if err == nil {
		err = v.setSwap(ctx, strconv.FormatInt(want.Swap, 10))
	}
	var refused refusal
	if errors.As(err, &refused) {
		v.d.life.Notice("The VM's swap is not as the setting says: " + err.Error() + ".")
	} else if err != nil {
		v.d.log.Warn("swap of the guest", "err", err)
	}
	return want
}

// stepMemory goes one step to the memory that the guest is to have, and says when to go on; 0: it is there.
func (v *vm) stepMemory(ctx context.Context, want int64) time.Duration {
	select {
	case <-v.Done():
		return memoryRetry // it stands still, or has ended
	default:
	}
	at, is := v.memory(ctx)
	want = min(want, at.Size) // the rest needs a restart
	if !is || at.Granted == want {
		return 0
	}
	u, err := usage(ctx, v)
	next := at.Granted
	if err == nil {
		next = nextGrant(at.Granted, want, u.Memory.Available)
	}
	if next == at.Granted {
		return memoryRetry
	}
	if err := v.machine.(vmhost.Balloon).SetMemory(ctx, next); err != nil {
		v.d.log.Warn("memory of the VM", "err", err)
		return memoryRetry
	}
	return memoryEvery
}

// nextGrant is how much memory the balloon leaves to a guest next, on the way from now to want, when so
// much is available in it. All in bytes.
func nextGrant(now, want, available int64) int64 {
	if want >= now {
		return want
	}
	step := min(memoryStep, now-want)
	if available-step < memorySpare {
		return now
	}
	return now - step
}

// refusal is the guest's own word for why something cannot be.
type refusal string

func (r refusal) Error() string { return string(r) }

// setSwap gives the guest so much swap.
func (v *vm) setSwap(ctx context.Context, size string) error {
	bytes, err := units.RAMInBytes(size)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, swapPatience)
	defer cancel()
	conn, err := v.Dial(ctx, protocol.ServiceSwap)
	if err != nil {
		return fmt.Errorf("ask the guest: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := json.NewEncoder(conn).Encode(protocol.SwapRequest{Size: bytes}); err != nil {
		return fmt.Errorf("ask the guest: %w", err)
	}
	var a protocol.SwapAnswer
	if err := json.NewDecoder(io.LimitReader(conn, protocol.MaxMessage)).Decode(&a); err != nil {
		return fmt.Errorf("ask the guest: %w", err)
	}
	if a.Error != "" {
		return refusal(a.Error)
	}
	return nil
}

// Memory is how the VM's memory stands: see localapi.Core.
func (d *Daemon) Memory(ctx context.Context) (api.Memory, error) {
	v := d.running(ctx)
	if v == nil {
		state, _ := d.life.State()
		return api.Memory{}, &api.Error{Failure: api.Failure{Cause: api.CauseNotRunning, Summary: fmt.Sprintf("The engine is %s: there is no VM to look at.", state.Phase)}}
	}
	u, err := usage(ctx, v)
	if err != nil {
		return api.Memory{}, err
	}
	at, is := v.memory(ctx)
	if !is { // all of it, as far as anybody can say
		at = vmhost.Memory{Size: u.Memory.Total, Granted: u.Memory.Total, Resident: u.Memory.Total}
	}
	return ledger(u.Memory, at), nil
}

// ledger makes one account of what the guest and the machine say. They do not say it at the same moment, and
// what the kernel took for itself before it counted is used.
func ledger(guest protocol.UsageMemory, machine vmhost.Memory) api.Memory {
	m := api.Memory{
		Size: machine.Size, Cached: guest.Cached, Free: guest.Free, Withheld: machine.Size - machine.Granted,
		SwapTotal: guest.SwapTotal, SwapUsed: guest.SwapUsed,
		Resident: machine.Resident, GivenBack: max(0, machine.Size-machine.Resident),
	}
	m.Used = max(0, m.Size-m.Cached-m.Free-m.Withheld)
	return m
}
