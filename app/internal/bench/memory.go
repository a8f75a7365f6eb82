//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/covedesk/cove/app/api"
)

const (
	// usedMiB is what a container uses, and backIn how long its memory may take to come back.
	usedMiB = 1024
	backIn  = 30 * time.Second
	// filesMiB is what a container reads, and filesBackIn how long what is kept of it may take to come back.
	filesMiB    = 512
	filesBackIn = 5 * time.Minute
	// unhurried is how long the pings are timed that the others are compared with.
	unhurried = 20 * time.Second
)

// givenBack measures how soon the host has the memory again that containers used, and how the engine and a
// published port answer meanwhile.
func (b *bench) givenBack(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "==> memory")
	if err := b.makeProbe(ctx); err != nil {
		return err
	}
	if _, err := b.program(ctx, "docker", "run", "-d", "--name", "echo", "-p", "7/tcp", "cove/probe", "echo", "7"); err != nil {
		return err
	}
	defer b.program(context.Background(), "docker", "rm", "-f", "echo", "user")
	port, err := b.publishedAt(ctx, "echo", "tcp")
	if err != nil {
		return err
	}
	quiet, err := b.answers(ctx, port.Address, func() error { sleep(ctx, unhurried); return ctx.Err() })
	if err != nil {
		return err
	}
	for _, part := range []func(context.Context, string, latency) error{b.memoryBack, b.filesBack, b.lessMemory} {
		if err := part(ctx, port.Address, quiet); err != nil {
			return err
		}
	}
	return nil
}

// memoryBack stops a container that used memory.
func (b *bench) memoryBack(ctx context.Context, address string, quiet latency) error {
	start, peak, err := b.use(ctx, "memory", usedMiB)
	if err != nil {
		return err
	}
	if _, err := b.program(ctx, "docker", "stop", "user"); err != nil {
		return err
	}
	begun, took := time.Now(), time.Duration(0)
	var at api.Memory
	busy, err := b.answers(ctx, address, func() (err error) {
		for time.Since(begun) < backIn && err == nil {
			sleep(ctx, time.Second)
			if at, err = b.Memory(ctx); took == 0 && near(at, start) {
				took = time.Since(begun)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	within := "never within 10 % of before"
	if took > 0 {
		within = fmt.Sprintf("within 10 %% of before after %.0f s", took.Seconds())
	}
	b.row(fmt.Sprintf("memory that the host holds %.0f s after the stop of a container that used %d MiB", backIn.Seconds(), usedMiB), mb(at.Resident),
		fmt.Sprintf("%s before it, %s with it; %s", mb(start.Resident), mb(peak.Resident), within), fmt.Sprintf("%.2f", float64(at.Resident)/float64(start.Resident)))
	b.meanwhile(busy, quiet)
	_, err = b.program(ctx, "docker", "rm", "user")
	return err
}

// filesBack leaves a container alone that has read files.
func (b *bench) filesBack(ctx context.Context, address string, quiet latency) error {
	start, peak, err := b.use(ctx, "files", filesMiB)
	if err != nil {
		return err
	}
	begun := time.Now()
	at := peak
	busy, err := b.answers(ctx, address, func() (err error) {
		for time.Since(begun) < filesBackIn && !near(at, start) && err == nil {
			sleep(ctx, 5*time.Second)
			at, err = b.Memory(ctx)
		}
		return err
	})
	if err != nil {
		return err
	}
	b.row(fmt.Sprintf("memory that the host holds %.0f s after a container that goes on has read %d MiB of files", time.Since(begun).Seconds(), filesMiB), mb(at.Resident),
		mb(start.Resident)+" before it, "+mb(peak.Resident)+" right after", fmt.Sprintf("%.2f", float64(at.Resident)/float64(start.Resident)))
	b.meanwhile(busy, quiet)
	return nil
}

// lessMemory takes half of the guest's memory by the setting.
func (b *bench) lessMemory(ctx context.Context, address string, quiet latency) error {
	at, err := b.Memory(ctx)
	if err != nil {
		return err
	}
	take := at.Size / 2 >> 20 << 20
	if _, err := b.Set(ctx, "memory", fmt.Sprintf("%dMiB", (at.Size-take)>>20), false); err != nil {
		return err
	}
	begun := time.Now()
	busy, err := b.answers(ctx, address, func() (err error) {
		for time.Since(begun) < filesBackIn && at.Withheld < take && err == nil {
			sleep(ctx, time.Second)
			at, err = b.Memory(ctx)
		}
		return err
	})
	if err != nil {
		return err
	}
	b.row("the setting memory halved, until the balloon has the other half", fmt.Sprintf("%.0f s", time.Since(begun).Seconds()), mb(at.Withheld)+" of "+mb(take), "")
	b.meanwhile(busy, quiet)
	_, err = b.Unset(ctx, "memory", false)
	return err
}

func (b *bench) meanwhile(busy, quiet latency) {
	b.row("meanwhile: `/_ping` p99", ms(busy.ping), ms(quiet.ping)+" before", fmt.Sprintf("%.1f", busy.ping/quiet.ping))
	b.row("meanwhile: connect to a published port, a byte there and back, p99", ms(busy.port), ms(quiet.port)+" before", fmt.Sprintf("%.1f", busy.port/quiet.port))
}

func near(at, start api.Memory) bool {
	return float64(at.Resident) <= 1.1*float64(start.Resident)
}

// memorySettled waits until the host's share moves no more, and gives how it stands.
func (b *bench) memorySettled(ctx context.Context) (api.Memory, error) {
	last, err := b.Memory(ctx)
	for end := time.Now().Add(2 * time.Minute); err == nil && time.Now().Before(end); {
		sleep(ctx, 10*time.Second)
		var now api.Memory
		if now, err = b.Memory(ctx); err == nil && last.Resident-now.Resident < 2<<20 && now.Resident-last.Resident < 2<<20 {
			return now, nil
		}
		last = now
	}
	return last, err
}

// use runs a container named user that uses so much, and says how the memory stood before and stands with it.
func (b *bench) use(ctx context.Context, what string, mib int) (before, with api.Memory, err error) {
	if before, err = b.memorySettled(ctx); err != nil {
		return before, with, err
	}
	if _, err = b.program(ctx, "docker", "run", "-d", "--name", "user", "cove/probe", "use", what, fmt.Sprint(mib)); err != nil {
		return before, with, err
	}
	for {
		out, err := b.program(ctx, "docker", "logs", "user")
		if err != nil {
			return before, with, err
		}
		if strings.Contains(out, "in use") {
			with, err = b.Memory(ctx)
			return before, with, err
		}
		sleep(ctx, time.Second)
	}
}

// latency is the p99 of what the engine and a published port took to answer, in seconds.
type latency struct{ ping, port float64 }

// answers asks the engine and a published port by turns while something is done. Each has to answer.
func (b *bench) answers(ctx context.Context, address string, do func() error) (latency, error) {
	done := make(chan error, 1)
	go func() { done <- do() }()
	c := b.engine()
	var pings, ports []float64
	for {
		begun := time.Now()
		if _, err := call(ctx, c, "GET", "/_ping", nil); err != nil {
			return latency{}, err
		}
		pings = append(pings, time.Since(begun).Seconds())
		port, err := echoTimes("tcp", address, 1)
		if err != nil {
			return latency{}, err
		}
		ports = append(ports, port...)
		select {
		case err := <-done:
			slices.Sort(pings)
			slices.Sort(ports)
			return latency{quantile(pings, 0.99), quantile(ports, 0.99)}, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func mb(bytes int64) string { return fmt.Sprintf("%d MiB", bytes>>20) }
