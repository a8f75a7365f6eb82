package lifecycle

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/covedesk/cove/app/api"
)

// fakeVM is a machine that ends when it is told to.
type fakeVM struct {
	once    sync.Once
	done    chan struct{}
	failure *api.Failure
	stops   atomic.Int32
	unsaved error // what Suspend gives
	dies    bool  // in Suspend
}

func newVM() *fakeVM { return &fakeVM{done: make(chan struct{})} }

func (v *fakeVM) Stop(context.Context) error {
	v.stops.Add(1)
	time.Sleep(time.Second) // of the scenario's clock
	v.end(nil)
	return nil
}
func (v *fakeVM) Suspend(_ context.Context, wanted func() bool) error {
	if wanted != nil && wanted() {
		return ErrWanted
	}
	time.Sleep(time.Second)
	if v.dies {
		v.end(&api.Failure{Cause: "crashed", Summary: "It crashed."})
	}
	if v.unsaved == nil {
		v.end(nil)
	}
	return v.unsaved
}
func (v *fakeVM) end(f *api.Failure)    { v.once.Do(func() { v.failure = f; close(v.done) }) }
func (v *fakeVM) Done() <-chan struct{} { return v.done }
func (v *fakeVM) Failure() *api.Failure { return v.failure }

// world is a Life whose boots the test decides.
type world struct {
	*Life
	boots   atomic.Int32
	resumes atomic.Int32
	cold    atomic.Bool // what was saved cannot be used
	outcome chan error  // one for each boot; nil is a machine that is up
	vms     chan *fakeVM
}

func newWorld() *world {
	w := &world{outcome: make(chan error), vms: make(chan *fakeVM, 100)}
	w.Life = New(func(ctx context.Context, p Progress) (VM, error) {
		w.boots.Add(1)
		if p.Resume {
			w.resumes.Add(1)
			if w.cold.Load() {
				p.Cold("It cannot be used.")
			}
		}
		p.Stage("booting")
		select {
		case err := <-w.outcome:
			if err != nil {
				return nil, err
			}
			vm := newVM()
			w.vms <- vm
			return vm, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}, time.Now, false)
	return w
}

func (w *world) phase() api.Phase { s, _ := w.State(); return s.Phase }

func want(t *testing.T, w *world, p api.Phase) {
	t.Helper()
	synctest.Wait()
	if got := w.phase(); got != p {
		t.Fatalf("phase %s; want %s", got, p)
	}
}

// try runs a scenario with a clock of its own, and ends the Life after it.
func try(t *testing.T, name string, f func(t *testing.T, w *world)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			f(t, w)
			w.Leave(context.Background(), "the test ends")
			w.Wait()
		})
	})
}

func TestLife(t *testing.T) {
	ctx := context.Background()
	try(t, "two starts at once are one boot, and both get the outcome", func(t *testing.T, w *world) {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if err := w.Start(ctx, "test"); err != nil {
					t.Error(err)
				}
			})
		}
		want(t, w, api.Starting)
		w.outcome <- nil
		wg.Wait()
		want(t, w, api.Running)
		if n := w.boots.Load(); n != 1 {
			t.Errorf("%d boots; want 1", n)
		}
	})
	try(t, "a start of a running engine does nothing", func(t *testing.T, w *world) {
		go func() { w.outcome <- nil }()
		w.Start(ctx, "test")
		if err := w.Start(ctx, "again"); err != nil || w.boots.Load() != 1 {
			t.Errorf("second Start = %v after %d boots; want nil after 1", err, w.boots.Load())
		}
	})
	try(t, "a failed start says why to its caller and in the status, and can be tried again", func(t *testing.T, w *world) {
		go func() {
			w.outcome <- &api.Error{Failure: api.Failure{Cause: "no-disk", Summary: "Full.", Remedy: "Free some."}}
		}()
		err := w.Start(ctx, "test")
		var e *api.Error
		if !errors.As(err, &e) || e.Cause != "no-disk" {
			t.Errorf("Start = %v; want the failure", err)
		}
		s, _ := w.State()
		if s.Phase != api.Failed || s.Failure == nil || s.Failure.Cause != "no-disk" {
			t.Errorf("State = %+v; want failed with the cause", s)
		}
		go func() { w.outcome <- nil }()
		if err := w.Start(ctx, "test"); err != nil {
			t.Error(err)
		}
	})
	try(t, "a stop during the start wins, and the starter is told", func(t *testing.T, w *world) {
		started := make(chan error, 1)
		go func() { started <- w.Start(ctx, "test") }()
		want(t, w, api.Starting)
		if err := w.Stop(ctx, "test"); err != nil {
			t.Fatal(err)
		}
		err := <-started
		var e *api.Error
		if !errors.As(err, &e) || e.Cause != api.CauseStopped {
			t.Errorf("Start = %v; want stopped", err)
		}
		want(t, w, api.Stopped)
	})
	try(t, "a machine that comes up in the moment of the stop is taken down", func(t *testing.T, w *world) {
		go w.Start(ctx, "test")
		want(t, w, api.Starting)
		stopped := make(chan error, 1)
		// Both are ready when the boot looks; whichever it takes, the end is stopped.
		go func() {
			select {
			case w.outcome <- nil:
			case <-time.After(time.Second):
			}
		}()
		go func() { stopped <- w.Stop(ctx, "test") }()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Second)
		want(t, w, api.Stopped)
		select {
		case vm := <-w.vms:
			if vm.stops.Load() == 0 {
				t.Error("the machine that came up was not stopped")
			}
		default:
		}
	})
	try(t, "a machine that ends unasked is started again, with a notice", func(t *testing.T, w *world) {
		go func() { w.outcome <- nil }()
		w.Start(ctx, "test")
		(<-w.vms).end(&api.Failure{Cause: "panicked", Summary: "It panicked."})
		want(t, w, api.Starting)
		served := make(chan VM, 1)
		go func() {
			vm, err := w.Await(ctx, "")
			if err != nil {
				t.Error(err)
			}
			served <- vm
		}()
		w.outcome <- nil
		if vm := <-served; vm != VM(<-w.vms) {
			t.Error("Await gave another machine than the one that runs")
		}
		s, _ := w.State()
		if len(s.Notices) != 1 || !strings.Contains(s.Notices[0].Text, "It panicked.") {
			t.Errorf("notices %v; want the panic", s.Notices)
		}
	})
	try(t, "a machine that ends again and again is given up, and hours later it is not held against it", func(t *testing.T, w *world) {
		go func() { w.outcome <- nil }()
		w.Start(ctx, "test")
		lose := func() { (<-w.vms).end(&api.Failure{Cause: "crashed", Summary: "It crashed."}) }
		for range restartLimit {
			lose()
			w.outcome <- nil
			time.Sleep(restartWindow + time.Second)
		}
		want(t, w, api.Running)
		for range restartLimit {
			lose()
			w.outcome <- nil
		}
		lose()
		want(t, w, api.Failed)
		if _, err := w.Await(ctx, ""); err == nil || !strings.Contains(err.Error(), "It crashed.") {
			t.Errorf("Await = %v; want the failure", err)
		}
	})
	try(t, "a caller who gives up ends his wait and not the start", func(t *testing.T, w *world) {
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := w.Start(soon, "test"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Start = %v; want the deadline", err)
		}
		want(t, w, api.Starting)
		w.outcome <- nil
		want(t, w, api.Running)
	})
	try(t, "a start during a stop waits for it and boots anew", func(t *testing.T, w *world) {
		go func() { w.outcome <- nil }()
		w.Start(ctx, "test")
		go w.Stop(ctx, "test")
		want(t, w, api.Stopping)
		go func() { w.outcome <- nil }()
		if err := w.Start(ctx, "test"); err != nil {
			t.Error(err)
		}
		want(t, w, api.Running)
	})
	try(t, "a stopped engine says how to start it", func(t *testing.T, w *world) {
		if _, err := w.Await(ctx, ""); err == nil || !strings.Contains(err.Error(), "cove start") {
			t.Errorf("Await = %v; want how to start", err)
		}
	})
}

// up starts the engine and gives its machine.
func (w *world) up(t *testing.T) *fakeVM {
	t.Helper()
	go func() { w.outcome <- nil }()
	if err := w.Start(context.Background(), "test"); err != nil {
		t.Fatal(err)
	}
	return <-w.vms
}

func TestSleep(t *testing.T) {
	ctx := context.Background()
	try(t, "a suspended engine is brought back by a start", func(t *testing.T, w *world) {
		w.up(t)
		if err := w.Suspend(ctx, "test", nil); err != nil {
			t.Fatal(err)
		}
		want(t, w, api.Suspended)
		if err := w.Suspend(ctx, "again", nil); err != nil {
			t.Errorf("Suspend of a suspended engine = %v; want nil", err)
		}
		w.up(t)
		want(t, w, api.Running)
		if n := w.resumes.Load(); n != 1 {
			t.Errorf("%d resumes; want 1", n)
		}
	})
	try(t, "who may wake it waits for the save and gets the next machine, who may not is told at once", func(t *testing.T, w *world) {
		first := w.up(t)
		go w.Suspend(ctx, "test", nil)
		want(t, w, api.Suspending)
		if _, err := w.Await(ctx, ""); !errors.Is(err, ErrSuspended) {
			t.Errorf("Await of a passive caller = %v; want ErrSuspended", err)
		}
		go func() { w.outcome <- nil }()
		vm, err := w.Await(ctx, "a call")
		if err != nil || vm == VM(first) || w.resumes.Load() != 1 {
			t.Errorf("Await of an active caller = %v, %v after %d resumes; want the next machine", vm, err, w.resumes.Load())
		}
		want(t, w, api.Running)
	})
	try(t, "an engine that cannot be saved goes on, and both the caller and the notices say why", func(t *testing.T, w *world) {
		vm := w.up(t)
		vm.unsaved = errors.New("no room")
		up, _ := w.State()
		if err := w.Suspend(ctx, "test", nil); err == nil || !strings.Contains(err.Error(), "no room") {
			t.Errorf("Suspend = %v; want why", err)
		}
		want(t, w, api.Running)
		s, _ := w.State()
		if len(s.Notices) != 1 || !strings.Contains(s.Notices[0].Text, "no room") {
			t.Errorf("notices %v; want why", s.Notices)
		}
		if s.Since != up.Since || s.Reason != up.Reason {
			t.Errorf("it runs since %v, %q; want %v, %q as before", s.Since, s.Reason, up.Since, up.Reason)
		}
		vm.unsaved = nil
		if err := w.Suspend(ctx, "test", nil); err != nil {
			t.Errorf("the next Suspend = %v; want nil", err)
		}
	})
	try(t, "an engine that is wanted in the last moment goes on without a word", func(t *testing.T, w *world) {
		w.up(t)
		if err := w.Suspend(ctx, "idle", func() bool { return true }); !errors.Is(err, ErrWanted) {
			t.Errorf("Suspend = %v; want ErrWanted", err)
		}
		want(t, w, api.Running)
		if s, _ := w.State(); len(s.Notices) != 0 {
			t.Errorf("notices %v; want none", s.Notices)
		}
	})
	try(t, "a machine that ends while it is saved is started again, cold", func(t *testing.T, w *world) {
		vm := w.up(t)
		vm.unsaved, vm.dies = errors.New("it is gone"), true
		if err := w.Suspend(ctx, "test", nil); err == nil {
			t.Error("Suspend = nil; want an error")
		}
		want(t, w, api.Starting)
		w.outcome <- nil
		want(t, w, api.Running)
		if n := w.resumes.Load(); n != 0 {
			t.Errorf("%d resumes; want none", n)
		}
	})
	try(t, "a state that cannot be used is a cold start that says so", func(t *testing.T, w *world) {
		w.up(t)
		w.Suspend(ctx, "test", nil)
		w.cold.Store(true)
		go w.Start(ctx, "test")
		want(t, w, api.Starting)
		w.outcome <- nil
		want(t, w, api.Running)
		if s, _ := w.State(); len(s.Notices) != 1 || s.Notices[0].Text != "It cannot be used." {
			t.Errorf("notices %v; want why", s.Notices)
		}
	})
	try(t, "what is noticed again is said once, last", func(t *testing.T, w *world) {
		for _, text := range []string{"a", "b", "a"} {
			w.Notice(text)
		}
		if s, _ := w.State(); len(s.Notices) != 2 || s.Notices[0].Text != "b" || s.Notices[1].Text != "a" {
			t.Errorf("notices %v; want b, a", s.Notices)
		}
	})
	try(t, "a stop of a suspended engine brings it back to stop it in order", func(t *testing.T, w *world) {
		w.up(t)
		w.Suspend(ctx, "test", nil)
		go func() { w.outcome <- nil }()
		if err := w.Stop(ctx, "test"); err != nil {
			t.Fatal(err)
		}
		want(t, w, api.Stopped)
		if vm := <-w.vms; vm.stops.Load() != 1 {
			t.Errorf("the machine was stopped %d times; want once", vm.stops.Load())
		}
	})
	try(t, "a daemon that leaves keeps what is suspended, and waits for a save", func(t *testing.T, w *world) {
		w.up(t)
		go w.Suspend(ctx, "test", nil)
		want(t, w, api.Suspending)
		if err := w.Leave(ctx, "test"); err != nil {
			t.Fatal(err)
		}
		want(t, w, api.Suspended)
	})
	try(t, "a stop during a resume wins", func(t *testing.T, w *world) {
		w.up(t)
		w.Suspend(ctx, "test", nil)
		started := make(chan error, 1)
		go func() { started <- w.Start(ctx, "test") }()
		want(t, w, api.Resuming)
		if err := w.Stop(ctx, "test"); err != nil {
			t.Fatal(err)
		}
		if err := <-started; err == nil {
			t.Error("Start = nil; want that it was stopped")
		}
		want(t, w, api.Stopped)
	})
}
