package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/internal/settings"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/disk"
	"github.com/covedesk/cove/vmhost/guestimage"
)

// Bounds of a start. They are for a machine without hardware virtualisation under heavy load: a boot
// takes 12 s there when it is quiet.
const (
	wordPatience  = 3 * time.Minute // from the VM's start to the guest's first word
	readyPatience = 7 * time.Minute // from its first word to the engine's first answer
)

// leastRoom is the room on the host's disk below which the VM is not started: it could not even log.
const leastRoom = 256 << 20

// start is one start, as people see it.
type start struct {
	mu        sync.Mutex // guards all below
	begun     time.Time
	steps     []api.Step
	kernelAt  time.Time // when the guest's kernel started, by our clock; the earliest guess is the best
	machine   *api.Machine
	transport *api.Transport
	engine    *api.Engine
	services  []api.Service
	disk      string
}

func (s *start) fill(to *api.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to.Timeline = slices.Clone(s.steps)
	switch to.Phase {
	case api.Stopped, api.Failed, api.Suspended:
	default:
		to.Machine, to.Transport, to.Engine, to.Services = s.machine, s.transport, s.engine, slices.Clone(s.services)
	}
	if s.disk != "" {
		to.Disk = &api.Disk{Path: s.disk}
	}
}

// again begins the account anew, of a machine that goes on.
func (s *start) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun, s.steps, s.kernelAt = time.Now(), nil, time.Time{}
}

// timed runs a step of the host's and keeps how long it took.
func (s *start) timed(name string, f func() error) error {
	begun := time.Now()
	err := f()
	s.mu.Lock()
	defer s.mu.Unlock()
	step := api.Step{Where: "host", Name: name, Start: begun.Sub(s.begun).Seconds(), Seconds: time.Since(begun).Seconds()}
	if err != nil {
		step.Error = err.Error()
	}
	s.steps = append(s.steps, step)
	return err
}

// guestStep keeps a step that the guest told. Its times are since its kernel started.
func (s *start) guestStep(m protocol.Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := time.Now().Add(-m.Start - m.Duration)
	if s.kernelAt.IsZero() || at.Before(s.kernelAt) {
		shift := 0.0
		if !s.kernelAt.IsZero() {
			shift = s.kernelAt.Sub(at).Seconds()
		}
		s.kernelAt = at
		for i := range s.steps {
			if s.steps[i].Where == "guest" {
				s.steps[i].Start -= shift
			}
		}
	}
	s.steps = append(s.steps, api.Step{Where: "guest", Name: m.Name, Error: m.Error,
		Start: s.kernelAt.Sub(s.begun).Seconds() + m.Start.Seconds(), Seconds: m.Duration.Seconds()})
}

func (s *start) service(m protocol.Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := api.Service{Name: m.Name, State: m.State, Restarts: m.Restarts, Detail: m.Detail}
	if i := slices.IndexFunc(s.services, func(o api.Service) bool { return o.Name == m.Name }); i >= 0 {
		s.services[i] = v
		return
	}
	s.services = append(s.services, v)
}

// set changes what the start says of itself.
func (s *start) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// launch is a whole start, or the way back of a machine that was saved.
func (d *Daemon) launch(ctx context.Context, stage func(string), was *rest) (_ *vm, err error) {
	st := &start{begun: time.Now()}
	d.mu.Lock()
	d.start = st
	d.mu.Unlock()
	defer func() {
		if err != nil {
			d.log.Error("start", "err", err)
			err = failure(err)
		}
	}()

	var spec vmhost.Spec
	var config protocol.Config
	stage("checking the host")
	if err := st.timed("check the host", func() error { return d.driver.Check(ctx) }); err != nil {
		return nil, err
	}
	if err := st.timed("settings", func() error { spec, config, err = d.spec(); return err }); err != nil {
		return nil, err
	}
	stage("verifying the guest image")
	var image *guestimage.Image
	if err := st.timed("guest image", func() error { image, err = d.findImage(ctx); return err }); err != nil {
		return nil, err
	}
	spec.Kernel, spec.Initrd, spec.Root = image.Kernel(), image.Initrd(), image.Root()
	if was != nil {
		if was.Image != image.Info.Digest {
			return nil, errors.New("it was suspended with another guest image")
		}
		spec.CPUs, spec.Memory, spec.Accelerator, spec.Saved = was.CPUs, was.Memory, was.Accelerator, d.saved()
	} else {
		stage("preparing the data disk")
		if err := st.timed("data disk", func() error { return d.prepareDisk(ctx, spec.Data) }); err != nil {
			return nil, err
		}
	}
	st.set(func() { st.disk = spec.Data })

	var folders *sharing
	if err := st.timed("shared folders", func() error { folders, err = d.share(&spec, &config, was); return err }); err != nil {
		return nil, err
	}
	begun := false
	defer func() {
		if !begun {
			folders.Close()
		}
	}()

	console := d.console
	fmt.Fprintf(console, "--- start at %s\n", st.begun.UTC().Format(time.RFC3339))
	spec.Console = console
	clock := newClockwork()
	waits := new(atomic.Bool)
	spec.Event = func(e vmhost.Event) { d.happened(e, spec.Data, clock, waits) }
	network, err := d.network()
	if err != nil {
		console.Close()
		return nil, err
	}
	spec.Network, config.Network = network, announce(network)
	if was != nil {
		stage("loading the suspended VM")
	} else {
		stage("choosing an accelerator")
	}
	var m vmhost.Machine
	err = st.timed("start the VM", func() error { m, err = d.driver.Start(ctx, spec); return err })
	if err != nil {
		console.Close()
		network.Close()
		return nil, err
	}
	go func() { <-m.Done(); network.Close() }()
	a := m.Accelerator()
	st.set(func() {
		st.machine = &api.Machine{Driver: d.driver.Name(), Accelerator: a.Name, AcceleratorReason: a.Reason, CPUs: spec.CPUs, Memory: spec.Memory, Image: image.Info.Digest}
	})
	v := &vm{d: d, start: st, machine: m, spec: spec, out: protocol.NewWriter(m.Control()),
		listening: make(chan protocol.Listening, 1), ready: make(chan struct{}), failed: make(chan api.Failure, 1), word: make(chan struct{}), heard: make(chan struct{}), told: stage, done: make(chan struct{}), over: make(chan struct{}), listed: make(chan struct{}), clock: clock, waits: waits, opened: make(chan struct{}, maxOpened), resized: make(chan struct{}, 1)}
	v.network, v.folders, begun = network, folders, true
	go v.hear()
	go v.watch(console)
	go v.keepTime()
	go v.watchSpace()
	if was != nil {
		err = v.awaken(ctx, was, config)
	} else {
		stage("booting")
		go v.hello(config)
		err = v.await(ctx)
	}
	if err != nil {
		v.Stop(context.Background())
		return nil, err
	}
	go v.settlePorts()
	go v.keepSize()
	if was != nil {
		go v.catchUpDisk()
	}
	return v, nil
}

// spec is the machine that the settings ask for.
func (d *Daemon) spec() (vmhost.Spec, protocol.Config, error) {
	d.settingsLock.Lock()
	defer d.settingsLock.Unlock()
	s, err := d.store()
	if err != nil {
		return vmhost.Spec{}, protocol.Config{}, err
	}
	v := s.Values()
	return vmhost.Spec{
		Name: profile, CPUs: v.CPUs, Memory: v.Memory, Accelerator: v.Accelerator,
		Cmdline: []string{"quiet"},
		Data:    d.dataDisk(v),
		RunDir:  d.home.Dir("run"),
	}, d.config(v), nil
}

// config is what the settings ask of the guest.
func (d *Daemon) config(v settings.Values) protocol.Config {
	c := protocol.Config{Hostname: "cove", PublishAddress: "127.0.0.1", Proxy: d.proxy(v.Proxy)}
	c.Engine, c.Trust = d.registries(v)
	if v.PublishAll {
		c.PublishAddress = ""
	}
	return c
}

// prepareDisk makes or grows the data disk to the size that the settings ask for.
func (d *Daemon) prepareDisk(ctx context.Context, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	free, err := disk.Free(filepath.Dir(path))
	if err == nil && free < leastRoom {
		return &vmhost.Problem{ID: vmhost.ProblemNoDisk,
			Summary: fmt.Sprintf("The disk that holds %s is full: %d MiB are left.", filepath.Dir(path), free>>20),
			Remedy:  "Free about 2 GiB, then start again; or set data-folder to a folder on another disk."}
	}
	d.settingsLock.Lock()
	s, err := d.store()
	d.settingsLock.Unlock()
	if err != nil {
		return err
	}
	c, err := disk.Ensure(ctx, path, s.Values().Disk)
	if err == nil {
		d.log.Info("data disk", "path", path, "change", c)
	}
	return err
}

// ImportDisk makes the data disk of an image file: see localapi.Core. A disk that is there is never
// replaced, and one in use least of all.
func (d *Daemon) ImportDisk(ctx context.Context, path string) (api.Disk, error) {
	state, _ := d.life.State()
	if state.Phase != api.Stopped && state.Phase != api.Failed {
		return api.Disk{}, &api.Error{Failure: api.Failure{Cause: api.CauseInvalid, Summary: fmt.Sprintf("The engine is %s, and its data disk in use.", state.Phase), Remedy: "Stop it with `cove stop`, then import."}}
	}
	d.settingsLock.Lock()
	s, err := d.store()
	d.settingsLock.Unlock()
	if err != nil {
		return api.Disk{}, err
	}
	to := d.dataDisk(s.Values())
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return api.Disk{}, fmt.Errorf("make the data folder: %w", err)
	}
	err = disk.Import(ctx, path, to, s.Values().Disk)
	if errors.Is(err, fs.ErrExist) {
		err = &api.Error{Failure: api.Failure{Cause: api.CauseInvalid, Summary: "There is a data disk already: " + to + ".", Remedy: "Move it away first; nothing replaces it."}}
	}
	if err != nil {
		return api.Disk{}, failure(err)
	}
	u, err := disk.UsageOf(to)
	return api.Disk{Path: to, Size: u.Size, Allocated: u.Allocated}, err
}

// dataDisk is where the settings put the data disk.
func (d *Daemon) dataDisk(v settings.Values) string {
	folder := v.DataFolder
	if folder == "" {
		folder = d.home.Dir("vm", profile)
	}
	return filepath.Join(folder, "data.raw")
}

// failure gives an error the form that people see.
func failure(err error) error {
	var p *vmhost.Problem
	var e *api.Error
	var digest *guestimage.DigestError
	switch {
	case errors.As(err, &e):
		return err
	case errors.As(err, &p):
		return &api.Error{Failure: api.Failure{Cause: p.ID, Summary: p.Summary, Remedy: p.Remedy, Evidence: p.Evidence}}
	case errors.As(err, &digest):
		return &api.Error{Failure: api.Failure{Cause: vmhost.ProblemImage, Summary: "The guest image cannot be trusted: " + digest.Error() + ".", Remedy: "Install Cove again, or build the image again with `make image`."}}
	case errors.Is(err, guestimage.ErrMissing):
		return &api.Error{Failure: api.Failure{Cause: vmhost.ProblemImage, Summary: "There is no guest image: " + err.Error() + ".", Remedy: "Install Cove again, or build the image with `make image`; COVE_IMAGE names its folder."}}
	}
	return err
}
