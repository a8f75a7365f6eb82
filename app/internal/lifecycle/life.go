package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/covedesk/cove/app/api"
)

// VM is one life of the machine, from its engine's first answer to its end.
type VM interface {
	// Stop ends it in order and returns when it is gone.
	Stop(ctx context.Context) error
	// Suspend saves it and ends it: nothing of it is lost. With an error it goes on, or ends for a reason
	// of its own. When nobody can begin to use it any more, wanted says whether somebody has just begun, and
	// the error then is ErrWanted; nil: it is to be saved whoever uses it.
	Suspend(ctx context.Context, wanted func() bool) error
	// Done is closed when it is gone.
	Done() <-chan struct{}
	// Failure says why it ended, if nobody asked for it. It is valid after Done.
	Failure() *api.Failure
}

// Boot brings a VM up and returns when its engine serves. When the context ends it takes down what it
// has begun before it returns. Its error is an *api.Error where people can do something about it.
type Boot func(ctx context.Context, p Progress) (VM, error)

// Progress is what a Boot is to do, and whom it tells how far it is.
type Progress struct {
	Resume bool              // what was saved is to be brought back
	Stage  func(what string) // what is being done
	Cold   func(why string)  // what was saved cannot be used, so it boots; why is a sentence for people
}

// A machine that ends unasked is started again, but not for ever: restartLimit times in restartWindow.
const (
	restartLimit  = 3
	restartWindow = 10 * time.Minute
)

// maxNotices is how many notices are kept.
const maxNotices = 20

// State is what a Life says of itself.
type State struct {
	Phase   api.Phase
	Since   time.Time
	Reason  string
	Stage   string
	Failure *api.Failure
	Notices []api.Notice
}

// Life keeps one machine's life in order.
type Life struct {
	boot Boot
	now  func() time.Time

	mu      sync.Mutex // guards all below
	state   State
	saved   bool // there is something to be brought back, until it runs or is given up
	run     *run
	lost    []time.Time
	changed chan struct{}
	wg      sync.WaitGroup
}

// run is one way from starting to stopped or failed.
type run struct {
	cancel  context.CancelFunc
	decided chan struct{} // closed when it is up, failed or stopped
	over    chan struct{} // closed when it is stopped or failed
	err     error         // valid after decided: why it is not up
	vm      VM            // valid after decided without an error
	stopped bool          // by Stop

	saving  chan struct{} // while it is being saved: closed at the outcome
	saved   bool
	unsaved error // why it could not be saved the last time
}

// New returns a Life in the phase stopped, or suspended where something was saved.
func New(boot Boot, now func() time.Time, saved bool) *Life {
	l := &Life{boot: boot, now: now, changed: make(chan struct{}), saved: saved,
		state: State{Phase: api.Stopped, Since: now(), Reason: "not started yet"}}
	if saved {
		l.state.Phase, l.state.Reason = api.Suspended, "suspended by an earlier coved"
	}
	return l
}

// State is how it is, and a channel that is closed at the next change.
func (l *Life) State() (State, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.state
	s.Notices = append([]api.Notice(nil), s.Notices...)
	return s, l.changed
}

// Notice keeps something that people should know.
func (l *Life) Notice(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noticeLocked(text)
	l.tellLocked()
}

// Touch tells those who watch that something else than the phase has changed.
func (l *Life) Touch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tellLocked()
}

// noticeLocked keeps a notice. One that comes again, as with each wake, is there once, with its last time.
func (l *Life) noticeLocked(text string) {
	l.state.Notices = slices.DeleteFunc(slices.Clone(l.state.Notices), func(n api.Notice) bool { return n.Text == text })
	l.state.Notices = append(l.state.Notices, api.Notice{Time: l.now(), Text: text})
	if extra := len(l.state.Notices) - maxNotices; extra > 0 {
		l.state.Notices = l.state.Notices[extra:]
	}
}

func (l *Life) tellLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// moveLocked feeds the phase machine.
func (l *Life) moveLocked(e Event, reason string) {
	next, err := Next(l.state.Phase, e)
	if err != nil {
		panic("lifecycle: " + err.Error()) // a bug of this file
	}
	l.state.Phase, l.state.Since, l.state.Reason, l.state.Stage = next, l.now(), reason, ""
	if next != api.Failed {
		l.state.Failure = nil
	}
	l.tellLocked()
}

// Start brings the engine up, and waits for it. Who asks while it is starting already waits for the
// same start. The context ends the wait only.
func (l *Life) Start(ctx context.Context, why string) error {
	for {
		l.mu.Lock()
		switch l.state.Phase {
		case api.Stopped, api.Failed, api.Suspended:
			l.beginLocked(why)
		}
		r, phase, changed := l.run, l.state.Phase, l.changed
		l.mu.Unlock()
		wait, decides := r.decided, true
		switch phase {
		case api.Stopping:
			wait, decides = r.over, false
		case api.Suspending:
			wait, decides = changed, false
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wait:
		}
		if decides {
			return r.err
		}
	}
}

func (l *Life) beginLocked(why string) {
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{cancel: cancel, decided: make(chan struct{}), over: make(chan struct{})}
	l.run = r
	l.moveLocked(Start, why)
	resume := l.saved
	l.wg.Go(func() { l.live(ctx, r, resume) })
}

// live is a run, with the restarts in it.
func (l *Life) live(ctx context.Context, r *run, resume bool) {
	defer close(r.over)
	defer r.cancel()
	for {
		vm, err := l.boot(ctx, l.progress(r, resume))
		if !l.begun(r, vm, err) {
			return
		}
		<-vm.Done()
		l.saveDecided(r)
		again, next := l.ended(r, vm.Failure())
		if !again {
			return
		}
		r, resume = next, false
	}
}

// progress is what the boot of a run is told, and tells.
func (l *Life) progress(r *run, resume bool) Progress {
	return Progress{
		Resume: resume,
		Stage: func(s string) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.run == r && (l.state.Phase == api.Starting || l.state.Phase == api.Resuming) {
				l.state.Stage = s
				l.tellLocked()
			}
		},
		Cold: func(why string) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.noticeLocked(why)
			l.saved = false
			if l.run == r && l.state.Phase == api.Resuming {
				l.moveLocked(Cold, why)
			}
		},
	}
}

// saveDecided waits until it is known whether a machine that has ended was saved.
func (l *Life) saveDecided(r *run) {
	l.mu.Lock()
	saving := r.saving
	l.mu.Unlock()
	if saving != nil {
		<-saving
	}
}

// begun takes what came of a boot, and says whether there is a machine to wait for.
func (l *Life) begun(r *run, vm VM, err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer close(r.decided)
	switch {
	case err == nil:
		r.vm, l.saved = vm, false
		if r.stopped { // up in the moment it was to stop
			r.vm, r.err = nil, errStopped()
			l.wg.Go(func() { vm.Stop(context.Background()) })
			return true
		}
		l.moveLocked(Up, l.state.Reason)
		return true
	case r.stopped:
		r.err, l.saved = errStopped(), false
		l.moveLocked(Down, "stopped while it started")
	default:
		failure := asFailure(err)
		r.err = &api.Error{Failure: failure}
		l.moveLocked(Fail, failure.Summary)
		l.state.Failure = &failure
	}
	return false
}

// ended takes the end of a machine that was up, and says whether it is started again.
func (l *Life) ended(r *run, failure *api.Failure) (bool, *run) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.saved {
		l.saved = true
		l.moveLocked(Saved, l.state.Reason)
		return false, nil
	}
	if r.stopped {
		l.moveLocked(Down, l.state.Reason)
		return false, nil
	}
	if failure == nil {
		failure = &api.Failure{Cause: api.CauseInternal, Summary: "The VM switched itself off."}
	}
	now := l.now()
	recent := l.lost[:0]
	for _, t := range l.lost {
		if now.Sub(t) < restartWindow {
			recent = append(recent, t)
		}
	}
	l.lost = append(recent, now)
	if len(l.lost) > restartLimit {
		f := *failure
		f.Summary = fmt.Sprintf("The VM ended %d times in %.0f minutes. The last time: %s", len(l.lost), restartWindow.Minutes(), f.Summary)
		l.moveLocked(Fail, f.Summary)
		l.state.Failure = &f
		l.lost = nil
		return false, nil
	}
	l.noticeLocked(failure.Summary + " It was started again.")
	// The same goroutine and context go on; who asks now waits for the new outcome.
	next := &run{cancel: r.cancel, decided: make(chan struct{}), over: r.over}
	l.run = next
	l.moveLocked(Lost, failure.Summary)
	return true, next
}

// ErrWanted says that an engine was not suspended because it is used.
var ErrWanted = errors.New("it is wanted")

// Suspend saves the engine with its containers and ends its machine, unless it is wanted: see VM. The context
// ends the wait only. When it cannot be saved it goes on.
func (l *Life) Suspend(ctx context.Context, why string, wanted func() bool) error {
	for {
		l.mu.Lock()
		r, phase, changed := l.run, l.state.Phase, l.changed
		var result error
		switch phase {
		case api.Suspended:
			l.mu.Unlock()
			return nil
		case api.Running:
			l.saveLocked(r, why, wanted)
		case api.Starting, api.Resuming, api.Suspending:
		default:
			l.mu.Unlock()
			return &api.Error{Failure: api.Failure{Cause: api.CauseNotRunning, Summary: fmt.Sprintf("The engine is %s, and only a running one can be suspended.", phase), Remedy: "Start it with `cove start`."}}
		}
		saving := r.saving
		l.mu.Unlock()
		if saving == nil { // it still starts
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-saving:
		}
		l.mu.Lock()
		saved := r.saved
		result = r.unsaved
		l.mu.Unlock()
		if !saved {
			return result
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.over:
			return nil
		}
	}
}

// saveLocked begins to save a machine that runs.
func (l *Life) saveLocked(r *run, why string, wanted func() bool) {
	before := l.state
	saving := make(chan struct{})
	r.saving = saving
	l.moveLocked(Suspend, why)
	l.wg.Go(func() {
		err := r.vm.Suspend(context.Background(), wanted)
		l.mu.Lock()
		defer l.mu.Unlock()
		defer close(saving)
		if err == nil {
			r.saved = true
			return
		}
		r.saving = nil
		r.unsaved = err
		if !errors.Is(err, ErrWanted) {
			l.noticeLocked("The engine could not be suspended, and goes on: " + asFailure(err).Summary)
		}
		l.moveLocked(Unsaved, before.Reason)
		l.state.Since = before.Since // it ran all the time
	})
}

// Stop ends the engine in order and waits until it is gone, also when it just starts. One that was saved is
// brought back for it: its containers are to end in order too.
func (l *Life) Stop(ctx context.Context, why string) error { return l.stop(ctx, why, true) }

// Leave is Stop, but what was saved stays so.
func (l *Life) Leave(ctx context.Context, why string) error { return l.stop(ctx, why, false) }

func (l *Life) stop(ctx context.Context, why string, wake bool) error {
	for {
		l.mu.Lock()
		r, changed := l.run, l.changed
		var wait <-chan struct{}
		switch l.state.Phase {
		case api.Stopped:
			l.mu.Unlock()
			return nil
		case api.Failed:
			l.saved = l.saved && !wake
			l.moveLocked(Stop, why)
			l.mu.Unlock()
			return nil
		case api.Starting, api.Resuming:
			r.stopped = true
			l.moveLocked(Stop, why)
			r.cancel()
			wait = r.over
		case api.Running:
			r.stopped = true
			vm := r.vm
			l.moveLocked(Stop, why)
			l.wg.Go(func() { vm.Stop(context.Background()) })
			wait = r.over
		case api.Stopping:
			wait = r.over
		case api.Suspending:
			wait = changed
		case api.Suspended:
			l.mu.Unlock()
			if !wake {
				return nil
			}
			if err := l.Start(ctx, why); ctx.Err() != nil {
				return err
			}
			continue
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wait:
		}
		if wait == r.over {
			return nil
		}
	}
}

// Wait waits for everything that this Life began. Call Stop first.
func (l *Life) Wait() { l.wg.Wait() }

// ErrSuspended is Await's answer to somebody who is not to wake what was saved.
var ErrSuspended = errors.New("the engine is suspended")

// Await gives the VM that serves, and waits for it while it starts. One that was saved, or is being saved, is
// brought back for the reason in wake; an empty one means ErrSuspended at once. In any other phase the error
// says what to do.
func (l *Life) Await(ctx context.Context, wake string) (VM, error) {
	for {
		l.mu.Lock()
		r, s, changed := l.run, l.state, l.changed
		if s.Phase == api.Suspended && wake != "" {
			l.beginLocked(wake)
			l.mu.Unlock()
			continue
		}
		l.mu.Unlock()
		switch s.Phase {
		case api.Running:
			return r.vm, nil
		case api.Suspended:
			return nil, ErrSuspended
		case api.Suspending, api.Resuming:
			if wake == "" {
				return nil, ErrSuspended
			}
			fallthrough
		case api.Starting:
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-changed:
			}
			continue
		case api.Failed:
			return nil, &api.Error{Failure: *s.Failure}
		}
		return nil, &api.Error{Failure: api.Failure{Cause: api.CauseNotRunning, Summary: fmt.Sprintf("The engine is %s.", s.Phase), Remedy: "Start it with `cove start`."}}
	}
}

func errStopped() error {
	return &api.Error{Failure: api.Failure{Cause: api.CauseStopped, Summary: "The engine was stopped while it started.", Remedy: "Start it again with `cove start`."}}
}

func asFailure(err error) api.Failure {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Failure
	}
	return api.Failure{Cause: api.CauseInternal, Summary: "The engine could not start: " + err.Error() + ".", Remedy: "See `cove logs coved` and `cove logs console`."}
}
