//go:build cgo

package vz

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/Code-Hex/vz/v3"
	"github.com/covedesk/cove/vmhost"
	"golang.org/x/sys/unix"
)

// Driver starts machines with the Virtualization framework.
type Driver struct{ log *slog.Logger }

var (
	_ vmhost.Driver      = (*Driver)(nil)
	_ vmhost.CardLimiter = (*Driver)(nil)
)

// New returns a Driver. It looks at nothing yet: see Check.
func New(log *slog.Logger) *Driver {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Driver{log}
}

// Name is "vz".
func (d *Driver) Name() string { return "vz" }

// CardLimit is Ethernet's own: with larger packets a card on a file handle stops under load
// (arcboxlabs/arcbox issue 410).
func (d *Driver) CardLimit() int { return 1500 }

// Check asks macOS for its version and whether the hardware can run guests, and the framework for a
// machine identifier, which it gives only where this program was built for it. It cannot see whether the
// program is signed with the entitlement: Start says that. The error is a *vmhost.Problem.
func (d *Driver) Check(context.Context) error {
	version, err := unix.Sysctl("kern.osproductversion")
	if err != nil {
		version = "" // then it is not known, and checkHost says so
	}
	virtualization := "" // vz has no VZVirtualMachine.isSupported; the kernel's word for Hypervisor.framework is the same fact
	if v, err := unix.SysctlUint32("kern.hv_support"); err == nil {
		virtualization = fmt.Sprint(v)
	}
	if err := checkHost(version, virtualization); err != nil {
		return err
	}
	if _, err := vz.NewGenericMachineIdentifier(); err != nil {
		return &vmhost.Problem{ID: vmhost.ProblemNoHypervisor, Summary: "This Cove was not built for what this macOS offers.",
			Remedy: fmt.Sprintf("Install a Cove that was built with the SDK of macOS %d or newer.", oldest), Err: err}
	}
	return nil
}

// Accelerators is one: the framework runs nothing without the hardware. There is nothing to prove by a
// kernel, and no kernel is booted.
func (d *Driver) Accelerators(ctx context.Context, _ string) ([]vmhost.Accelerator, error) {
	a := accelerator
	if err := d.Check(ctx); err != nil {
		a.Works, a.Reason = false, err.Error()
	}
	return []vmhost.Accelerator{a}, nil
}

// macOS is the system's version and build.
func macOS() string {
	version, _ := unix.Sysctl("kern.osproductversion")
	build, _ := unix.Sysctl("kern.osversion")
	return version + " (" + build + ")"
}

// Start runs a machine. Its memory is rounded down to whole MiB. Beside the data disk it keeps the file
// machine-id, and in RunDir the file vm.lock.
func (d *Driver) Start(ctx context.Context, spec vmhost.Spec) (vmhost.Machine, error) {
	if err := d.Check(ctx); err != nil {
		return nil, err
	}
	if err := checkAccelerator(spec.Accelerator); err != nil {
		return nil, err
	}
	lock, err := takeLock(filepath.Join(spec.RunDir, "vm.lock"))
	if err != nil {
		return nil, err
	}
	p, err := assemble(spec, d.log)
	if err != nil {
		lock.Close()
		return nil, problem(err)
	}
	p.lock = lock
	m := newMachine(p, spec.Console, d.log)
	if err := m.begin(ctx, spec.Saved); err != nil {
		return nil, problem(err)
	}
	return m.offered(), nil
}

// problem names what the framework says, where there is a remedy.
func problem(err error) error {
	var said *vz.NSError
	if _, is := errors.AsType[*vmhost.Problem](err); is || !errors.As(err, &said) || said.Domain != "VZErrorDomain" {
		return err
	}
	p := &vmhost.Problem{Evidence: said.UserInfo, Err: err}
	switch code := vz.ErrorCode(said.Code); {
	case strings.Contains(said.Error(), "com.apple.security.virtualization"):
		p.ID, p.Summary = vmhost.ProblemNoHypervisor, "macOS does not let this program run virtual machines: it is not signed for that."
		p.Remedy = "Install Cove from its package. A coved of your own needs `codesign --sign - --entitlements …` with com.apple.security.virtualization."
	case code == vz.ErrorVirtualMachineLimitExceeded:
		p.ID, p.Summary = vmhost.ProblemBusy, "macOS runs as many virtual machines as it allows."
		p.Remedy = "End another one, then start again."
	case code == vz.ErrorOutOfDiskSpace:
		p.ID, p.Summary = vmhost.ProblemNoDisk, "The host's disk is full."
		p.Remedy = "Free some space, then start again."
	case code == vz.ErrorInternal:
		p.ID, p.Summary = vmhost.ProblemHypervisorExit, "The Virtualization framework could not start the machine, and does not say why."
		p.Remedy = "Start again. If it happens again, restart the Mac, and report it with `cove status --json`."
	default:
		return err
	}
	return p
}

// framework is a machine as vz gives it. It is ours as long as somebody holds it: vz frees it with a finalizer.
type framework struct {
	vm  *vz.VirtualMachine
	log *slog.Logger
}

var _ hypervisor = (*framework)(nil)

func (f *framework) start() error { return f.vm.Start() }

func (f *framework) pause() error {
	if !f.vm.CanPause() {
		return fmt.Errorf("the framework does not offer to pause it in state %s", f.vm.State())
	}
	return plain(f.vm.Pause())
}

func (f *framework) goOn() error { return plain(f.vm.Resume()) }

// plain is what the framework says, as a clause of a sentence.
func plain(err error) error {
	var said *vz.NSError
	if !errors.As(err, &said) {
		return err
	}
	return fmt.Errorf("the Virtualization framework says: %s (%s %d)", strings.TrimSuffix(said.LocalizedDescription, "."), said.Domain, said.Code)
}

func (f *framework) pressPower() error {
	if !f.vm.CanRequestStop() {
		return fmt.Errorf("the framework does not offer it in state %s", f.vm.State())
	}
	pressed, err := f.vm.RequestStop()
	if err == nil && !pressed {
		err = errors.New("the framework did not do it")
	}
	return err
}

func (f *framework) stop() error {
	if f.vm.CanStop() {
		return f.vm.Stop()
	}
	switch state := f.vm.State(); state {
	case vz.VirtualMachineStateStopped, vz.VirtualMachineStateError, vz.VirtualMachineStateStopping:
		return nil
	default:
		return fmt.Errorf("the framework does not offer it in state %s", state)
	}
}

// wait follows the states, which vz keeps until they are read.
func (f *framework) wait() error {
	for state := range f.vm.StateChangedNotify() {
		f.log.Info("vz", "state", state.String())
		switch state {
		case vz.VirtualMachineStateStopped:
			return nil
		case vz.VirtualMachineStateError:
			return errors.New("the Virtualization framework reports an error and does not say which")
		}
	}
	return errors.New("vz tells no more states")
}
