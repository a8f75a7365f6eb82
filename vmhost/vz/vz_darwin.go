//go:build cgo

package vz

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/Code-Hex/vz/v3"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
	"github.com/covedesk/cove/vmhost"
	"github.com/moby/sys/atomicwriter"
)

// Driver starts machines with the Virtualization framework.
type Driver struct{ log *slog.Logger }

var (
	_ vmhost.Driver  = (*Driver)(nil)
	_ vmhost.Machine = (*machine)(nil)
)

// New returns a Driver.
func New(log *slog.Logger) *Driver { return &Driver{log} }

// Name is "vz".
func (d *Driver) Name() string { return "vz" }

// Check asks the framework for a machine identifier, which macOS 13 and a Mac with virtualization give.
// Named virtio-console ports and disk identifiers need 13 as well (Apple's documentation of
// VZVirtioConsolePortConfiguration and VZVirtioBlockDeviceConfiguration).
func (d *Driver) Check(context.Context) error {
	if _, err := vz.NewGenericMachineIdentifier(); err != nil {
		return &vmhost.Problem{ID: vmhost.ProblemNoHypervisor, Summary: "This Mac cannot run virtual machines as Cove needs them.",
			Remedy: "Update to macOS 13 or newer. Cove itself must be signed with the virtualization entitlement.", Err: err}
	}
	return nil
}

// Accelerators is one: the framework runs nothing without the hardware.
func (d *Driver) Accelerators(context.Context, string) ([]vmhost.Accelerator, error) {
	return []vmhost.Accelerator{{Name: "hvf", Works: true, Reason: "the Virtualization framework runs on nothing else"}}, nil
}

// Start runs a machine.
func (d *Driver) Start(ctx context.Context, spec vmhost.Spec) (_ vmhost.Machine, err error) {
	if spec.Accelerator != "" && spec.Accelerator != "hvf" {
		return nil, &vmhost.Problem{ID: vmhost.ProblemNoAccelerator, Summary: fmt.Sprintf("There is no accelerator %q on this system.", spec.Accelerator),
			Remedy: "Let Cove choose: `cove config unset accelerator`."}
	}
	m := &machine{log: d.log, console: spec.Console, done: make(chan struct{}), open: map[io.Closer]struct{}{}}
	defer func() {
		if err != nil {
			m.release()
		}
	}()
	config, err := m.configure(spec)
	if err != nil {
		return nil, err
	}
	if ok, err := config.Validate(); err != nil || !ok {
		return nil, fmt.Errorf("the framework refuses the machine: %w", err)
	}
	if m.vm, err = vz.NewVirtualMachine(config); err != nil {
		return nil, fmt.Errorf("make the machine: %w", err)
	}
	sockets := m.vm.SocketDevices()
	if len(sockets) != 1 {
		return nil, fmt.Errorf("the machine has %d socket devices, not one", len(sockets))
	}
	m.links = []proxy.Link{&link{m: m, device: sockets[0]}, transport.OpenMux(m.mux)}
	if err := m.vm.Start(); err != nil {
		return nil, fmt.Errorf("start the machine: %w", err)
	}
	go m.watch()
	return m, nil
}

// machine is a running VM of the framework.
type machine struct {
	log     *slog.Logger
	vm      *vz.VirtualMachine
	console io.Writer
	control *port
	mux     *port
	links   []proxy.Link
	done    chan struct{}

	mu     sync.Mutex // guards all below
	open   map[io.Closer]struct{}
	exit   vmhost.Exit
	killed bool
}

// configure makes the machine's configuration from its spec.
func (m *machine) configure(spec vmhost.Spec) (*vz.VirtualMachineConfiguration, error) {
	words := append([]string{"console=hvc0", "panic=1"}, spec.Cmdline...)
	loader, err := vz.NewLinuxBootLoader(spec.Kernel, vz.WithInitrd(spec.Initrd), vz.WithCommandLine(strings.Join(words, " ")))
	if err != nil {
		return nil, fmt.Errorf("boot loader: %w", err)
	}
	c, err := vz.NewVirtualMachineConfiguration(loader, uint(spec.CPUs), uint64(spec.Memory))
	if err != nil {
		return nil, fmt.Errorf("configure the machine: %w", err)
	}
	for _, part := range []struct {
		name string
		add  func(*vz.VirtualMachineConfiguration, vmhost.Spec) error
	}{
		{"identity", addIdentity}, {"disks", addDisks}, {"network", addNetwork}, {"small devices", addSmall}, {"ports", m.addPorts},
	} {
		if err := part.add(c, spec); err != nil {
			return nil, fmt.Errorf("configure the machine's %s: %w", part.name, err)
		}
	}
	return c, nil
}

// addIdentity gives the machine the same identity in every life: a saved state can be restored with no
// other (Apple's documentation of VZGenericMachineIdentifier).
func addIdentity(c *vz.VirtualMachineConfiguration, spec vmhost.Spec) error {
	path := filepath.Join(filepath.Dir(spec.Data), "machine-id")
	var id *vz.GenericMachineIdentifier
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		id, err = vz.NewGenericMachineIdentifierWithData(b)
	case errors.Is(err, os.ErrNotExist):
		if id, err = vz.NewGenericMachineIdentifier(); err == nil {
			err = atomicwriter.WriteFile(path, id.DataRepresentation(), 0o600)
		}
	}
	if err != nil {
		return err
	}
	p, err := vz.NewGenericPlatformConfiguration(vz.WithGenericMachineIdentifier(id))
	if err != nil {
		return err
	}
	c.SetPlatformVirtualMachineConfiguration(p)
	return nil
}

// addDisks gives the disks the serials by which the guest knows them. The data disk is synced when the
// guest flushes, to the medium: a Mac that loses power keeps what a database has committed.
func addDisks(c *vz.VirtualMachineConfiguration, spec vmhost.Spec) error {
	var all []vz.StorageDeviceConfiguration
	for _, d := range []struct {
		path, serial string
		readOnly     bool
	}{{spec.Root, "cove-root", true}, {spec.Data, "cove-data", false}} {
		image, err := vz.NewDiskImageStorageDeviceAttachmentWithCacheAndSync(d.path, d.readOnly, vz.DiskImageCachingModeAutomatic, vz.DiskImageSynchronizationModeFull)
		if err != nil {
			return err
		}
		disk, err := vz.NewVirtioBlockDeviceConfiguration(image)
		if err != nil {
			return err
		}
		if err := disk.SetBlockDeviceIdentifier(d.serial); err != nil {
			return err
		}
		all = append(all, disk)
	}
	c.SetStorageDevicesVirtualMachineConfiguration(all)
	return nil
}

func addNetwork(c *vz.VirtualMachineConfiguration, _ vmhost.Spec) error {
	nat, err := vz.NewNATNetworkDeviceAttachment()
	if err != nil {
		return err
	}
	nic, err := vz.NewVirtioNetworkDeviceConfiguration(nat)
	if err != nil {
		return err
	}
	c.SetNetworkDevicesVirtualMachineConfiguration([]*vz.VirtioNetworkDeviceConfiguration{nic})
	return nil
}

func addSmall(c *vz.VirtualMachineConfiguration, _ vmhost.Spec) error {
	entropy, err := vz.NewVirtioEntropyDeviceConfiguration()
	if err != nil {
		return err
	}
	c.SetEntropyDevicesVirtualMachineConfiguration([]*vz.VirtioEntropyDeviceConfiguration{entropy})
	balloon, err := vz.NewVirtioTraditionalMemoryBalloonDeviceConfiguration()
	if err != nil {
		return err
	}
	c.SetMemoryBalloonDevicesVirtualMachineConfiguration([]vz.MemoryBalloonDeviceConfiguration{balloon})
	sockets, err := vz.NewVirtioSocketDeviceConfiguration()
	if err != nil {
		return err
	}
	c.SetSocketDevicesVirtualMachineConfiguration([]vz.SocketDeviceConfiguration{sockets})
	return nil
}

// addPorts makes the console, the control port and the multiplexer's: one virtio console device each,
// since a port's number within a device is no promise of the framework.
func (m *machine) addPorts(c *vz.VirtualMachineConfiguration, _ vmhost.Spec) error {
	var err error
	var console *port
	var all []vz.ConsoleDeviceConfiguration
	for _, p := range []struct {
		to      **port
		name    string
		console bool
	}{{&console, "console", true}, {&m.control, protocol.ControlPort, false}, {&m.mux, protocol.MuxPort, false}} {
		var file *os.File
		if *p.to, file, err = newPort(); err != nil {
			return err
		}
		m.keep(*p.to)
		m.keep(file)
		handle, err := vz.NewFileHandleSerialPortAttachment(file, file)
		if err != nil {
			return err
		}
		one, err := vz.NewVirtioConsolePortConfiguration(vz.WithVirtioConsolePortConfigurationName(p.name),
			vz.WithVirtioConsolePortConfigurationIsConsole(p.console), vz.WithVirtioConsolePortConfigurationAttachment(handle))
		if err != nil {
			return err
		}
		device, err := vz.NewVirtioConsoleDeviceConfiguration()
		if err != nil {
			return err
		}
		device.SetVirtioConsolePortConfiguration(0, one)
		all = append(all, device)
	}
	c.SetConsoleDevicesVirtualMachineConfiguration(all)
	out := m.console
	if out == nil {
		out = io.Discard
	}
	go io.Copy(out, struct{ io.Reader }{console}) // ends when release closes the port
	return nil
}

// keep remembers what release closes.
func (m *machine) keep(c io.Closer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open[c] = struct{}{}
}

func (m *machine) drop(c io.Closer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.open, c)
}

// release closes every connection and port. The framework's sockets die with the machine, and reading
// one of them afterwards crashes: they go first.
func (m *machine) release() {
	m.mu.Lock()
	open := m.open
	m.open = map[io.Closer]struct{}{}
	m.mu.Unlock()
	for c := range open {
		c.Close()
	}
}

func (m *machine) Accelerator() vmhost.Accelerator {
	return vmhost.Accelerator{Name: "hvf", Works: true, Reason: "the Virtualization framework runs on nothing else"}
}

func (m *machine) Control() proxy.Conn   { return m.control }
func (m *machine) Links() []proxy.Link   { return m.links }
func (m *machine) Done() <-chan struct{} { return m.done }

func (m *machine) Exit() vmhost.Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exit
}

func (m *machine) PowerOff(context.Context) error {
	if ok, err := m.vm.RequestStop(); err != nil || !ok {
		return fmt.Errorf("press the power button: %w", err)
	}
	return nil
}

func (m *machine) Kill() error {
	m.mu.Lock()
	m.killed = true
	m.mu.Unlock()
	m.release()
	if !m.vm.CanStop() {
		return nil // it ended, or it ends now
	}
	if err := m.vm.Stop(); err != nil {
		return fmt.Errorf("end the machine: %w", err)
	}
	return nil
}

// watch follows the machine to its end. The framework does not say whether the guest switched itself
// off, restarted or panicked: with panic=1 all three are a stop.
func (m *machine) watch() {
	for state := range m.vm.StateChangedNotify() {
		m.log.Info("vz", "state", state.String())
		if state != vz.VirtualMachineStateStopped && state != vz.VirtualMachineStateError {
			continue
		}
		m.release()
		m.mu.Lock()
		switch {
		case m.killed:
			m.exit = vmhost.Exit{Reason: vmhost.ExitKilled, Detail: "the machine was ended because we asked for it"}
		case state == vz.VirtualMachineStateError:
			m.exit = vmhost.Exit{Reason: vmhost.ExitCrashed, Detail: "the Virtualization framework reports an error"}
		default:
			m.exit = vmhost.Exit{Reason: vmhost.ExitPoweredOff, Detail: "the guest switched itself off"}
		}
		m.mu.Unlock()
		close(m.done)
		return
	}
}
