//go:build unix

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/client"
	"github.com/covedesk/cove/app/internal/settings"
	"github.com/covedesk/cove/proxy/dockerapi"
	"github.com/covedesk/cove/proxy/ports"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/fakevm"
)

// asleep is a world whose engine is suspended.
func asleep(t *testing.T, driver *fakevm.Driver) *world {
	t.Helper()
	w := newWorld(t, driver)
	ctx := context.Background()
	if err := w.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.Suspend(ctx); err != nil {
		t.Fatal("Suspend:", err)
	}
	if s := w.phase(t, api.Suspended); s.Saved == nil || s.Engine == nil {
		t.Errorf("status %+v; want what is saved, and the engine", s)
	}
	return w
}

// call makes a call to docker.sock and gives its status.
func (w *world) call(t *testing.T, method, path string) (int, http.Header) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: w.dialDocker}, Timeout: patience}
	req, err := http.NewRequest(method, "http://engine"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	resp.Body.Close()
	return resp.StatusCode, resp.Header
}

func TestASuspendedEngine(t *testing.T) {
	w := asleep(t, &fakevm.Driver{})
	first := w.driver.Machine()
	if e := first.Exit(); e.Reason != vmhost.ExitSuspended {
		t.Errorf("the machine ended as %+v; want suspended", e)
	}
	code, head := w.call(t, "GET", "/_ping")
	if code != http.StatusOK || head.Get("Cove-Snapshot") == "" {
		t.Errorf("a passive call = %d %v; want 200 from the snapshot", code, head)
	}
	if w.driver.Machine() != first {
		t.Error("a passive call woke the engine")
	}
	if code, head := w.call(t, "POST", "/containers/x/start"); code != http.StatusNotFound || head.Get("Cove-Snapshot") != "" {
		t.Errorf("an active call = %d %v; want the engine's own answer", code, head)
	}
	w.phase(t, api.Running)
	if m := w.driver.Machine(); m == first || m.Spec().Saved == "" {
		t.Errorf("the machine is made of %+v; want what was saved", m.Spec())
	}
	if old, now := first.Hello(), w.driver.Machine().Hello(); string(old.Secret) == string(now.Secret) {
		t.Error("the secret of the sleep's two sides is the same")
	}
	if _, err := os.Stat(w.home.Dir("vm", profile, "saved")); err == nil {
		t.Error("what was saved is still there while the engine runs")
	}
	if code, head := w.call(t, "GET", "/_ping"); code != http.StatusOK || head.Get("Cove-Snapshot") != "" {
		t.Errorf("a passive call after the wake = %d %v; want the engine's own answer", code, head)
	}
}

func TestADaemonThatWasRestartedWakesTheEngine(t *testing.T) {
	w := asleep(t, &fakevm.Driver{})
	ctx := context.Background()
	if err := w.Quit(ctx); err != nil {
		t.Fatal("Quit:", err)
	}
	w.eventually(t, "the end of the first", func() bool { _, err := w.Status(ctx); return errors.Is(err, client.ErrNoDaemon) })
	// It may still hold its lock for a moment.
	next := &fakevm.Driver{}
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		for {
			err := Run(run, w.home, func(api.Home, *slog.Logger) vmhost.Driver { return next })
			if err == nil || run.Err() != nil {
				ended <- err
				return
			}
		}
	}()
	defer func() { stop(); <-ended }()
	w.phase(t, api.Suspended)
	if code, head := w.call(t, "GET", "/_ping"); code != http.StatusOK || head.Get("Cove-Snapshot") == "" {
		t.Errorf("a passive call = %d %v; want 200 from the snapshot", code, head)
	}
	if err := w.Start(ctx); err != nil {
		t.Fatal("Start:", err)
	}
	if m := next.Machine(); m.Spec().Saved == "" {
		t.Errorf("the machine is made of %+v; want what was saved", m.Spec())
	}
}

// What was saved does not fit any more: the engine boots, and people are told why their containers are gone.
func TestAStateThatDoesNotFitIsAColdBoot(t *testing.T) {
	for says, spoil := range map[string]func(dir string) error{
		"another image": func(dir string) error {
			b, err := os.ReadFile(filepath.Join(dir, restFile))
			if err != nil {
				return err
			}
			var r rest
			if err := json.Unmarshal(b, &r); err != nil {
				return err
			}
			r.Image = "sha256:other"
			if b, err = json.Marshal(r); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, restFile), b, 0o600)
		},
		"the driver's file is gone": func(dir string) error { return os.Remove(filepath.Join(dir, "machine.json")) },
		"ours is cut off":           func(dir string) error { return os.Truncate(filepath.Join(dir, restFile), 10) },
		"a disk that went on": func(dir string) error {
			now := time.Now().Add(time.Second)
			return os.Chtimes(filepath.Join(filepath.Dir(dir), "data.raw"), now, now)
		},
	} {
		t.Run(says, func(t *testing.T) {
			w := asleep(t, &fakevm.Driver{})
			if err := spoil(w.home.Dir("vm", profile, "saved")); err != nil {
				t.Fatal(err)
			}
			if err := w.Start(context.Background()); err != nil {
				t.Fatal("Start:", err)
			}
			s := w.phase(t, api.Running)
			if len(s.Notices) != 1 || !strings.Contains(s.Notices[0].Text, "boots anew") {
				t.Errorf("notices %v; want that it booted anew, and why", s.Notices)
			}
			if m := w.driver.Machine(); m.Spec().Saved != "" {
				t.Errorf("the machine is made of %+v; want a cold boot", m.Spec())
			}
			if _, err := os.Stat(w.home.Dir("vm", profile, "saved")); err == nil {
				t.Error("what does not fit is still there")
			}
		})
	}
}

func TestAnEngineThatCannotBeSavedGoesOn(t *testing.T) {
	w := newWorld(t, &fakevm.Driver{Fault: fakevm.Fault{Unsaved: errors.New("no room on the disk")}})
	ctx := context.Background()
	if err := w.Start(ctx); err != nil {
		t.Fatal(err)
	}
	var e *api.Error
	if err := w.Suspend(ctx); !errors.As(err, &e) || e.Cause != api.CauseUnsaved || !strings.Contains(e.Summary, "no room on the disk") {
		t.Errorf("Suspend = %v; want why not", err)
	}
	w.phase(t, api.Running)
	if code, head := w.call(t, "GET", "/version"); code != http.StatusOK || head.Get("Cove-Snapshot") != "" {
		t.Errorf("a call after it = %d %v; want the engine's own answer", code, head)
	}
}

// Settings changed meanwhile that need a boot wait for one; what is suspended comes back as it was.
func TestSettingsChangedWhileAsleep(t *testing.T) {
	w := asleep(t, &fakevm.Driver{})
	settingsChangedWhileAsleep(t, w)
	if w.driver.Machine().Spec().Saved != "" {
		t.Error("the machine after the restart was brought back; want it booted")
	}
}

func settingsChangedWhileAsleep(t *testing.T, w *world) {
	t.Helper()
	ctx, first := context.Background(), w.driver.Machine()
	for key, value := range map[string]string{"cpus": "1", "disk": "96GiB"} {
		if _, err := w.Set(ctx, key, value, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if s, m := w.phase(t, api.Running), w.driver.Machine(); len(s.Notices) != 0 || m != first && m.Spec().Saved == "" {
		t.Errorf("notices %v; want what was suspended", s.Notices)
	}
	w.eventually(t, "the disk as large as it was set to meanwhile", func() bool {
		s, err := w.Status(ctx)
		return err == nil && s.Disk != nil && s.Disk.Size == 96<<30
	})
	if err := w.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if got := w.driver.Machine().Spec().CPUs; got != 1 {
		t.Errorf("after a restart the machine has %d CPUs; want 1", got)
	}
}

func TestUsed(t *testing.T) {
	at := time.Unix(1000, 0)
	still := use{at: at, asked: true, front: dockerapi.Activity{Last: at}}
	later := func(change func(*use)) use {
		u := still
		u.at = at.Add(10 * time.Second)
		change(&u)
		return u
	}
	for _, row := range []struct {
		says       string
		containers bool // may sleep with
		from       func(*use)
		to         func(*use)
		want       bool
	}{
		{says: "nothing happened", to: func(*use) {}},
		{says: "a call is open", to: func(u *use) { u.front.Open = 1 }, want: true},
		{says: "a call came and went", to: func(u *use) { u.front.Last = at.Add(time.Second) }, want: true},
		{says: "a shell is open", to: func(u *use) { u.own.open = 1 }, want: true},
		{says: "a log was read", to: func(u *use) { u.own.last = at.Add(time.Second) }, want: true},
		{says: "a connection to a port is open", to: func(u *use) { u.ports = ports.Activity{Open: 1, Total: 1} }, want: true},
		{says: "a connection came and went", to: func(u *use) { u.ports = ports.Activity{Total: 1} }, want: true},
		{says: "a container runs", to: func(u *use) { u.guest.Containers = 1 }, want: true},
		{says: "the guest was not asked", to: func(u *use) { u.asked = false; u.guest.Containers = 1 }},
		{says: "containers run and do nothing", containers: true, from: func(u *use) { u.guest.Containers = 3 }, to: func(u *use) { u.guest.Containers = 3 }},
		{says: "a container was started", containers: true, to: func(u *use) { u.guest.Containers = 1 }, want: true},
		{says: "a container's timer ticks", containers: true, to: func(u *use) { u.guest.ContainersCPU = 100 * time.Millisecond }},
		{says: "a container computes", containers: true, to: func(u *use) { u.guest.ContainersCPU = 2 * time.Second }, want: true},
		{says: "a container's interface says that it is there", containers: true, to: func(u *use) { u.guest.ContainersNet = 300 }},
		{says: "a container downloads", containers: true, to: func(u *use) { u.guest.ContainersNet = 100 << 10 }, want: true},
	} {
		from := still
		if row.from != nil {
			row.from(&from)
		}
		if got := used(from, later(row.to), settings.Sleep{After: time.Minute, Containers: row.containers}); got != row.want {
			t.Errorf("%s: used = %v; want %v", row.says, got, row.want)
		}
	}
}

func TestRoomForASave(t *testing.T) {
	if err := lacks(500<<20, 500<<20, "/x"); err != nil {
		t.Errorf("with just enough room: %v", err)
	}
	var e *api.Error
	err := lacks(500<<20, 200<<20, "/x")
	if !errors.As(err, &e) || e.Cause != vmhost.ProblemNoDisk || !strings.Contains(e.Summary, "/x has 200MiB left") || !strings.Contains(e.Remedy, "Free about 300MiB") {
		t.Errorf("without room: %v; want what is left, where, and how much to free", err)
	}
}
