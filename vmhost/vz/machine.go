//go:build unix

package vz

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/vmhost"
)

// hypervisor is what a machine needs of the framework's.
type hypervisor interface {
	// start returns when the machine runs, or cannot. It cannot be cancelled.
	start() error
	// pressPower asks the guest to stop.
	pressPower() error
	// stop ends the machine and returns when the framework has taken the order. A machine that has
	// ended, or ends, is no error.
	stop() error
	// wait returns when the machine, once started, has ended; the error is the framework's fault.
	wait() error
	// pause stops the guest's processors. The machine can then be stopped, saved and made to go on.
	pause() error
	// goOn lets a paused machine run.
	goOn() error
}

// saver is what a hypervisor offers besides where the machine can be saved. A machine that ends meanwhile is an
// error of each.
type saver interface {
	// save writes a paused machine to a new file. It cannot be cancelled.
	save(path string) error
	// restore takes the place of start, and leaves the machine paused. With an error it has not begun.
	restore(path string) error
}

// parts is what a machine is made of. All of it belongs to the machine, which closes it.
type parts struct {
	vm      hypervisor
	saver   saver // nil: the machine cannot be saved
	control proxy.Conn
	links   []proxy.Link
	console io.ReadCloser // our end of the guest's console
	ours    []io.Closer   // what else of ours is closed before the machine is stopped
	theirs  []io.Closer   // the framework's ends of the ports: they must outlive the machine
	lock    io.Closer     // closed last
	data    string        // path of the data disk
	bond    bond          // what a saved state of it is bound to, but for the disk's mark
}

// machine is a running VM of the framework.
//
//	starting -begin-> running -the guest, Kill or a panic-> ended
type machine struct {
	parts
	log     *slog.Logger
	watcher *watcher
	out     io.Writer
	done    chan struct{}
	apart   sync.Once // see disconnect

	saving sync.Mutex // held while the machine stands still or goes on by our will

	mu        sync.Mutex // guards all below
	exit      vmhost.Exit
	killed    bool
	suspended bool
	stuck     error // why a machine that was paused had to be ended
}

var _ vmhost.Machine = (*machine)(nil)

func newMachine(p parts, out io.Writer, log *slog.Logger) *machine {
	if out == nil {
		out = io.Discard
	}
	return &machine{parts: p, out: out, log: log, watcher: newWatcher(), done: make(chan struct{})}
}

// begin starts the machine, or brings it back where dir is the folder of a saved one. The framework's start
// cannot be cancelled: when the context ends first, the machine is ended as soon as it runs, and keeps its lock
// so long.
func (m *machine) begin(ctx context.Context, dir string) error {
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		m.hear()
	}()
	started := make(chan error)
	gone := make(chan struct{})
	go func() {
		err := m.run(ctx, dir)
		select {
		case started <- err:
			return
		case <-gone:
		}
		if err == nil {
			m.Kill()
			m.follow(heard)
			return
		}
		m.letGo(heard)
	}()
	select {
	case err := <-started:
		if err != nil {
			m.letGo(heard)
			return fmt.Errorf("start the machine: %w", err)
		}
		go m.follow(heard)
		return nil
	case <-ctx.Done():
		close(gone)
		return fmt.Errorf("start the machine: %w", context.Cause(ctx))
	}
}

// hear takes what the guest prints until the port ends. A console that cannot be written down is still
// read: the guest would wait.
func (m *machine) hear() {
	buf := make([]byte, 16<<10)
	for {
		n, err := m.console.Read(buf)
		m.watcher.Write(buf[:n])
		m.out.Write(buf[:n])
		if err != nil {
			return
		}
	}
}

// follow waits for the machine's end, says what it was, and lets go of everything. A guest that is about
// to restart is ended first: we do not reboot in place, where it would wait for a host that does not know.
func (m *machine) follow(heard <-chan struct{}) {
	ended := make(chan error, 1)
	go func() { ended <- m.vm.wait() }()
	var err error
	select {
	case err = <-ended:
	case <-m.watcher.restarts:
		m.disconnect()
		if err := m.vm.stop(); err != nil {
			m.log.Warn("end a guest that restarts", "err", err)
		}
		err = <-ended
	}
	m.letGo(heard)
	m.mu.Lock()
	if m.exit = explain(m.killed, errors.Join(err, m.stuck), m.watcher); m.suspended {
		m.exit = vmhost.Exit{Reason: vmhost.ExitSuspended, Detail: "the machine was saved"}
	}
	m.log.Info("vz ended", "reason", m.exit.Reason, "detail", m.exit.Detail)
	m.mu.Unlock()
	close(m.done)
}

// disconnect closes every way to the guest, before the machine is stopped: the framework's sockets die
// with it.
func (m *machine) disconnect() {
	m.apart.Do(func() {
		for _, l := range m.links {
			l.Close()
		}
		m.control.Close()
		for _, c := range m.ours {
			c.Close()
		}
	})
}

// drainPatience is how long the console's last words may take once the machine is gone: they are in a
// socket's buffer of this host.
const drainPatience = time.Second

// letGo closes what a machine that does not run any more has held.
func (m *machine) letGo(heard <-chan struct{}) {
	m.disconnect()
	for _, c := range m.theirs {
		c.Close()
	}
	select {
	case <-heard:
	case <-time.After(drainPatience): // somebody else holds the other end
	}
	m.console.Close()
	<-heard
	m.lock.Close()
}

func (m *machine) Accelerator() vmhost.Accelerator { return accelerator }
func (m *machine) Control() proxy.Conn             { return m.control }
func (m *machine) Links() []proxy.Link             { return m.links }
func (m *machine) Done() <-chan struct{}           { return m.done }

func (m *machine) Exit() vmhost.Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exit
}

var errEnded = errors.New("it has ended")

func (m *machine) PowerOff(context.Context) error {
	select {
	case <-m.done:
		return fmt.Errorf("press the machine's power button: %w", errEnded)
	default:
	}
	if err := m.vm.pressPower(); err != nil {
		return fmt.Errorf("press the machine's power button: %w", err)
	}
	return nil
}

var _ vmhost.Pauser = (*machine)(nil)

func (m *machine) Pause(context.Context) error {
	m.saving.Lock()
	defer m.saving.Unlock()
	if err := m.vm.pause(); err != nil {
		return fmt.Errorf("pause the machine: %w", err)
	}
	return nil
}

func (m *machine) GoOn(context.Context) error {
	m.saving.Lock()
	defer m.saving.Unlock()
	if err := m.vm.goOn(); err != nil {
		return fmt.Errorf("let the machine go on: %w", err)
	}
	return nil
}

func (m *machine) Kill() error {
	select {
	case <-m.done:
		return nil
	default:
	}
	m.mu.Lock()
	m.killed = true
	m.mu.Unlock()
	m.disconnect()
	if err := m.vm.stop(); err != nil {
		return fmt.Errorf("end the machine: %w", err)
	}
	return nil
}
