//go:build cgo

package vz

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"github.com/Code-Hex/vz/v3"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
	"github.com/covedesk/cove/vmhost"
	"github.com/moby/sys/atomicwriter"
)

// assemble makes a machine that does not run yet. Its lock is the caller's.
func assemble(spec vmhost.Spec, log *slog.Logger) (_ parts, err error) {
	var p parts
	config, err := configure(spec)
	if err != nil {
		return p, err
	}
	id, err := identify(filepath.Join(filepath.Dir(spec.Data), "machine-id"), log)
	if err != nil {
		return p, err
	}
	for _, part := range []struct {
		name string
		add  func() error
	}{
		{"identity", func() error { return addIdentity(config, id.id) }},
		{"disks", func() error { return addDisks(config, spec) }},
		{"network", func() error { return addNetwork(config, &p, spec.Network, hardwareAddress(id.bytes), log) }},
		{"shared folders", func() error { return addShares(config, spec.Shares) }},
		{"random numbers, memory balloon and sockets", func() error { return addSmall(config) }},
	} {
		if err := part.add(); err != nil {
			closeAll(p)
			return p, fmt.Errorf("configure the machine's %s: %w", part.name, err)
		}
	}
	defer func() {
		if err != nil {
			closeAll(p)
		}
	}()
	mux, err := addPorts(config, &p)
	if err != nil {
		return p, fmt.Errorf("configure the machine's ports: %w", err)
	}
	valid, err := config.Validate()
	if err == nil && !valid {
		err = errors.New("it does not say why")
	}
	if err != nil {
		return p, fmt.Errorf("the Virtualization framework refuses the machine: %w", err)
	}
	vm, err := vz.NewVirtualMachine(config)
	if err != nil {
		return p, fmt.Errorf("make the machine: %w", err)
	}
	sockets := vm.SocketDevices()
	if len(sockets) != 1 {
		return p, fmt.Errorf("make the machine: it has %d socket devices, not one", len(sockets))
	}
	connect := func(port uint32) (net.Conn, error) {
		defer runtime.KeepAlive(vm) // the device is part of it
		c, err := sockets[0].Connect(port)
		if err != nil {
			return nil, err // never c: a nil pointer in an interface is not nil
		}
		return c, nil
	}
	f := &framework{vm, log}
	p.vm, p.data, p.bond = f, spec.Data, newBond(macOS(), spec, id.bytes)
	if p.saver, err = f.saver(config); err != nil {
		log.Info("this machine cannot be suspended", "why", err)
		err = nil
	}
	p.links = []proxy.Link{newLink(connect), transport.OpenMux(mux)}
	return p, nil
}

// closeAll lets go of a machine that did not come to be.
func closeAll(p parts) {
	for _, c := range append(p.ours, p.theirs...) {
		c.Close()
	}
	if p.console != nil {
		p.console.Close()
	}
}

// configure says what the machine is: its kernel, processors and memory. The kernel must be an image as
// the processor runs it: on arm64 the framework unpacks none (lima-vm/lima issue 3705).
func configure(spec vmhost.Spec) (*vz.VirtualMachineConfiguration, error) {
	memory := uint64(spec.Memory) >> 20 << 20 // the framework takes whole MiB only
	if most := vz.VirtualMachineConfigurationMaximumAllowedMemorySize(); memory > most {
		return nil, &vmhost.Problem{ID: vmhost.ProblemNoMemory, Summary: fmt.Sprintf("The VM is to have %d MiB of memory, and macOS gives one at most %d MiB here.", memory>>20, most>>20),
			Remedy: "Give it less: `cove config set memory 2GiB`, or `cove config unset memory` for the default."}
	}
	options := []vz.LinuxBootLoaderOption{vz.WithCommandLine(cmdline(spec))}
	if spec.Initrd != "" {
		options = append(options, vz.WithInitrd(spec.Initrd))
	}
	loader, err := vz.NewLinuxBootLoader(spec.Kernel, options...)
	if err != nil {
		return nil, &vmhost.Problem{ID: vmhost.ProblemImage, Summary: "The guest image's kernel or its first file system cannot be read.", Remedy: "Install the guest image again.", Err: err}
	}
	c, err := vz.NewVirtualMachineConfiguration(loader, uint(spec.CPUs), memory)
	if err != nil {
		return nil, fmt.Errorf("configure the machine: %w", err)
	}
	return c, nil
}

// identity is a machine identifier with its bytes, which vz keeps in memory that is not Go's.
type identity struct {
	id    *vz.GenericMachineIdentifier
	bytes []byte
}

// identify gives the machine's identifier, the same in every life: a saved state can be restored with no
// other (Apple's documentation of VZGenericMachineIdentifier). One that cannot be read any more is
// replaced: it costs a saved state, which is a cold boot, and nothing else.
func identify(path string, log *slog.Logger) (identity, error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return identity{}, fmt.Errorf("read the machine's identifier: %w", err)
	}
	if len(b) > 0 { // vz panics at none
		id, err := vz.NewGenericMachineIdentifierWithData(b)
		if err == nil && len(id.DataRepresentation()) > 0 {
			return identity{id, b}, nil
		}
		log.Warn("the machine's identifier is damaged; it gets a new one", "path", path, "err", err)
	}
	id, err := vz.NewGenericMachineIdentifier()
	if err != nil {
		return identity{}, fmt.Errorf("make a machine identifier: %w", err)
	}
	b = bytes.Clone(id.DataRepresentation())
	if err := atomicwriter.WriteFile(path, b, 0o600); err != nil {
		return identity{}, fmt.Errorf("keep the machine's identifier: %w", err)
	}
	return identity{id, b}, nil
}

func addIdentity(c *vz.VirtualMachineConfiguration, id *vz.GenericMachineIdentifier) error {
	p, err := vz.NewGenericPlatformConfiguration(vz.WithGenericMachineIdentifier(id))
	if err != nil {
		return err
	}
	c.SetPlatformVirtualMachineConfiguration(p)
	return nil
}

// addDisks gives the disks the serials by which the guest knows them. Two modes keep the data:
//
// Cached, because with the framework's own choice (automatic) and with none (uncached) Linux guests have
// lost ext4 and btrfs file systems: utmapp/UTM issue 4840, lima-vm/lima pull request 2026,
// crc-org/vfkit pull request 76, openai/tart pull request 675.
//
// Full synchronisation: a flush of the guest's is a flush to the medium, so that a Mac that loses power
// keeps what a database has committed. The projects above chose fsync, which is faster and leaves the
// data in the drive's cache (fsync(2) of macOS).
func addDisks(c *vz.VirtualMachineConfiguration, spec vmhost.Spec) error {
	var all []vz.StorageDeviceConfiguration
	for _, d := range []struct {
		path, serial string
		readOnly     bool
		broken       vmhost.Problem
	}{
		{spec.Root, "cove-root", true, vmhost.Problem{ID: vmhost.ProblemImage, Summary: "The guest image's root cannot be used as a disk.", Remedy: "Install the guest image again."}},
		{spec.Data, "cove-data", false, vmhost.Problem{ID: vmhost.ProblemDataDisk, Summary: "The data disk cannot be used.", Remedy: "See whether another program has data.raw open (`lsof` shows it), and whether it can be read and written."}},
	} {
		image, err := vz.NewDiskImageStorageDeviceAttachmentWithCacheAndSync(d.path, d.readOnly, vz.DiskImageCachingModeCached, vz.DiskImageSynchronizationModeFull)
		if err != nil {
			d.broken.Err, d.broken.Evidence = err, d.path
			return &d.broken
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

// addNetwork plugs the card into the Spec's network, or where there is none into the framework's own NAT.
func addNetwork(c *vz.VirtualMachineConfiguration, p *parts, network vmhost.Network, hardware net.HardwareAddr, log *slog.Logger) error {
	attachment, err := attach(p, network, log)
	if err != nil {
		return err
	}
	nic, err := vz.NewVirtioNetworkDeviceConfiguration(attachment)
	if err != nil {
		return err
	}
	address, err := vz.NewMACAddress(hardware)
	if err != nil {
		return err
	}
	nic.SetMACAddress(address)
	c.SetNetworkDevicesVirtualMachineConfiguration([]*vz.VirtioNetworkDeviceConfiguration{nic})
	return nil
}

// attach makes what the card is plugged into.
func attach(p *parts, network vmhost.Network, log *slog.Logger) (vz.NetworkDeviceAttachment, error) {
	if network == nil {
		return vz.NewNATNetworkDeviceAttachment()
	}
	ours, theirs, err := newCard()
	if err != nil {
		return nil, err
	}
	p.ours, p.theirs = append(p.ours, ours), append(p.theirs, theirs)
	go func() {
		if err := network.Attach(ours, vmhost.FrameDatagram); err != nil {
			log.Warn("network card", "err", err)
		}
	}()
	return vz.NewFileHandleNetworkDeviceAttachment(theirs)
}

func addSmall(c *vz.VirtualMachineConfiguration) error {
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

// addPorts gives one virtio console device with the boot console and the named ports, keeps both ends of
// each in p, and returns the multiplexer's. The guest finds a port by its name, never by its number.
func addPorts(c *vz.VirtualMachineConfiguration, p *parts) (mux proxy.Conn, err error) {
	device, err := vz.NewVirtioConsoleDeviceConfiguration()
	if err != nil {
		return nil, err
	}
	for i, port := range []struct {
		name    string
		console bool
		keep    func(proxy.Conn)
	}{
		{"cove.console", true, func(c proxy.Conn) { p.console = c }},
		{protocol.ControlPort, false, func(c proxy.Conn) { p.control = c; p.ours = append(p.ours, c) }},
		{protocol.MuxPort, false, func(c proxy.Conn) { mux = c; p.ours = append(p.ours, c) }},
	} {
		ours, theirs, err := newPort()
		if err != nil {
			return nil, err
		}
		port.keep(ours)
		p.theirs = append(p.theirs, theirs)
		attachment, err := vz.NewFileHandleSerialPortAttachment(theirs, theirs)
		if err != nil {
			return nil, err
		}
		one, err := vz.NewVirtioConsolePortConfiguration(vz.WithVirtioConsolePortConfigurationName(port.name),
			vz.WithVirtioConsolePortConfigurationIsConsole(port.console), vz.WithVirtioConsolePortConfigurationAttachment(attachment))
		if err != nil {
			return nil, err
		}
		device.SetVirtioConsolePortConfiguration(i, one)
	}
	c.SetConsoleDevicesVirtualMachineConfiguration([]vz.ConsoleDeviceConfiguration{device})
	return mux, nil
}
