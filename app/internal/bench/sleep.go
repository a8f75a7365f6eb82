//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/covedesk/cove/app/api"
)

// sleeps is how often the engine is suspended and brought back for a figure.
const sleeps = 5

// asleepFor is how long a coved is watched whose engine sleeps.
const asleepFor = 20 * time.Second

// sleep suspends the engine with a container that has a published port, and brings it back: by a start, and by
// a connection. The reference is a cold boot in the same run.
func (b *bench) sleep(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "==> sleep")
	if err := b.makeProbe(ctx); err != nil {
		return err
	}
	if err := b.Stop(ctx); err != nil {
		return err
	}
	cold, _, err := b.start(ctx)
	if err != nil {
		return err
	}
	if _, err := b.program(ctx, "docker", "run", "-d", "--name", "sleeper", "-p", "7/tcp", "-v", b.work+":/share", "-w", "/share", "cove/probe", "echo", "7"); err != nil {
		return err
	}
	defer b.program(context.Background(), "docker", "rm", "-f", "sleeper")
	port, err := b.publishedAt(ctx, "sleeper", "tcp")
	if err != nil {
		return err
	}
	var saves, pings, echoes []float64
	var used, saved int64
	for i := range 2 * sleeps {
		if used, err = b.guestUses(ctx); err != nil {
			return err
		}
		begun := time.Now()
		if err := b.Suspend(ctx); err != nil {
			return err
		}
		saves = append(saves, time.Since(begun).Seconds())
		s, err := b.Status(ctx)
		if err != nil {
			return err
		}
		if s.Saved == nil {
			return fmt.Errorf("after a suspend the engine is %s", s.Phase)
		}
		saved = s.Saved.Bytes
		if i == 0 {
			if err := b.asleep(ctx, s); err != nil {
				return err
			}
		}
		begun = time.Now()
		if i%2 == 0 {
			started := make(chan error, 1)
			go func() { started <- b.Start(ctx) }()
			if _, err := call(ctx, b.engine(), "POST", "/containers/none/wait", nil); err != nil && !strings.Contains(err.Error(), "404") {
				return err
			}
			pings = append(pings, time.Since(begun).Seconds())
			if err := <-started; err != nil {
				return err
			}
			continue
		}
		if err := echo(ctx, port.Address); err != nil {
			return err
		}
		echoes = append(echoes, time.Since(begun).Seconds())
	}
	perGiB := median(saves) / (float64(used) / (1 << 30))
	reference := fmt.Sprintf("%.1f s for a cold boot to `/_ping`", cold)
	b.row("save", fmt.Sprintf("%.2f s, %.2f s a GiB that the guest used", median(saves), perGiB), mb(used)+" used; "+reference, fmt.Sprintf("%.2f", median(saves)/cold))
	if err := b.saveMore(ctx, median(saves), used); err != nil {
		return err
	}
	b.row("size of the saved state", mb(saved), mb(used)+" that the guest used", fmt.Sprintf("%.2f", float64(saved)/float64(used)))
	b.row("wake to the engine's first answer, with a share in use", fmt.Sprintf("%.2f s", median(pings)), reference, fmt.Sprintf("%.2f", median(pings)/cold))
	b.row("first connection to a published port of a sleeping engine, to the first byte from its container", fmt.Sprintf("%.2f s", median(echoes)), reference, fmt.Sprintf("%.2f", median(echoes)/cold))
	return b.pauses(ctx, port.Address, cold)
}

// median sorts a list.
func median(l []float64) float64 {
	slices.Sort(l)
	return l[len(l)/2]
}

// saveMore saves a guest that uses more, which tells what each GiB costs from what every save does.
func (b *bench) saveMore(ctx context.Context, less float64, used int64) error {
	if _, _, err := b.use(ctx, "memory", usedMiB); err != nil {
		return err
	}
	defer b.program(context.Background(), "docker", "rm", "-f", "user")
	var saves []float64
	var more int64
	for range sleeps {
		var err error
		if more, err = b.guestUses(ctx); err != nil {
			return err
		}
		begun := time.Now()
		if err := b.Suspend(ctx); err != nil {
			return err
		}
		saves = append(saves, time.Since(begun).Seconds())
		if err := b.Start(ctx); err != nil {
			return err
		}
	}
	slope := (median(saves) - less) / (float64(more-used) / (1 << 30))
	b.row("the same of a guest that uses more", fmt.Sprintf("%.2f s, %.2f s a GiB", median(saves), median(saves)/(float64(more)/(1<<30))),
		mb(more)+" used", "")
	b.row("of a save: for each GiB more, and whatever is used", fmt.Sprintf("%.2f s and %.2f s", slope, less-slope*float64(used)/(1<<30)), "from the two rows above", "")
	return nil
}

// pauses has the VM stand still in place of being saved.
func (b *bench) pauses(ctx context.Context, address string, cold float64) error {
	if _, err := b.Set(ctx, "sleep.to", "memory", false); err != nil {
		return err
	}
	defer b.Unset(context.Background(), "sleep.to", false)
	var sleeping, echoes []float64
	var s api.Status
	for range sleeps {
		begun := time.Now()
		err := b.Suspend(ctx)
		if err != nil {
			return err
		}
		sleeping = append(sleeping, time.Since(begun).Seconds())
		if s, err = b.Status(ctx); err != nil || s.Paused == nil {
			return fmt.Errorf("after a suspend to memory the engine is %s, %v", s.Phase, err)
		}
		begun = time.Now()
		if err := echo(ctx, address); err != nil {
			return err
		}
		echoes = append(echoes, time.Since(begun).Seconds())
	}
	b.row("pause, with the time in which memory is given back", fmt.Sprintf("%.2f s", median(sleeping)), mb(s.Paused.Bytes)+" stay with the VM", "")
	b.row("first connection to a published port of a paused engine, to the first byte from its container", fmt.Sprintf("%.2f s", median(echoes)),
		fmt.Sprintf("%.1f s for a cold boot to `/_ping`", cold), fmt.Sprintf("%.3f", median(echoes)/cold))
	return nil
}

// asleep looks at what a sleeping engine costs.
func (b *bench) asleep(ctx context.Context, s api.Status) error {
	sleep(ctx, 25*time.Second) // coved gives back what the save needed
	before, err := ticks(s.Daemon.PID)
	if err != nil {
		return err
	}
	sleep(ctx, asleepFor)
	after, err := ticks(s.Daemon.PID)
	if err != nil {
		return err
	}
	own, err := b.memory(ctx)
	if err != nil {
		return err
	}
	b.row("coved's processor time while the engine sleeps", fmt.Sprintf("%.2f %%", float64(after-before)/100/asleepFor.Seconds()*100), "one CPU", "")
	b.row("coved's own memory while the engine sleeps", mb(own), "the target is 40 MB", fmt.Sprintf("%.2f", float64(own)/40e6))
	return ctx.Err()
}

// guestUses is the guest's memory that is in use or holds files, in bytes.
func (b *bench) guestUses(ctx context.Context) (int64, error) {
	m, err := b.Memory(ctx)
	return m.Used + m.Cached, err
}

// echo sends a word to a published port and waits for it to come back.
func echo(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 5))
	return err
}
