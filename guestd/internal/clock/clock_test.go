//go:build linux

package clock

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// system writes down what is done to it.
type system struct{ done []string }

func (s *system) Step(by time.Duration) error {
	s.done = append(s.done, "step "+by.String())
	return nil
}

func (s *system) Tick(micros int64) error {
	s.done = append(s.done, fmt.Sprint("tick ", micros))
	return nil
}

func TestPlan(t *testing.T) {
	for _, row := range []struct {
		says           string
		by, step, slow time.Duration
	}{
		{"a clock that is behind steps forward", 3 * time.Hour, 3 * time.Hour, 0},
		{"a clock that is right stays", 0, 0, 0},
		{"a clock that is ahead never steps back, and loses a tenth of the time", -time.Second, 0, 9 * time.Second},
		{"one that is a day ahead does not either", -24 * time.Hour, 0, 9 * 24 * time.Hour},
	} {
		if step, slow := plan(row.by); step != row.step || slow != row.slow {
			t.Errorf("%s: plan(%s) = %s, %s; want %s, %s", row.says, row.by, step, slow, row.step, row.slow)
		}
	}
}

func TestHello(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		says   string
		hellos []time.Duration // the host's clock against ours
		want   []string
	}{
		{"a clock behind the first hello steps forward", []time.Duration{time.Hour}, []string{"step 1h0m0s"}},
		{"a hello that waited for the boot moves nothing", []time.Duration{-90 * time.Second}, nil},
		{"a clock that was never set steps back at the first hello", []time.Duration{-48 * time.Hour}, []string{"step -48h0m0s"}},
		{"a clock that is ahead of a later hello is not stepped back", []time.Duration{0, -48 * time.Hour}, nil},
		{"a clock behind a later hello steps forward", []time.Duration{0, time.Hour}, []string{"step 1h0m0s"}},
	} {
		s := new(system)
		c := &Clock{System: s}
		for _, h := range row.hellos {
			c.Hello(now.Add(h), now)
		}
		if !slices.Equal(s.done, row.want) {
			t.Errorf("%s: after hellos at %v: %q; want %q", row.says, row.hellos, s.done, row.want)
		}
	}
	s := new(system)
	(&Clock{System: s}).Hello(time.Time{}, now)
	if len(s.done) != 0 {
		t.Errorf("a hello without a time did %q; want nothing", s.done)
	}
}

func TestMove(t *testing.T) {
	for _, row := range []struct {
		says string
		do   func(*Clock)
		want []string
	}{
		{"a slowed clock gets its speed back", func(c *Clock) {
			c.Move(-time.Second)
			time.Sleep(9*time.Second + 1)
		}, []string{"tick 9000", "tick 10000"}},
		{"not before its time", func(c *Clock) {
			c.Move(-time.Second)
			time.Sleep(9*time.Second - 1)
		}, []string{"tick 9000"}},
		{"a step ends a slower speed", func(c *Clock) {
			c.Move(-time.Second)
			c.Move(time.Second)
			time.Sleep(time.Minute)
		}, []string{"tick 9000", "tick 10000", "step 1s"}},
		{"a later correction takes an earlier one's place", func(c *Clock) {
			c.Move(-time.Hour)
			time.Sleep(time.Minute)
			c.Move(-time.Second)
			time.Sleep(9*time.Second - 1)
		}, []string{"tick 9000", "tick 10000", "tick 9000"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := new(system)
			row.do(&Clock{System: s})
			synctest.Wait()
			if !slices.Equal(s.done, row.want) {
				t.Errorf("%s: %q; want %q", row.says, s.done, row.want)
			}
		})
	}
}
