//go:build e2e && linux

package e2e

import (
	"bufio"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// guestClock follows the clock of the guest as a container sees it.
type guestClock struct {
	mu   sync.Mutex
	last time.Time     // what it showed
	lag  time.Duration // how long before that line came; at the most so much is it behind
	back time.Duration // the largest step back
}

func followClock(t *testing.T) *guestClock {
	t.Helper()
	cmd := docker("run", "--rm", "--name", "clock", image, "probe", "clock")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		docker("kill", "clock").Run()
		cmd.Wait()
	})
	c := new(guestClock)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			ns, err := strconv.ParseInt(s.Text(), 10, 64)
			if err != nil {
				continue
			}
			now := time.Unix(0, ns)
			c.mu.Lock()
			c.back = max(c.back, c.last.Sub(now))
			c.last, c.lag = now, time.Since(now)
			c.mu.Unlock()
		}
	}()
	return c
}

func (c *guestClock) state() (last time.Time, lag, back time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, c.lag, c.back
}

// right waits until the clock shows a moment after since and is less than a second wrong.
func (c *guestClock) right(t *testing.T, what string, since time.Time) {
	t.Helper()
	eventually(t, what, func() bool {
		last, lag, _ := c.state()
		return last.After(since) && lag.Abs() < time.Second
	})
}

// A machine that the host does not run, as when the host sleeps: promised is the right time 2 s later.
func TestZ13AFrozenGuestHasTheRightTime(t *testing.T) {
	vm := one(t, "qemu-system")
	c := followClock(t)
	c.right(t, "the right time after the boot", time.Time{})
	if err := syscall.Kill(vm, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Second) // the sleep itself
	syscall.Kill(vm, syscall.SIGCONT)
	woken := time.Now()
	c.right(t, "the right time after a sleep", woken)
	t.Logf("the guest has the right time %.1f s after it went on", time.Since(woken).Seconds())
	if _, _, back := c.state(); back > 0 {
		t.Errorf("the guest's clock stepped back by %s", back)
	}
}
