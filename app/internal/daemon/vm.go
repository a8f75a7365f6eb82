package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/disk"
	"github.com/covedesk/cove/vmhost/netstack"
)

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
	waits   *atomic.Bool    // the machine, for its disk
	resized chan struct{}   // the setting for memory changed
	held    []protocol.Bind // what a list in pieces has named so far

	word      chan struct{} // closed at the guest's first word
	heard     chan struct{} // closed after its last
	listening chan protocol.Listening
	ready     chan struct{}
	failed    chan api.Failure
	done      chan struct{} // closed when the machine is gone
	sessions  sync.Once     // begins those that last

	talk sync.Mutex // one says something to the guest at a time

	asking sync.Mutex    // is held while the guest's ports change
	left   bool          // they are the guest's no more
	listed chan struct{} // closed when the guest has said which it wants

	mu      sync.Mutex          // guards all below
	over    chan struct{}       // closed when the machine is gone or stands still
	still   *still              // nil while it runs
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
	unwoken := v.spec.Saved != "" && !v.serving || v.still != nil // its ports are for who comes in its place
	v.mu.Unlock()
	v.leavePorts(unwoken || v.machine.Exit().Reason == vmhost.ExitSuspended)
	v.folders.Close()
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.done)
	if v.still == nil {
		close(v.over)
	}
}

// Done is closed when the machine is gone, or stands still: see wake.
func (v *vm) Done() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.over
}

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
		if v.waits.Load() {
			folder := filepath.Dir(v.spec.Data)
			free, err := disk.Free(folder)
			if err != nil {
				v.d.log.Warn("room on the host's disk", "err", err)
			}
			v.d.life.Notice(stuckNotice(folder, free))
		}
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
