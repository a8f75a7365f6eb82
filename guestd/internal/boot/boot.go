//go:build linux

// Package boot brings the guest up. A boot is a list of steps, each a value with a name and what it
// waits for; they run beside each other where they can, and every one is timed.
package boot

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Step is one named piece of a boot.
type Step struct {
	Name  string
	After []string // names of the steps that must have ended well before it
	Run   func(context.Context) error
	// Optional says that the guest does its job without it: its error is told, and the boot goes on.
	Optional bool
}

// Ended is a step's end. Start counts from the kernel's start.
type Ended struct {
	Name            string
	Start, Duration time.Duration
	Err             error
}

// Error says which step failed.
type Error struct {
	Step string
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("boot step %q: %v", e.Step, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// SinceKernel is how long ago the kernel started, pauses of the machine included.
func SinceKernel() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

// Run runs the steps and tells each one's end as it comes, in one goroutine at a time. The first
// failure of a step that is not optional ends the boot: what runs is cancelled and waited for, what
// has not begun is left. Steps that wait for unknown ones are a programming error and fail at once.
func Run(ctx context.Context, steps []Step, tell func(Ended)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := map[string]chan struct{}{}
	for _, s := range steps {
		done[s.Name] = make(chan struct{})
	}
	for _, s := range steps {
		for _, a := range s.After {
			if done[a] == nil {
				return &Error{s.Name, fmt.Errorf("waits for %q, which does not exist", a)}
			}
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, s := range steps {
		wg.Go(func() {
			for _, a := range s.After {
				select {
				case <-done[a]:
				case <-ctx.Done():
					return
				}
			}
			start := SinceKernel()
			err := s.Run(ctx)
			if err != nil && ctx.Err() != nil {
				return // a consequence, not a cause
			}
			mu.Lock()
			tell(Ended{s.Name, start, SinceKernel() - start, err})
			mu.Unlock()
			if err != nil && !s.Optional {
				cancel(&Error{s.Name, err})
				return
			}
			close(done[s.Name])
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return ctx.Err()
}
