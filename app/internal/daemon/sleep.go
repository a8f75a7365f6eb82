package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/internal/lifecycle"
	"github.com/covedesk/cove/app/internal/shares"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/dockerapi"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/disk"
	"github.com/covedesk/cove/vmhost/saved"
	"github.com/docker/go-units"
)

// restFile is what coved puts beside a saved machine: see rest.
const restFile = "coved.json"

// rest is what coved has to know to bring a saved machine back, and to stand in for it meanwhile.
type rest struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"` // why it was suspended
	Image  string    `json:"image"`  // digest of the guest image

	// What the machine was made of. The settings may have been changed since: that is for its next boot.
	CPUs        int             `json:"cpus"`
	Memory      int64           `json:"memory"`
	Accelerator string          `json:"accelerator"`
	Folders     []shares.Folder `json:"folders,omitempty"`

	Listening protocol.Listening `json:"listening"`
	Ports     []protocol.Bind    `json:"ports,omitempty"` // that are held on the host meanwhile
	Engine    *api.Engine        `json:"engine,omitempty"`
	Services  []api.Service      `json:"services,omitempty"`
}

// saved is the folder of a machine that was suspended.
func (d *Daemon) saved() string { return d.home.Dir("vm", profile, "saved") }

// readRest reads what was put beside a saved machine.
func readRest(dir string) (*rest, error) {
	b, err := os.ReadFile(filepath.Join(dir, restFile))
	if err != nil {
		return nil, err
	}
	var r rest
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", restFile, err)
	}
	return &r, nil
}

// fillSaved says what is suspended.
func (d *Daemon) fillSaved(s *api.Status) {
	if s.Phase != api.Suspended && s.Phase != api.Resuming {
		return
	}
	if v := d.standing(); v != nil {
		v.fillStill(s)
		return
	}
	r, err := readRest(d.saved())
	if err != nil {
		return // it is being used
	}
	s.Saved = &api.Saved{At: r.At}
	filepath.WalkDir(d.saved(), func(path string, e fs.DirEntry, err error) error {
		if u, err := disk.UsageOf(path); err == nil && !e.IsDir() {
			s.Saved.Bytes += u.Allocated
		}
		return nil
	})
	if s.Engine == nil {
		s.Engine = r.Engine
	}
}

// dropSaved gives up what was saved: it is older than the machine that is about to boot.
func (d *Daemon) dropSaved() error {
	for _, dir := range []string{d.saved(), d.saved() + ".new", d.saved() + ".used"} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove the suspended VM: %w", err)
		}
	}
	return nil
}

// Suspend saves the engine: see localapi.Core.
func (d *Daemon) Suspend(ctx context.Context) error {
	return d.life.Suspend(ctx, "asked for by cove suspend", nil)
}

// Engine is the way to the engine: see dockerapi.Waker.
func (d *Daemon) Engine(ctx context.Context, active bool) (proxy.Dialer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, enginePatience, errors.New("the engine did not start in time; see `cove status`"))
	defer cancel()
	wake := ""
	if active {
		wake = "a call to docker.sock"
	}
	v, err := d.life.Await(ctx, wake)
	switch {
	case errors.Is(err, lifecycle.ErrSuspended):
		return nil, dockerapi.ErrAsleep
	case ctx.Err() != nil && err != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	}
	return v.(*vm), nil
}

// Woken waits for the end of a sleep: see dockerapi.Waker.
func (d *Daemon) Woken(ctx context.Context) error {
	for {
		state, changed := d.life.State()
		switch state.Phase {
		case api.Suspending, api.Suspended, api.Resuming:
		default:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// boot brings the engine up: see lifecycle.Boot.
func (d *Daemon) boot(ctx context.Context, p lifecycle.Progress) (_ lifecycle.VM, err error) {
	defer func() {
		if err != nil {
			d.ports.Clear() // nobody comes for those who wait there
		}
	}()
	if p.Resume {
		v, err := d.resume(ctx, p.Stage)
		if err == nil {
			d.front.Resume()
			return v, nil
		}
		if ctx.Err() != nil || d.mayResumeLater(err) {
			return nil, failure(err)
		}
		d.log.Warn("resume", "err", err)
		p.Cold("The engine boots anew, and its containers were not kept running: " + sentence(err))
		d.ports.Disown()
	}
	d.front.Resume()
	if err := d.dropSaved(); err != nil {
		return nil, failure(err)
	}
	v, err := d.launch(ctx, p.Stage, nil)
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (d *Daemon) resume(ctx context.Context, stage func(string)) (*vm, error) {
	if v := d.standing(); v != nil {
		return v, v.wake(ctx, stage)
	}
	was, err := readRest(d.saved())
	if err != nil {
		return nil, err
	}
	return d.launch(ctx, stage, was)
}

// mayResumeLater says whether what was saved is as it was, and a cold boot would fail just so.
func (d *Daemon) mayResumeLater(err error) bool {
	var e *api.Error
	if _, gone := os.Stat(d.saved()); gone != nil || !errors.As(failure(err), &e) {
		return false
	}
	switch e.Cause {
	case vmhost.ProblemNoHypervisor, vmhost.ProblemOldHypervisor, vmhost.ProblemNoMemory, vmhost.ProblemNoDisk, vmhost.ProblemBusy, vmhost.ProblemPathTooLong:
		return true
	}
	return false
}

// sentence is an error as people read it.
func sentence(err error) string {
	var e *api.Error
	if errors.As(failure(err), &e) {
		return e.Summary
	}
	return err.Error() + "."
}

// roomToSave says whether the host's disk has room for the machine, before anybody's connection ends for it.
func (v *vm) roomToSave(ctx context.Context) error {
	at, is := v.memory(ctx)
	dir := filepath.Dir(v.d.saved())
	free, err := disk.Free(dir)
	if !is || err != nil {
		return nil // the save will say
	}
	return lacks(at.Resident+besideMemory, free, dir)
}

// besideMemory is the room that a saved machine takes beside its memory: devices, shares, answers.
const besideMemory = 64 << 20

func lacks(need, free int64, dir string) error {
	if free >= need {
		return nil
	}
	size := func(n int64) string { return units.BytesSize(float64(n)) }
	return &api.Error{Failure: api.Failure{Cause: vmhost.ProblemNoDisk,
		Summary: fmt.Sprintf("The VM takes about %s when it is saved, and the disk that holds %s has %s left.", size(need), dir, size(free)),
		Remedy:  fmt.Sprintf("Free about %s there, then suspend again; or stop it with `cove stop`.", size(need-free))}}
}

// hangUpPatience bounds how long the guest may take to hear that its connections ended.
const hangUpPatience = 5 * time.Second

// sleepPatience bounds how long the guest may take to write all that it holds to its disk.
const sleepPatience = 2 * time.Minute

// Suspend saves the machine: see lifecycle.VM.
func (v *vm) Suspend(ctx context.Context, wanted func() bool) error {
	way := v.wayToSleep()
	switch way {
	case awake:
		return &api.Error{Failure: api.Failure{Cause: api.CauseNotOffered, Summary: fmt.Sprintf("Machines on %s can neither be saved nor paused here, so the engine cannot be suspended.", v.d.driver.Name()), Remedy: "`cove stop` stops it in order."}}
	case toDisk:
		if err := v.roomToSave(ctx); err != nil {
			return err
		}
	}
	begun := time.Now()
	took := func(what string) { v.d.log.Debug("suspend", "done", what, "after", time.Since(begun)) }
	settled := make(chan func(), 1)
	go func() { settled <- v.settle(ctx) }() // it holds for what is asked from then on
	if err := v.d.front.Snapshot(ctx, v); err != nil {
		v.d.log.Warn("passive calls will wake the engine", "err", err)
	}
	took("snapshot")
	undo := <-settled
	took("settle")
	if wanted != nil && wanted() {
		undo()
		v.d.front.Resume()
		v.d.ports.Lead(v)
		return errUsed
	}
	v.d.front.Suspend()
	v.d.ports.Suspend()
	gives := way == toMemory && v.hasToGive(ctx)
	hangUp, cancel := context.WithTimeout(ctx, hangUpPatience)
	if err := v.network.Suspend(hangUp); err != nil {
		v.d.log.Warn("suspend", "err", err)
	}
	cancel()
	took("hang up")
	asleep := make(chan struct{})
	v.mu.Lock()
	client := v.client
	v.asleep, v.client = asleep, nil
	v.mu.Unlock()
	if client != nil {
		client.KeepWarm(0)
	}
	err := v.say(protocol.Message{Sleep: &protocol.Sleep{Forget: way == toMemory}})
	if err == nil {
		select {
		case <-asleep:
		case <-v.machine.Done():
			err = errors.New("the VM ended")
		case <-time.After(sleepPatience):
			err = fmt.Errorf("the guest did not write what it holds to its disk in %v", sleepPatience)
		}
	}
	took("guest")
	if err == nil && way == toMemory {
		if gives {
			v.giveMemory(ctx)
		}
		err = v.standStill(ctx, undo)
	} else if err == nil {
		if err = v.machine.(vmhost.Suspender).Suspend(ctx, v.d.saved(), v.leave); err == nil {
			<-v.done
		}
	}
	if err == nil {
		v.d.log.Info("suspended", "took", time.Since(begun), "to", way)
		return nil
	}
	v.d.log.Warn("suspend", "err", err)
	undo()
	if ended := v.goOn(context.Background()); ended != nil {
		v.d.log.Error("the guest does not go on", "err", ended)
		v.machine.Kill()
		<-v.done
	}
	v.d.front.Resume()
	return &api.Error{Failure: api.Failure{Cause: api.CauseUnsaved, Summary: "The engine could not be suspended: " + err.Error() + ".", Remedy: "See `cove logs coved`; `cove stop` stops it in order."}}
}

// settlePatience bounds how long the guest may keep what it knows of shared folders: without it, it may wake
// with what was true before, for a second.
const settlePatience = 5 * time.Second

// settle has the guest forget what it knows of shared folders. The answer takes that back, for a guest that is
// not saved after all.
func (v *vm) settle(ctx context.Context) (undo func()) {
	if v.folders.fs == nil {
		return func() {}
	}
	ctx, cancel := context.WithTimeout(ctx, settlePatience)
	defer cancel()
	undo, err := v.folders.fs.Settle(ctx)
	if err != nil {
		v.d.log.Warn("suspend", "err", err)
	}
	return undo
}

// leave writes what coved needs into a saved machine's folder.
func (v *vm) leave(dir string) error {
	state, _ := v.d.life.State()
	table := v.d.ports.Table()
	v.mu.Lock()
	r := rest{At: time.Now(), Reason: state.Reason, CPUs: v.spec.CPUs, Memory: v.spec.Memory, Accelerator: v.machine.Accelerator().Name,
		Folders: v.folders.set.Folders, Listening: v.reached, Ports: table}
	v.mu.Unlock()
	v.start.set(func() {
		r.Image, r.Engine, r.Services = v.start.machine.Image, v.start.engine, v.start.services
	})
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := saved.Write(filepath.Join(dir, answersFile), v.d.front.Save); err != nil {
		v.d.log.Warn("a coved that is started meanwhile has no answers", "err", err)
	}
	return saved.Write(filepath.Join(dir, restFile), func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// answersFile is what docker.sock's front answers while the engine sleeps: see dockerapi.Front.Save.
const answersFile = "answers.json"

// loadAnswers reads it, for an engine that sleeps from the first moment on.
func (d *Daemon) loadAnswers() {
	var from io.Reader = strings.NewReader("")
	f, err := os.Open(filepath.Join(d.saved(), answersFile))
	if err == nil {
		defer f.Close()
		from = f
	}
	if err := errors.Join(err, d.front.Load(from)); err != nil {
		d.log.Warn("passive calls will wake the engine", "err", err)
	}
}

// goOn opens a new session with a guest whose machine was not saved after all, or stood still.
func (v *vm) goOn(ctx context.Context) error {
	v.network.Resume()
	ctx, cancel := context.WithTimeout(ctx, wakePatience)
	defer cancel()
	if err := v.greet(ctx, protocol.Config{}); err != nil {
		return err
	}
	v.mu.Lock()
	l := v.reached
	v.mu.Unlock()
	return v.connect(ctx, l)
}

// wakePatience bounds how long a guest that was brought back may take to answer: it takes a tenth of a second on
// a quiet machine.
const wakePatience = 90 * time.Second

// awaken follows a machine that was brought back to its engine's first answer.
func (v *vm) awaken(ctx context.Context, was *rest, config protocol.Config) error {
	ctx, cancel := context.WithTimeout(ctx, wakePatience)
	defer cancel()
	v.start.set(func() { v.start.engine, v.start.services = was.Engine, was.Services })
	v.told("reaching the guest")
	err := v.start.timed("transport", func() error {
		if err := v.greet(ctx, config); err != nil {
			return err
		}
		return v.connect(ctx, was.Listening)
	})
	if err != nil {
		return v.because(api.Failure{Cause: vmhost.ProblemSaved, Summary: "The VM was brought back, and its guest does not answer: " + err.Error() + ".", Remedy: "See `cove logs coved`.", Evidence: v.d.tailOf("console", 20)})
	}
	close(v.ready)
	v.serves()
	return nil
}
