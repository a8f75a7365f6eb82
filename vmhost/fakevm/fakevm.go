// Package fakevm is a driver whose machines are goroutines: it passes vmhost/vmtest in milliseconds, so
// that what stands on machines can be tested where no hypervisor is. Its guest speaks guestd/protocol,
// serves guestd's services over two links, and does wrong what it is told to do wrong.
package fakevm

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
	"github.com/covedesk/cove/vmhost"
)

// Driver starts machines that are none. The zero value's machines are well; change the fields between
// two starts only.
type Driver struct {
	Engine http.Handler // what the guest's engine serves; nil: /_ping and /version

	// Services are served beside guestd's own, or in their place: nil takes one away.
	Services map[string]transport.Handler

	Fault   Fault
	Unfit   error           // what Check says
	Refusal error           // what Start says
	Pause   <-chan struct{} // the guest is ready only when this is closed; nil: at once

	mu   sync.Mutex
	last *Machine
}

// Fault is what is wrong with the guest.
type Fault struct {
	Silent   bool             // it never says a word
	Version  int              // of the protocol that it claims; 0: ours
	Failed   *protocol.Failed // it says this in Ready's place; one that is fatal powers off
	NoVsock  bool             // it does not listen on the first link
	DeafLink bool             // it says that it does, and does not answer there
	Stubborn bool             // it does not stop when it is asked: only Kill ends it
	Unsaved  error            // what Suspend gives
	Able     Ability          // what of a sleep its machine can do
}

// Ability is how a machine can sleep.
type Ability string

// The abilities.
const (
	Saves  Ability = ""       // it is a vmhost.Suspender and a vmhost.Pauser
	Pauses Ability = "pauses" // it is a vmhost.Pauser
	Wakes  Ability = "wakes"  // it is none of them
)

var _ vmhost.Driver = (*Driver)(nil)

// Name is "fake".
func (d *Driver) Name() string { return "fake" }

// Check gives Unfit.
func (d *Driver) Check(ctx context.Context) error {
	if d.Unfit != nil {
		return d.Unfit
	}
	return ctx.Err()
}

// works is the accelerator that there always is.
var works = vmhost.Accelerator{Name: "fake", Works: true, Reason: "there is nothing to accelerate"}

// Accelerators are one that works.
func (d *Driver) Accelerators(ctx context.Context, _ string) ([]vmhost.Accelerator, error) {
	return []vmhost.Accelerator{works}, ctx.Err()
}

// taken are the folders of the machines that run in this process, as the lock in them would say.
var taken sync.Map

// Start runs a machine. One that runs already in the Spec's RunDir is a *vmhost.Problem. Any accelerator
// that is asked for is said to work.
func (d *Driver) Start(ctx context.Context, spec vmhost.Spec) (vmhost.Machine, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start the fake machine: %w", err)
	}
	if d.Refusal != nil {
		return nil, d.Refusal
	}
	if _, busy := taken.LoadOrStore(spec.RunDir, true); busy {
		return nil, &vmhost.Problem{ID: vmhost.ProblemBusy, Summary: "Another fake machine runs in " + spec.RunDir + ".", Remedy: "End it, then start again."}
	}
	m, err := d.bootOrResume(spec)
	if err != nil {
		taken.Delete(spec.RunDir)
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = m
	return m.offered(d.Fault.Able), nil
}

// Machine is the last one that was started, for a test to do things to it; nil before the first.
func (d *Driver) Machine() *Machine {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

// Machine is a guest of goroutines. Its guest is the other half: see guest.go.
type Machine struct {
	spec    vmhost.Spec
	accel   vmhost.Accelerator
	control proxy.Conn
	links   []proxy.Link
	guest   *guest

	granted atomic.Int64 // bytes, by the balloon
	unsaved error        // see Fault

	over chan vmhost.Exit // the first one is how it ended
	done chan struct{}
	exit vmhost.Exit // written before done is closed
}

var (
	_ vmhost.Machine    = (*Machine)(nil)
	_ vmhost.Balloon    = (*Machine)(nil)
	_ vmhost.DiskGrower = (*Machine)(nil)
)

func (d *Driver) boot(spec vmhost.Spec, resumed bool) (*Machine, error) {
	host, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	muxHost, muxGuest, err := pair()
	if err != nil {
		host.Close()
		theirs.Close()
		return nil, err
	}
	vsock := newLink("vsock")
	m := &Machine{spec: spec, accel: works, control: host, links: []proxy.Link{vsock, transport.OpenMux(muxHost)},
		over: make(chan vmhost.Exit, 1), done: make(chan struct{})}
	m.granted.Store(spec.Memory)
	m.unsaved = d.Fault.Unsaved
	if spec.Accelerator != "" {
		m.accel = vmhost.Accelerator{Name: spec.Accelerator, Works: true, Reason: "it was asked for"}
	}
	m.guest = newGuest(d, spec.Data, theirs, vsock, muxGuest, m.halt)
	m.guest.resumed = resumed
	ctx, cancel := context.WithCancel(context.Background())
	if spec.Console != nil {
		fmt.Fprintf(spec.Console, "fake guest of %s boots\n", spec.Name)
	}
	var wg sync.WaitGroup
	wg.Go(func() { m.guest.run(ctx) })
	go func() {
		exit := <-m.over
		cancel()
		for _, l := range m.links {
			l.Close()
		}
		wg.Wait()
		if spec.Console != nil {
			fmt.Fprintf(spec.Console, "fake guest ends: %s\n", exit.Reason)
		}
		taken.Delete(spec.RunDir)
		m.exit = exit
		close(m.done)
	}()
	return m, nil
}

// halt ends the machine once.
func (m *Machine) halt(e vmhost.Exit) {
	select {
	case m.over <- e:
	case <-m.done:
	default:
	}
}

// Accelerator is "fake", or the one that was asked for.
func (m *Machine) Accelerator() vmhost.Accelerator { return m.accel }

// Control is the control port.
func (m *Machine) Control() proxy.Conn { return m.control }

// Links are "vsock" and "mux".
func (m *Machine) Links() []proxy.Link { return m.links }

// Done is closed when the guest's goroutines have ended.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Exit says how it ended; before Done it says nothing.
func (m *Machine) Exit() vmhost.Exit {
	select {
	case <-m.done:
		return m.exit
	default:
		return vmhost.Exit{}
	}
}

// PowerOff presses the power button.
func (m *Machine) PowerOff(context.Context) error { m.guest.stop("power button"); return nil }

// SetMemory is followed at once.
func (m *Machine) SetMemory(_ context.Context, bytes int64) error {
	if bytes < vmhost.LeastMemory || bytes > m.spec.Memory {
		return fmt.Errorf("leave the fake guest %d bytes of memory: it has %d", bytes, m.spec.Memory)
	}
	m.granted.Store(bytes)
	return nil
}

// Memory says that half of what is left to the guest is resident.
func (m *Machine) Memory(context.Context) (vmhost.Memory, error) {
	granted := m.granted.Load()
	return vmhost.Memory{Size: m.spec.Memory, Granted: granted, Resident: granted / 2}, nil
}

// Kill ends it now.
func (m *Machine) Kill() error {
	m.halt(vmhost.Exit{Reason: vmhost.ExitKilled, Detail: "the fake machine was killed because we asked for it"})
	return nil
}

// End ends it as if by itself, such as by a crash or a panic of its kernel.
func (m *Machine) End(e vmhost.Exit) { m.halt(e) }

// Tell lets the guest say something: a service that fails, an engine that is lost.
func (m *Machine) Tell(msg protocol.Message) { m.guest.tell(msg) }

// Happen tells the machine's user of an event.
func (m *Machine) Happen(e vmhost.Event) {
	if m.spec.Event != nil {
		m.spec.Event(e)
	}
}

// Spec is what the machine was made from.
func (m *Machine) Spec() vmhost.Spec { return m.spec }

// Hello is the last one that the guest got; nil before the first.
func (m *Machine) Hello() *protocol.Hello { return m.guest.greeting() }

// GrowDisk makes the file larger.
func (m *Machine) GrowDisk(_ context.Context, size int64) error {
	st, err := os.Stat(m.spec.Data)
	if err == nil && st.Size() > size {
		err = fmt.Errorf("it has %d bytes, which is more than %d", st.Size(), size)
	}
	if err == nil {
		err = os.Truncate(m.spec.Data, size)
	}
	if err != nil {
		return fmt.Errorf("grow the data disk: %w", err)
	}
	return nil
}

// Stall lets the guest's clock stand still for a while, and tells that the machine goes on.
func (m *Machine) Stall(d time.Duration) {
	m.guest.fallBehind(d)
	m.Happen(vmhost.EventResumed)
}

// Lag is how far the guest's clock is behind the host's.
func (m *Machine) Lag() time.Duration { return m.guest.lag() }
