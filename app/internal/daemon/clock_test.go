//go:build unix

package daemon

import (
	"context"
	"testing"
	"time"

	"github.com/covedesk/cove/vmhost/fakevm"
)

func TestReading(t *testing.T) {
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		says          string
		guest, answer time.Duration // against the moment of the question
		want          time.Duration
		slow          bool
	}{
		{"a clock between question and answer may be right", 5 * time.Millisecond, 10 * time.Millisecond, 0, false},
		{"a small error is left", -40 * time.Millisecond, 10 * time.Millisecond, 0, false},
		{"a clock that stood still is behind by what is certain", -time.Hour, 100 * time.Millisecond, time.Hour, false},
		{"a clock that is ahead is so by what is certain", time.Second, 100 * time.Millisecond, -900 * time.Millisecond, false},
		{"a slow answer says little", 3 * time.Second, 20 * time.Second, 0, true},
		{"a slow answer shows what is wrong all the same", -3 * time.Second, 20 * time.Second, 3 * time.Second, true},
	} {
		r := reading{sent: at, guest: at.Add(row.guest), received: at.Add(row.answer)}
		if got, slow := r.error(), r.slow(); got != row.want || slow != row.slow {
			t.Errorf("%s: a guest at %s, answered after %s: error %s, slow %t; want %s, %t", row.says, row.guest, row.answer, got, slow, row.want, row.slow)
		}
	}
}

func TestSlept(t *testing.T) {
	for _, row := range []struct {
		says            string
		wall, monotonic time.Duration
		want            bool
	}{
		{"a look after a second found nobody asleep", time.Second, time.Second, false},
		{"nor did one that comes a little late", 2 * time.Second, 2 * time.Second, false},
		{"one that comes late may have slept", 4 * time.Second, 4 * time.Second, true},
		{"a clock that went on without the monotonic one slept", 3 * time.Hour, time.Second, true},
		{"a clock that was set back is to be told", -time.Hour, time.Second, true},
	} {
		if got := slept(row.wall, row.monotonic); got != row.want {
			t.Errorf("%s: slept(%s, %s) = %t; want %t", row.says, row.wall, row.monotonic, got, row.want)
		}
	}
}

func TestAGuestThatStoodStillIsToldTheTime(t *testing.T) {
	w := newWorld(t, &fakevm.Driver{})
	if err := w.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	m := w.driver.Machine()
	m.Stall(3 * time.Hour)
	w.eventually(t, "the right time in the guest", func() bool { return m.Lag().Abs() < time.Second })
	m.Stall(-time.Hour) // somebody set the host's clock back
	w.eventually(t, "the right time in a guest that was ahead", func() bool { return m.Lag().Abs() < time.Second })
}
