package qemu

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/vmhost"
)

// plumbing are the descriptors that QEMU inherits. Zero means that the machine does without.
type plumbing struct {
	memory  int // a memfd as large as the guest's memory
	monitor int // a listening socket
	console int // the rest are connected sockets
	control int
	mux     int
	vsock   int
	files   int
	network int

	incoming bool // the machine's state comes from a file: see resume
}

// vsockID and vsockSlot name the vsock device and the port that it is plugged into, for the monitor.
const (
	vsockID   = "vsock0"
	vsockSlot = "plug0"
)

// guestCID is the guest's vsock context id. The device lives in our process: the id means something to
// this one guest only, and cannot meet another machine's.
const guestCID = 3

// argv is QEMU's argument list. It is pure: the same spec gives the same list.
func argv(spec vmhost.Spec, accel, arch string, p plumbing) []string {
	var a []string
	add := func(words ...string) { a = append(a, words...) }
	add("-name", "cove-"+spec.Name+",debug-threads=on")
	// Nothing that is not asked for: no default devices, no config files, no display.
	add("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
	add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
	add("-machine", machineArg(arch)+",memory-backend=ram")
	add("-accel", accelArg(accel), "-cpu", cpu(accel, arch))
	add("-smp", fmt.Sprintf("cpus=%d,sockets=1,cores=%d,threads=1", spec.CPUs, spec.CPUs))
	add("-m", fmt.Sprintf("%dM", spec.Memory>>20))
	if p.memory == 0 {
		add("-object", fmt.Sprintf("memory-backend-ram,id=ram,size=%dM", spec.Memory>>20))
	} else {
		// Shared, because the vsock and file system devices in our process read their rings there, and a file
		// of ours, because a save is then ours to write: see memory_linux.go.
		add("-object", fmt.Sprintf("memory-backend-file,id=ram,size=%dM,share=on,mem-path=/proc/self/fd/%d", spec.Memory>>20, p.memory))
	}
	add("-rtc", "base=utc,driftfix=none")
	add("-kernel", spec.Kernel)
	if spec.Initrd != "" {
		add("-initrd", spec.Initrd)
	}
	add("-append", cmdline(spec, arch))

	add("-chardev", fmt.Sprintf("socket,id=monitor,fd=%d,server=on,wait=off", p.monitor), "-mon", "chardev=monitor,mode=control")
	add("-chardev", fmt.Sprintf("socket,id=console,fd=%d", p.console), "-serial", "chardev:console")
	if p.control == 0 {
		return a // a kernel on trial
	}

	add("-device", "virtio-serial-pci,id=ports,max_ports=4")
	add("-chardev", fmt.Sprintf("socket,id=control,fd=%d", p.control), "-device", "virtserialport,bus=ports.0,nr=1,chardev=control,name="+protocol.ControlPort)
	add("-chardev", fmt.Sprintf("socket,id=mux,fd=%d", p.mux), "-device", "virtserialport,bus=ports.0,nr=2,chardev=mux,name="+protocol.MuxPort)
	if p.vsock != 0 {
		// On a port of its own: it cannot be saved, so it is unplugged before, and plugged in again after.
		add("-device", "pcie-root-port,id="+vsockSlot+",chassis=1,slot=1")
		add("-chardev", fmt.Sprintf("socket,id=vsock,fd=%d", p.vsock))
		if !p.incoming {
			add("-device", "vhost-user-vsock-pci,id="+vsockID+",chardev=vsock,bus="+vsockSlot)
		}
	}
	if p.files != 0 {
		// Linux takes no larger requests than its queue has entries, so the largest that QEMU allows.
		add("-chardev", fmt.Sprintf("socket,id=files,fd=%d", p.files), "-device", "vhost-user-fs-pci,id=files0,chardev=files,queue-size=1024,tag="+protocol.ShareTag)
	}
	add(disk("root", spec.Root, true)...)
	add(disk("data", spec.Data, false)...)
	if p.network != 0 {
		add("-netdev", fmt.Sprintf("stream,id=net0,server=off,addr.type=fd,addr.str=%d", p.network))
		add("-device", fmt.Sprintf("virtio-net-pci,netdev=net0,romfile=,host_mtu=%d", spec.Network.MTU()))
	}
	add("-object", "rng-builtin,id=rng", "-device", "virtio-rng-pci,rng=rng")
	add("-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on,deflate-on-oom=on")
	if arch == "amd64" {
		add("-device", "pvpanic-pci")
		// Another one after each restore: the guest's random numbers are then not those of the state.
		add("-device", "vmgenid,guid=auto")
	}
	if p.incoming {
		add("-incoming", "defer")
	}
	return a
}

// disk is one virtio disk with its format said, never guessed: a raw disk whose content looks like
// another format must stay raw, or its guest could name a file of the host as its backing file.
func disk(id, path string, readOnly bool) []string {
	file := map[string]any{"driver": "file", "filename": path, "aio": "threads", "locking": "on"}
	node := map[string]any{"driver": "raw", "node-name": id, "read-only": readOnly, "file": file}
	if readOnly {
		node["auto-read-only"], file["locking"] = false, "off" // several machines may share the root
		file["read-only"] = true
	} else {
		node["discard"], node["detect-zeroes"] = "unmap", "unmap"
		file["discard"] = "unmap"
	}
	b, err := json.Marshal(node)
	if err != nil {
		panic(err) // strings and booleans
	}
	device := "virtio-blk-pci,drive=" + id + ",serial=cove-" + id
	if !readOnly {
		device += ",werror=stop" // a guest that sees its writes fail gives up its file system
	}
	return []string{"-blockdev", string(b), "-device", device}
}

func machineArg(arch string) string {
	if arch == "arm64" {
		return "virt,gic-version=max"
	}
	return "q35,vmport=off,smm=off,sata=off,smbus=off,usb=off,i8042=off"
}

func accelArg(accel string) string {
	if accel == "tcg" {
		return "tcg,thread=multi"
	}
	return accel
}

// cpu is the guest's processor. One that says that it copies fast by single bytes (ERMS, FSRM) makes Linux
// do so, and TCG runs each byte by itself. Without it a guest copies eight at a time, and its network
// takes a third to a half of the processor time for a stream.
func cpu(accel, arch string) string {
	switch {
	case accel == "tcg" && arch == "amd64":
		return "max,erms=off,fsrm=off"
	case accel == "tcg", accel == "whpx":
		return "max"
	}
	return "host"
}

// cmdline is what the kernel is told. Nothing secret is on it: every container can read it.
func cmdline(spec vmhost.Spec, arch string) string {
	words := []string{"console=ttyS0"}
	if arch == "arm64" {
		words[0] = "console=ttyAMA0"
	}
	words = append(words, "panic=1") // a reboot is the machine's end: -no-reboot
	return strings.Join(append(words, spec.Cmdline...), " ")
}
