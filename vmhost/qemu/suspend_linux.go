package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/saved"
	"golang.org/x/sync/errgroup"
)

var (
	_ vmhost.Suspender = (*machine)(nil)
	_ vmhost.Pauser    = (*machine)(nil)
)

// errWaits says that a machine stands still already, for a reason that is not ours.
var errWaits = errors.New("it waits for room on the host's disk")

// Pause stops the guest's processors: see vmhost.Pauser.
func (m *machine) Pause(context.Context) error {
	m.saving.Lock()
	defer m.saving.Unlock()
	m.mu.Lock()
	full := m.paused
	m.mu.Unlock()
	if full {
		return fmt.Errorf("pause the machine: %w", errWaits)
	}
	if err := m.do("stop"); err != nil {
		return fmt.Errorf("pause the machine: %w", err)
	}
	m.still = true
	return nil
}

// GoOn lets them run.
func (m *machine) GoOn(context.Context) error {
	m.saving.Lock()
	defer m.saving.Unlock()
	if err := m.do("cont"); err != nil {
		return fmt.Errorf("let the machine go on: %w", err)
	}
	m.still = false
	return nil
}

// The files of a saved machine, beside the bond.
const (
	savedMemory  = "memory"  // the guest's, each byte at its place: sparse
	savedDevices = "devices" // QEMU's migration stream without it
)

// savedVersion is of the bond's format, and of what Suspend does.
const savedVersion = 1

// bond says which machine the files belong to. QEMU checks little of it: a stream that is loaded into
// another machine, or whose disk has gone on, breaks its guest.
type bond struct {
	Version     int        `json:"version"`
	QEMU        string     `json:"qemu"`        // its version
	Accelerator string     `json:"accelerator"` //
	Host        string     `json:"host"`        // the processor, where guests run on it
	Args        []string   `json:"args"`        // QEMU's, without descriptors
	Disk        saved.Disk `json:"disk"`        // of the data disk as the guest left it
}

// mark writes what a saved state of this machine is bound to.
func (m *machine) mark(dir string) error {
	data, err := saved.MarkDisk(m.spec.Data)
	if err != nil {
		return err
	}
	return saved.Bind(dir, bond{Version: savedVersion, QEMU: m.version, Accelerator: m.accel.Name, Host: processor(m.accel.Name),
		Args: fingerprint(m.spec, m.accel.Name, m.plumbing), Disk: data})
}

// fingerprint is the argument list with nothing in it that differs from start to start.
func fingerprint(spec vmhost.Spec, accel string, p plumbing) []string {
	for _, fd := range []*int{&p.memory, &p.monitor, &p.console, &p.control, &p.mux, &p.vsock, &p.files, &p.network} {
		*fd = min(*fd, 1)
	}
	p.incoming = false
	return argv(spec, accel, arch, p)
}

// processor names the host's, where the accelerator gives it to guests: a guest keeps what it found.
func processor(accel string) string {
	if accel == "tcg" {
		return ""
	}
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	var said []string
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "model name", "microcode", "flags", "Features", "CPU part":
			said = append(said, strings.TrimSpace(value))
		case "":
			return strings.Join(said, "; ")
		}
	}
	return strings.Join(said, "; ")
}

// unplugPatience bounds how long a guest may take to let go of a device: it takes 0.1 s, or seconds under
// load.
const unplugPatience = 30 * time.Second

// Suspend saves the machine: see vmhost.Suspender. The vsock device cannot be saved, so the guest has to let go
// of it first.
func (m *machine) Suspend(ctx context.Context, dir string, beside func(dir string) error) error {
	m.saving.Lock()
	defer m.saving.Unlock()
	m.mu.Lock()
	full := m.paused
	m.mu.Unlock()
	if full {
		return fmt.Errorf("suspend the machine: %w", errWaits)
	}
	unplugged := false
	err := saved.Make(dir, func(making string) error {
		begun := time.Now()
		if err := m.unplug(); err != nil {
			return err
		}
		unplugged = true
		m.log.Debug("save", "done", "unplug", "after", time.Since(begun))
		return m.save(ctx, making, beside)
	})
	if err != nil {
		// QEMU takes its disks again, and the guest its device.
		if unplugged {
			if back := errors.Join(m.do("cont"), m.plug()); back != nil && m.hasEnded() == nil {
				m.log.Error("a machine that could not be saved does not go on", "err", back)
				m.cmd.Process.Kill()
			}
		}
		return fmt.Errorf("suspend the machine: %w", err)
	}
	m.mu.Lock()
	m.suspended = true
	m.mu.Unlock()
	begun := time.Now()
	m.cmd.Process.Kill() // it has nothing left to write
	<-m.done
	m.log.Debug("save", "done", "end", "after", time.Since(begun))
	return nil
}

// hasEnded is an error when the machine has ended.
func (m *machine) hasEnded() error {
	select {
	case <-m.done:
		return errEnded
	default:
		return nil
	}
}

// save stops the machine and writes it to a folder.
func (m *machine) save(ctx context.Context, making string, beside func(string) error) error {
	begun := time.Now()
	took := func(what string) { m.log.Debug("save", "done", what, "after", time.Since(begun)) }
	if err := m.do("stop"); err != nil {
		return err
	}
	took("stop")
	// Ours before QEMU opens it, so that it is the user's own from the first moment.
	devices, err := saved.Create(filepath.Join(making, savedDevices))
	if err != nil {
		return err
	}
	defer devices.Close()
	if err := m.migrate(ctx, "migrate", devices.Name()); err != nil {
		return err
	}
	took("devices")
	// The host's disk is waited for by each.
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer took("memory")
		memory, err := saved.Create(filepath.Join(making, savedMemory))
		if err != nil {
			return err
		}
		defer memory.Close()
		if err := errors.Join(copyMemory(ctx, memory, m.memory), memory.Sync()); err != nil {
			return fmt.Errorf("write the memory: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		defer took("beside")
		if err := devices.Sync(); err != nil {
			return fmt.Errorf("write the devices: %w", err)
		}
		if err := beside(making); err != nil {
			return err
		}
		return m.mark(making)
	})
	return group.Wait()
}

// noLimit is a bandwidth in bytes a second that no disk reaches: the machine stands still meanwhile.
const noLimit = 1 << 40

// migrate moves the machine's state to or from a file ("migrate", "migrate-incoming"), and waits for it.
func (m *machine) migrate(ctx context.Context, command, path string) error {
	type capability struct {
		Capability string `json:"capability"`
		State      bool   `json:"state"`
	}
	if err := m.ask("migrate-set-capabilities", map[string]any{"capabilities": []capability{{"x-ignore-shared", true}}}, nil); err != nil {
		return err
	}
	if err := m.ask("migrate-set-parameters", map[string]any{"max-bandwidth": noLimit}, nil); err != nil {
		return err
	}
	if err := m.ask(command, map[string]any{"uri": "file:" + path}, nil); err != nil {
		return err
	}
	cancelled := false
	for {
		var is struct {
			Status string
			Error  string `json:"error-desc"`
		}
		if err := m.ask("query-migrate", nil, &is); err != nil {
			return err
		}
		switch is.Status {
		case "completed":
			if cancelled {
				return context.Cause(ctx)
			}
			return nil
		case "failed":
			return fmt.Errorf("qemu could not: %s", is.Error)
		case "cancelled":
			return context.Cause(ctx)
		}
		if ctx.Err() != nil && !cancelled && command == "migrate" {
			cancelled = true
			m.do("migrate_cancel")
		}
		select {
		case <-m.done:
			return errEnded
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// unplug takes the vsock device from the guest. It is not to be called off: a device that goes later could not
// be told from one that stays.
func (m *machine) unplug() error {
	gone := m.deleted(vsockID)
	if err := m.ask("device_del", map[string]any{"id": vsockID}, nil); err != nil {
		return err
	}
	select {
	case <-gone:
		m.vsock.Reset() // who waits for the guest need not wait for the save
		return nil
	case <-m.done:
		return errEnded
	case <-time.After(unplugPatience):
		return errors.New("the guest does not let go of its vsock device")
	}
}

// plug gives the guest its vsock device.
func (m *machine) plug() error {
	return m.ask("device_add", map[string]any{"driver": "vhost-user-vsock-pci", "id": vsockID, "chardev": "vsock", "bus": vsockSlot}, nil)
}

// deleted is closed when QEMU says that a device is gone.
func (m *machine) deleted(id string) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	gone := make(chan struct{})
	m.gone[id] = gone
	return gone
}

// check says whether a saved folder fits a machine that is about to be made of the spec. The error is a sentence
// for people.
func checkSaved(spec vmhost.Spec, version, accel string, p plumbing) error {
	var was bond
	if err := saved.Bound(spec.Saved, &was); err != nil {
		return err
	}
	data, err := saved.MarkDisk(spec.Data)
	args := fingerprint(spec, accel, p)
	switch {
	case was.Version != savedVersion:
		return errors.New("another version of Cove saved it")
	case was.QEMU != version:
		return fmt.Errorf("QEMU %s saved it, and this is %s", was.QEMU, version)
	case was.Accelerator != accel:
		return fmt.Errorf("it ran on %s, and now on %s", was.Accelerator, accel)
	case was.Host != processor(accel):
		return errors.New("it ran on another processor")
	case err != nil:
		return err
	case was.Disk != data:
		return errors.New("its data disk was changed since")
	case !slices.Equal(was.Args, args):
		return errors.New("the VM is made in another way now: " + saved.Difference(was.Args, args))
	}
	return nil
}

// resume loads a saved machine into this one, and lets it run when nobody can load it again.
func (m *machine) resume(ctx context.Context) error {
	if err := m.load.wait(); err != nil {
		return err
	}
	if err := m.migrate(ctx, "migrate-incoming", filepath.Join(m.spec.Saved, savedDevices)); err != nil {
		return err
	}
	if err := saved.Use(m.spec.Saved); err != nil {
		return err
	}
	if err := m.do("cont"); err != nil {
		return err
	}
	return m.plug()
}
