package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/disk"
	"github.com/covedesk/cove/vmhost/guestimage"
	"github.com/covedesk/cove/vmhost/netstack"
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
	begun time.Time

	mu        sync.Mutex // guards all below
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

// timed runs a step of the host's and keeps how long it took.
func (s *start) timed(name string, f func() error) error {
	begun := time.Now()
	err := f()
	step := api.Step{Where: "host", Name: name, Start: begun.Sub(s.begun).Seconds(), Seconds: time.Since(begun).Seconds()}
	if err != nil {
		step.Error = err.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
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

	console := logFile(d.home.Dir("vm", profile, "console.log"))
	fmt.Fprintf(console, "--- start at %s\n", st.begun.UTC().Format(time.RFC3339))
	spec.Console = console
	clock := newClockwork()
	spec.Event = func(e vmhost.Event) { d.happened(e, spec.Data, clock) }
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
		listening: make(chan protocol.Listening, 1), ready: make(chan struct{}), failed: make(chan api.Failure, 1), word: make(chan struct{}), heard: make(chan struct{}), told: stage, done: make(chan struct{}), listed: make(chan struct{}), clock: clock, opened: make(chan struct{}, maxOpened), resized: make(chan struct{}, 1)}
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
	c := protocol.Config{Hostname: "cove", Engine: v.Engine, PublishAddress: "127.0.0.1", Proxy: d.proxy(v.Proxy)}
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

// vm is a running machine with its guest: see lifecycle.VM.
type vm struct {
	d       *Daemon
	start   *start
	machine vmhost.Machine
	spec    vmhost.Spec
	out     *protocol.Writer // see say
	told    func(stage string)
	opened  chan struct{} // connections of the guest to services of the host
	refused atomic.Int64  // when one was refused last, in ns
	network *netstack.Network
	folders *sharing
	clock   clockwork
	resized chan struct{}   // the setting for memory changed
	held    []protocol.Bind // what a list in pieces has named so far

	word      chan struct{} // closed at the guest's first word
	heard     chan struct{} // closed after its last
	listening chan protocol.Listening
	ready     chan struct{}
	failed    chan api.Failure
	done      chan struct{}
	sessions  sync.Once // begins those that last

	talk sync.Mutex // one says something to the guest at a time

	asking sync.Mutex    // is held while the guest's ports change
	left   bool          // they are the guest's no more
	listed chan struct{} // closed when the guest has said which it wants

	mu      sync.Mutex          // guards all below
	secret  transport.Secret    // of the last hello
	nonce   string              // of the last hello
	greeted chan struct{}       // closed when the guest has answered it
	asleep  chan struct{}       // closed when the guest has said its last word before a save
	resting bool                // from that word's asking to the next hello nothing is said
	reached protocol.Listening  // what the guest listens on
	missing map[string]struct{} // see unlistened
	client  *transport.Client
	asked   bool // to stop, by us
	fatal   *api.Failure
	serving bool
}

// Dial reaches a service of the guest.
func (v *vm) Dial(ctx context.Context, service string) (proxy.Conn, error) {
	v.mu.Lock()
	c := v.client
	v.mu.Unlock()
	if c == nil {
		return nil, errors.New("no transport to the guest yet")
	}
	return c.Dial(ctx, service)
}

// hear takes the guest's words until the port closes.
func (v *vm) hear() {
	defer close(v.heard)
	defer v.machine.Control().Close()
	in := protocol.NewReader(v.machine.Control())
	var once sync.Once
	for {
		m, err := in.Read()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				v.d.log.Info("control port", "err", err)
			}
			return
		}
		once.Do(func() { close(v.word) })
		if m.Pong != nil {
			v.clock.answered(*m.Pong)
			continue
		}
		v.take(m)
		v.d.life.Touch()
	}
}

func (v *vm) take(m protocol.Message) {
	switch {
	case m.Asleep != nil:
		v.mu.Lock()
		if v.asleep != nil {
			close(v.asleep)
			v.asleep = nil
		}
		v.mu.Unlock()
	case m.Welcome != nil:
		v.mu.Lock()
		if m.Welcome.Nonce == v.nonce && v.greeted != nil {
			close(v.greeted)
			v.greeted = nil
		}
		v.mu.Unlock()
		v.start.set(func() { v.start.machine.Kernel = m.Welcome.Kernel })
		if m.Welcome.Version != protocol.Version {
			v.fail(api.Failure{Cause: protocol.CauseProtocol, Summary: fmt.Sprintf("The guest image speaks version %d of our protocol, and this Cove version %d.", m.Welcome.Version, protocol.Version), Remedy: "Install the image that belongs to this version of Cove."})
		}
	case m.Step != nil:
		v.start.guestStep(*m.Step)
		switch m.Step.Name {
		case "kernel":
			v.told("setting up the guest")
		case "containerd":
			v.told("starting the engine")
		case protocol.StepShares:
			if m.Step.Error != "" {
				v.d.life.Notice("Not every folder of the host is there in the VM: " + m.Step.Error + ".")
			}
		}
	case m.Listening != nil:
		select {
		case v.listening <- *m.Listening:
		default:
		}
	case m.Service != nil:
		v.d.log.Info("guest service", "name", m.Service.Name, "state", m.Service.State, "restarts", m.Service.Restarts, "detail", m.Service.Detail)
		v.start.service(*m.Service)
		if m.Service.State == "backoff" {
			v.d.life.Notice(fmt.Sprintf("%s ended (%s) and is started again.", m.Service.Name, m.Service.Detail))
		}
	case m.Ready != nil:
		v.start.set(func() { v.start.engine = &api.Engine{Version: m.Ready.EngineVersion, APIVersion: m.Ready.APIVersion} })
		select {
		case <-v.ready:
		default:
			close(v.ready)
		}
	case m.Failed != nil:
		v.fail(guestFailure(*m.Failed))
	case m.Stopping != nil:
		v.d.log.Info("guest stops", "why", m.Stopping.Reason)
	}
}

// guestFailure says what the guest's word means for people.
func guestFailure(m protocol.Failed) api.Failure {
	f := api.Failure{Cause: m.Cause, Summary: "The guest could not boot: " + m.Detail + ".", Remedy: "See `cove status` for the end of its log, and `cove logs console`.", Evidence: m.Evidence}
	switch m.Cause {
	case protocol.CauseDataDiskAlien:
		f.Summary = "The data disk is not one of Cove's: " + m.Detail + "."
		f.Remedy = "Move the file data.raw somewhere else (`cove status` shows its path); a new disk is then made. Or set data-folder to another folder."
	case protocol.CauseDataDisk:
		f.Summary = "The data disk cannot be used: " + m.Detail + "."
		f.Remedy = "Keep a copy of data.raw before anything else; `e2fsck -f` on the copy says more."
	case protocol.CauseEngineConfig:
		f.Summary = "The engine refuses its settings: " + m.Detail + "."
		f.Remedy = "Look at `cove config get engine`, and drop it with `cove config unset engine`."
	case protocol.CauseEngineFailed:
		f.Summary = "The engine does not stay up: " + m.Detail + "."
		f.Remedy = "Start it again with `cove start`. If you changed its settings, `cove config unset engine` drops them."
	}
	return f
}

// fail keeps the first failure; one that comes while the engine serves ends the VM.
func (v *vm) fail(f api.Failure) {
	v.mu.Lock()
	first, serving := v.fatal == nil, v.serving
	if first {
		v.fatal = &f
	}
	v.mu.Unlock()
	if !first {
		return
	}
	v.d.log.Error("guest", "cause", f.Cause, "summary", f.Summary)
	select {
	case v.failed <- f:
	default:
	}
	if serving {
		go v.end()
	}
}

// await follows the boot to the engine's first answer.
func (v *vm) await(ctx context.Context) error {
	timer := time.NewTimer(wordPatience)
	defer timer.Stop()
	word, listening := v.word, v.listening
	var ready <-chan struct{}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f := <-v.failed:
			return &api.Error{Failure: f}
		case <-v.machine.Done():
			return v.because(*ended(v.machine.Exit()))
		case <-timer.C:
			return &api.Error{Failure: v.silence()}
		case <-word:
			word = nil
			timer.Reset(readyPatience)
		case l := <-listening:
			listening = nil
			v.told("reaching the guest")
			if err := v.start.timed("transport", func() error { return v.connect(ctx, l) }); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return v.because(api.Failure{Cause: api.CauseTransport, Summary: "No way to the guest works: " + err.Error() + ".", Remedy: "See `cove logs coved`.", Evidence: v.d.tailOf("console", 20)})
			}
			ready = v.ready
		case <-ready:
			v.serves()
			return nil
		}
	}
}

// lastWords is how long a guest that fails may take to say why.
const lastWords = 2 * time.Second

// because is why a start failed: what the guest says of it, if it says something, and else what was seen.
func (v *vm) because(seen api.Failure) error {
	select {
	case f := <-v.failed:
		return &api.Error{Failure: f}
	case <-v.heard:
	case <-time.After(lastWords):
	}
	select {
	case f := <-v.failed:
		return &api.Error{Failure: f}
	default:
		return &api.Error{Failure: seen}
	}
}

func (v *vm) silence() api.Failure {
	f := api.Failure{Cause: api.CauseBootSilent, Evidence: v.d.tailOf("console", 30), Remedy: "Start again; if it happens again, see `cove logs console`, and try `cove config set accelerator tcg`."}
	select {
	case <-v.word:
		f.Summary = fmt.Sprintf("The guest booted, but its engine did not answer in %.0f minutes.", readyPatience.Minutes())
	default:
		f.Summary = fmt.Sprintf("The guest said nothing in %.0f minutes.", wordPatience.Minutes())
	}
	return f
}

// warmConns are connections to the guest that wait for their use, such as the next one to a published
// port: as many as a browser opens at once.
const warmConns = 6

// connect chooses the transport by a self-test.
func (v *vm) connect(ctx context.Context, l protocol.Listening) error {
	var links []proxy.Link
	for _, link := range v.machine.Links() {
		if link.String() == "mux" && l.Mux || link.String() != "mux" && l.Vsock {
			links = append(links, link)
		}
	}
	v.mu.Lock()
	secret := v.secret
	v.mu.Unlock()
	client, tried, err := transport.Choose(ctx, links, secret)
	t := &api.Transport{}
	for _, a := range tried {
		one := api.Attempt{Link: a.Link, Seconds: a.Took.Seconds()}
		if a.Err != nil {
			one.Error = a.Err.Error()
			v.d.log.Warn("transport", "link", a.Link, "err", a.Err)
		}
		t.Tried = append(t.Tried, one)
	}
	if err != nil {
		return err
	}
	client.KeepWarm(warmConns)
	t.Link = client.Link()
	v.mu.Lock()
	v.client, v.reached = client, l
	v.mu.Unlock()
	v.start.set(func() { v.start.transport = t })
	if err := v.changePorts(func() error { v.d.ports.Lead(v); return nil }); err != nil {
		return err
	}
	v.sessions.Do(func() { go v.keep("asks", v.asksSession) })
	return nil
}

// serves says that the engine has answered.
func (v *vm) serves() {
	v.mu.Lock()
	v.serving = true
	v.mu.Unlock()
	if v.folders.fs != nil {
		go v.keep("file events", v.fileEvents) // the guest has its folders now
	}
}

// say tells the guest something, unless its machine is being saved.
func (v *vm) say(m protocol.Message) error {
	v.talk.Lock()
	defer v.talk.Unlock()
	v.mu.Lock()
	resting := v.resting
	v.resting = (resting || m.Sleep != nil) && m.Hello == nil
	v.mu.Unlock()
	if resting && m.Hello == nil {
		return errResting
	}
	return v.out.Write(m)
}

var errResting = errors.New("the VM is being suspended")

// hello opens a session with the guest, with a secret that was never used, and gives what is closed when the
// guest has answered.
func (v *vm) hello(config protocol.Config) (<-chan struct{}, error) {
	h := &protocol.Hello{Version: protocol.Version, Nonce: nonce(), Config: config}
	greeted := make(chan struct{})
	v.mu.Lock()
	v.secret, v.nonce, v.greeted = transport.NewSecret(), h.Nonce, greeted
	h.Secret = v.secret.RevealSecretBytes()
	v.mu.Unlock()
	h.Time = time.Now()
	return greeted, v.say(protocol.Message{Hello: h})
}

// greet is hello, and waits for the answer.
func (v *vm) greet(ctx context.Context, config protocol.Config) error {
	greeted, err := v.hello(config)
	if err != nil {
		return err
	}
	select {
	case <-greeted:
		return nil
	case f := <-v.failed:
		return &api.Error{Failure: f}
	case <-v.machine.Done():
		return errors.New("the VM ended")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// watch lets go of what belongs to the machine when it ends.
func (v *vm) watch(console io.Closer) {
	<-v.machine.Done()
	select {
	case <-v.heard: // its last words may say why it ended
	case <-time.After(lastWords):
	}
	console.Close()
	v.mu.Lock()
	unwoken := v.spec.Saved != "" && !v.serving // its ports are for who comes in its place
	v.mu.Unlock()
	v.leavePorts(unwoken || v.machine.Exit().Reason == vmhost.ExitSuspended)
	v.folders.Close()
	close(v.done)
}

// Done is closed when the machine is gone.
func (v *vm) Done() <-chan struct{} { return v.done }

// Failure says why the machine ended, if we did not ask for it.
func (v *vm) Failure() *api.Failure {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.fatal != nil:
		return v.fatal
	case v.asked:
		return nil
	}
	return ended(v.machine.Exit())
}

// ended says for people how a machine ended.
func ended(e vmhost.Exit) *api.Failure {
	f := &api.Failure{Cause: string(e.Reason), Summary: "The VM ended: " + e.Detail + ".", Remedy: "Start it again with `cove start`.", Evidence: e.Evidence}
	if e.Reason == vmhost.ExitPanicked {
		f.Summary = "The VM ended because the guest's kernel panicked."
		f.Remedy = "Start it again with `cove start`; if it happens again, `cove logs console` shows where."
	}
	return f
}

// How long the parts of a stop may take. The guest has its own bounds below the first.
const (
	orderPatience = 60 * time.Second
	powerPatience = 15 * time.Second
)

// Stop ends the machine in order: the guest stops its containers and its engine and switches itself
// off. One that does not is ended.
func (v *vm) Stop(ctx context.Context) error {
	v.mu.Lock()
	v.asked = true
	v.mu.Unlock()
	v.end()
	select {
	case <-v.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *vm) end() {
	said := false
	select {
	case <-v.word:
		said = v.say(protocol.Message{Shutdown: &protocol.Shutdown{}}) == nil
	default: // nobody is there to be asked: nothing runs that could lose something
	}
	if said {
		select {
		case <-v.done:
			return
		case <-time.After(orderPatience):
		}
		v.d.log.Warn("the guest does not stop; its power button is pressed")
		v.machine.PowerOff(context.Background())
		select {
		case <-v.done:
			return
		case <-time.After(powerPatience):
		}
		v.d.log.Warn("the guest does not stop; it is ended")
	}
	if err := v.machine.Kill(); err != nil {
		v.d.log.Error("end the VM", "err", err)
	}
	<-v.done
}
