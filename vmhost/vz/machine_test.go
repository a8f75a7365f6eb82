//go:build unix

package vz

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/vmhost"
)

// fake is a hypervisor, and with it the guest's end of the console. It writes down what it sees.
type fake struct {
	started chan error // what start gives, when it is sent
	ended   chan error // what wait gives, when it is sent
	stopErr error

	mu  sync.Mutex
	log []string
}

func (f *fake) note(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, s)
}

func (f *fake) seen() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.log, " ")
}

func (f *fake) start() error      { return <-f.started }
func (f *fake) pressPower() error { f.note("power"); return nil }
func (f *fake) wait() error       { return <-f.ended }
func (f *fake) pause() error      { f.note("pause"); return nil }
func (f *fake) goOn() error       { f.note("go-on"); return nil }

func (f *fake) stop() error {
	f.note("stop")
	if f.stopErr == nil {
		f.ended <- nil
	}
	return f.stopErr
}

// noted is a closer that tells the fake.
type noted struct {
	f    *fake
	name string
}

func (n noted) Close() error                             { n.f.note(n.name); return nil }
func (n noted) String() string                           { return n.name }
func (n noted) Open(context.Context) (proxy.Conn, error) { return nil, errors.New("no") }

// rig is a machine on a fake, before its start.
type rig struct {
	*fake
	m       *machine
	console *os.File // the guest's
	out     *bytes.Buffer
}

func newRig(t *testing.T, running bool) *rig {
	t.Helper()
	f := &fake{started: make(chan error, 1), ended: make(chan error, 8)}
	console, theirs, err := newPort()
	if err != nil {
		t.Fatal(err)
	}
	control, guest := pair(t)
	t.Cleanup(func() { guest.Close() })
	r := &rig{fake: f, console: theirs, out: new(bytes.Buffer)}
	r.m = newMachine(parts{
		vm: f, console: console, links: []proxy.Link{noted{f, "link"}}, lock: noted{f, "lock"},
		control: &conn{Conn: control, closed: func() { f.note("control") }},
		ours:    []io.Closer{noted{f, "mux"}}, theirs: []io.Closer{theirs, noted{f, "theirs"}},
	}, r.out, slog.New(slog.DiscardHandler))
	if running {
		f.started <- nil
		if err := r.m.begin(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func TestHowAMachineEnds(t *testing.T) {
	for _, row := range []struct {
		says string
		end  func(*rig)
		want vmhost.ExitReason
		seen string
	}{
		{"the guest switches itself off", func(r *rig) { r.ended <- nil }, vmhost.ExitPoweredOff, "link control mux theirs lock"},
		{"by Kill all ways to the guest are closed before the stop", func(r *rig) { r.m.Kill() }, vmhost.ExitKilled, "link control mux stop theirs lock"},
		{"a second Kill is no harm", func(r *rig) { r.m.Kill(); <-r.m.Done(); r.m.Kill() }, vmhost.ExitKilled, "link control mux stop theirs lock"},
		{"a panic is ended before the guest restarts", func(r *rig) {
			r.console.WriteString("Kernel panic - not syncing: x\nRebooting in 1 seconds..\n")
		}, vmhost.ExitPanicked, "link control mux stop theirs lock"},
		{"so is a restart", func(r *rig) { r.console.WriteString("[ 1.0] reboot: Restarting system\n") }, vmhost.ExitReset, "link control mux stop theirs lock"},
		{"the framework breaks", func(r *rig) { r.ended <- errors.New("broken") }, vmhost.ExitCrashed, "link control mux theirs lock"},
		{"a panic that the framework is quicker to end is still one", func(r *rig) {
			r.console.WriteString("Kernel panic - not syncing: x\n")
			r.ended <- nil
		}, vmhost.ExitPanicked, "link control mux theirs lock"},
		{"the power button", func(r *rig) { r.m.PowerOff(context.Background()); r.ended <- nil }, vmhost.ExitPoweredOff, "power link control mux theirs lock"},
	} {
		r := newRig(t, true)
		row.end(r)
		ends(t, row.says, func() { <-r.m.Done() })
		if got := r.m.Exit(); got.Reason != row.want || r.seen() != row.seen {
			t.Errorf("%s: Exit() = %+v, seen %q; want %s, %q", row.says, got, r.seen(), row.want, row.seen)
		}
		if err := r.m.PowerOff(context.Background()); err == nil {
			t.Errorf("%s: PowerOff of an ended machine is no error", row.says)
		}
	}
}

func TestTheConsoleIsHeardToItsEnd(t *testing.T) {
	r := newRig(t, true)
	text := strings.Repeat("a line of the guest\n", 2000) // more than one read takes, less than the port holds
	r.console.WriteString(text)
	r.ended <- nil
	ends(t, "the machine", func() { <-r.m.Done() })
	if r.out.String() != text {
		t.Errorf("the console has %d bytes; want %d", r.out.Len(), len(text))
	}
}

// brokenWriter is a log on a full disk.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestAConsoleThatCannotBeWrittenDownIsStillRead(t *testing.T) {
	r := newRig(t, false)
	r.m.out = brokenWriter{}
	r.started <- nil
	if err := r.m.begin(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	ends(t, "the guest's writing", func() { r.console.WriteString(strings.Repeat("x", 4*portBuffer)) })
	r.m.Kill()
	ends(t, "the machine", func() { <-r.m.Done() })
}

func TestAStartThatFails(t *testing.T) {
	r := newRig(t, false)
	refused := errors.New("refused")
	r.started <- refused
	if err := r.m.begin(t.Context(), ""); !errors.Is(err, refused) {
		t.Errorf("begin = %v; want the cause", err)
	}
	if want := "link control mux theirs lock"; r.seen() != want {
		t.Errorf("seen %q; want %q", r.seen(), want)
	}
}

// The framework's start cannot be cancelled. Until it is over nobody else may have the data disk.
func TestAStartThatIsGivenUpIsEndedWhenItComes(t *testing.T) {
	for _, row := range []struct {
		says  string
		comes error
		want  string
	}{
		{"it comes late", nil, "link control mux stop theirs lock"},
		{"it fails late", errors.New("refused"), "link control mux theirs lock"},
	} {
		r := newRig(t, false)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var err error
		ends(t, "begin", func() { err = r.m.begin(ctx, "") })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: begin = %v; want context.Canceled", row.says, err)
		}
		if slices.Contains(strings.Fields(r.seen()), "lock") {
			t.Errorf("%s: the lock is let go before the start is over", row.says)
		}
		r.started <- row.comes
		ends(t, row.says, func() {
			for !strings.HasSuffix(r.seen(), "lock") {
				time.Sleep(time.Millisecond)
			}
		})
		if r.seen() != row.want {
			t.Errorf("%s: seen %q; want %q", row.says, r.seen(), row.want)
		}
	}
}

func TestAKillThatTheFrameworkRefuses(t *testing.T) {
	r := newRig(t, true)
	r.stopErr = errors.New("not now")
	if err := r.m.Kill(); !errors.Is(err, r.stopErr) {
		t.Errorf("Kill = %v; want the cause", err)
	}
	r.ended <- nil
	ends(t, "the machine", func() { <-r.m.Done() })
}
