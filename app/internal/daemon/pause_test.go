//go:build unix

package daemon

import (
	"context"
	"errors"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/client"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/fakevm"
)

// paused is a world whose engine sleeps in a machine that stands still.
func paused(t *testing.T, driver *fakevm.Driver, settings map[string]string) *world {
	t.Helper()
	w := newWorld(t, driver)
	ctx := context.Background()
	for key, value := range settings {
		if _, err := w.Set(ctx, key, value, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.Suspend(ctx); err != nil {
		t.Fatal("Suspend:", err)
	}
	s := w.phase(t, api.Suspended)
	if s.Saved != nil || s.Paused == nil || s.Paused.Bytes == 0 || s.Paused.At.IsZero() || s.Engine == nil {
		t.Errorf("status %+v; want what stands still, and the engine", s)
	}
	if m := driver.Machine(); !m.Still() || m.Exit().Reason != "" {
		t.Errorf("the machine stands still: %t, and its end is %+v; want it to stand still", m.Still(), m.Exit())
	}
	if _, err := os.Stat(w.home.Dir("vm", profile, "saved")); err == nil {
		t.Error("there is something saved, too")
	}
	return w
}

func TestAMachineThatCannotBeSavedIsPaused(t *testing.T) {
	for says, row := range map[string]struct {
		able     fakevm.Ability
		settings map[string]string
	}{
		"it cannot be saved":        {fakevm.Pauses, nil},
		"the settings want it so":   {fakevm.Saves, map[string]string{"sleep.to": "memory"}},
		"it is paused for the disk": {fakevm.Pauses, map[string]string{"sleep.to": "disk"}},
	} {
		t.Run(says, func(t *testing.T) {
			w := paused(t, &fakevm.Driver{Fault: fakevm.Fault{Able: row.able}}, row.settings)
			m := w.driver.Machine()
			secret := string(m.Hello().Secret)
			for range 2 { // twice, as a machine goes to sleep again and again
				if code, head := w.call(t, "GET", "/_ping"); code != http.StatusOK || head.Get("Cove-Snapshot") == "" {
					t.Errorf("a passive call = %d %v; want 200 from the snapshot", code, head)
				}
				if !m.Still() {
					t.Error("a passive call woke the engine")
				}
				if code, head := w.call(t, "POST", "/containers/x/start"); code != http.StatusNotFound || head.Get("Cove-Snapshot") != "" {
					t.Errorf("an active call = %d %v; want the engine's own answer", code, head)
				}
				s := w.phase(t, api.Running)
				if w.driver.Machine() != m || m.Still() || len(s.Notices) != 0 || s.Paused != nil {
					t.Errorf("after the wake: the same machine %t, still %t, status %+v; want the same, and that it runs", w.driver.Machine() == m, m.Still(), s)
				}
				if now := string(m.Hello().Secret); now == secret {
					t.Error("the secret of the sleep's two sides is the same")
				} else {
					secret = now
				}
				w.eventually(t, "the right time", func() bool { return m.Lag().Abs() <= clockTolerance })
				if code, head := w.call(t, "GET", "/_ping"); code != http.StatusOK || head.Get("Cove-Snapshot") != "" {
					t.Errorf("a passive call after the wake = %d %v; want the engine's own answer", code, head)
				}
				if err := w.Suspend(context.Background()); err != nil {
					t.Fatal("Suspend, again:", err)
				}
				if !m.Still() {
					t.Error("suspended again, it does not stand still")
				}
			}
		})
	}
}

func TestSettingsChangedWhilePaused(t *testing.T) {
	settingsChangedWhileAsleep(t, paused(t, &fakevm.Driver{Fault: fakevm.Fault{Able: fakevm.Pauses}}, nil))
}

// What stands still cannot outlive coved, so it ends in order.
func TestTheEndOfAPausedMachine(t *testing.T) {
	for says, end := range map[string]func(*world) error{
		"cove stop": func(w *world) error { return w.Stop(context.Background()) },
		"cove quit": func(w *world) error { return w.Quit(context.Background()) },
	} {
		t.Run(says, func(t *testing.T) {
			w := paused(t, &fakevm.Driver{Fault: fakevm.Fault{Able: fakevm.Pauses}}, nil)
			m := w.driver.Machine()
			if err := end(w); err != nil && !errors.Is(err, client.ErrNoDaemon) {
				t.Fatal(err)
			}
			w.eventually(t, "the machine's end", func() bool { return m.Exit().Reason != "" })
			if e := m.Exit(); e.Reason != vmhost.ExitPoweredOff {
				t.Errorf("it ended as %+v; want in order", e)
			}
		})
	}
}

func TestAPausedMachineThatEndsIsAColdBoot(t *testing.T) {
	w := paused(t, &fakevm.Driver{Fault: fakevm.Fault{Able: fakevm.Pauses}}, nil)
	m := w.driver.Machine()
	m.End(vmhost.Exit{Reason: vmhost.ExitCrashed, Detail: "it was ended by signal 9"})
	<-m.Done()
	w.phase(t, api.Suspended) // it is seen when it is wanted
	if err := w.Start(context.Background()); err != nil {
		t.Fatal("Start:", err)
	}
	s := w.phase(t, api.Running)
	if len(s.Notices) != 1 || !strings.Contains(s.Notices[0].Text, "boots anew") || !strings.Contains(s.Notices[0].Text, "signal 9") {
		t.Errorf("notices %v; want that it booted anew, and why", s.Notices)
	}
	if w.driver.Machine() == m {
		t.Error("the machine that ended is the one that runs")
	}
}

func TestAMachineThatCanNeitherBeSavedNorPaused(t *testing.T) {
	w := newWorld(t, &fakevm.Driver{Fault: fakevm.Fault{Able: fakevm.Wakes}})
	ctx := context.Background()
	if err := w.Start(ctx); err != nil {
		t.Fatal(err)
	}
	var e *api.Error
	if err := w.Suspend(ctx); !errors.As(err, &e) || e.Cause != api.CauseNotOffered || !strings.Contains(e.Summary, "neither") || e.Remedy == "" {
		t.Errorf("Suspend = %v; want that it is not offered, and what is", err)
	}
	said := func() (n int) {
		for _, notice := range w.phase(t, api.Running).Notices {
			if strings.Contains(notice.Text, "sleep.after has no effect") {
				n++
			}
		}
		return n
	}
	w.eventually(t, "a word on sleep.after", func() bool { return said() > 0 })
	time.Sleep(idleEvery + time.Second) // another look
	if n := said(); n != 1 {
		t.Errorf("it is said %d times; want once", n)
	}
}

// An engine that slept and woke again and again has no goroutine more than one that did so twice.
func TestSleepsLeaveNothingBehind(t *testing.T) {
	for says, row := range map[string]struct {
		able   fakevm.Ability
		cycles int
	}{"saved": {fakevm.Saves, 12}, "paused": {fakevm.Pauses, 4}} { // a pause takes 3 s
		t.Run(says, func(t *testing.T) {
			w := newWorld(t, &fakevm.Driver{Fault: fakevm.Fault{Able: row.able}})
			ctx := context.Background()
			if err := w.Start(ctx); err != nil {
				t.Fatal(err)
			}
			cycle := func() {
				if err := errors.Join(w.Suspend(ctx), w.Start(ctx)); err != nil {
					t.Fatal(err)
				}
			}
			cycle()
			cycle()
			settled := func() int { // the least of some looks: what is ending is not what stays
				least := runtime.NumGoroutine()
				for range 100 {
					time.Sleep(20 * time.Millisecond)
					least = min(least, runtime.NumGoroutine())
				}
				return least
			}
			before := settled()
			for range row.cycles {
				cycle()
			}
			w.eventually(t, "the end of what was begun", func() bool { return settled() < before+row.cycles })
		})
	}
}
