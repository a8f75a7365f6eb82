package vz

import (
	"crypto/sha256"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/covedesk/cove/vmhost"
)

// oldest is the oldest major version of macOS that we start machines on: named console ports and
// persistent machine identifiers came with 13 (Apple's documentation of VZVirtioConsolePortConfiguration
// and VZGenericMachineIdentifier), identifiers of disks with 12.3.
const oldest = 13

// checkHost says whether a macOS of this version can run machines, from what its kernel says of hardware
// virtualization ("1" or "0"; "" where it says nothing). The error is a *vmhost.Problem.
func checkHost(version, virtualization string) error {
	number, _, _ := strings.Cut(version, ".")
	major, err := strconv.Atoi(number)
	switch {
	case err != nil:
		return &vmhost.Problem{ID: vmhost.ProblemOldHypervisor, Summary: fmt.Sprintf("This Mac does not say which macOS it runs: its version reads %q.", version),
			Remedy: fmt.Sprintf("Cove needs macOS %d or newer.", oldest)}
	case major < oldest:
		return &vmhost.Problem{ID: vmhost.ProblemOldHypervisor, Summary: fmt.Sprintf("This Mac runs macOS %s, which cannot run virtual machines as Cove needs them.", version),
			Remedy: fmt.Sprintf("Update to macOS %d or newer.", oldest)}
	case virtualization == "0":
		return &vmhost.Problem{ID: vmhost.ProblemNoHypervisor, Summary: "This Mac cannot run virtual machines: its kernel reports no hardware virtualization.",
			Remedy: "If this macOS runs in a virtual machine itself, switch on nested virtualization there (it needs an M3 or newer and macOS 15 outside); otherwise use another Mac.", Evidence: "sysctl kern.hv_support = 0"}
	}
	return nil
}

// checkAccelerator refuses an accelerator that the framework does not have. The error is a *vmhost.Problem.
func checkAccelerator(name string) error {
	if name == "" || name == accelerator.Name {
		return nil
	}
	return &vmhost.Problem{ID: vmhost.ProblemNoAccelerator, Summary: fmt.Sprintf("There is no accelerator %q on this system.", name),
		Remedy: "Let Cove choose: `cove config unset accelerator`."}
}

// accelerator is the only one.
var accelerator = vmhost.Accelerator{Name: "hvf", Works: true, Reason: "the Virtualization framework runs on nothing else"}

// cmdline is what the kernel is told. Nothing secret is on it: every container can read it. With panic=1
// a kernel that gave up says so a second before it restarts, and that second is ours: see watcher.
func cmdline(spec vmhost.Spec) string {
	return strings.Join(append([]string{"console=hvc0", "panic=1"}, spec.Cmdline...), " ")
}

// hardwareAddress is the same for the same machine identifier: a saved state fits no other, and the
// host's DHCP server, which remembers each address that it ever saw, sees one. It is unicast and locally
// administered (IEEE 802).
func hardwareAddress(identifier []byte) net.HardwareAddr {
	sum := sha256.Sum256(append([]byte("cove network "), identifier...))
	a := net.HardwareAddr(sum[:6])
	a[0] = a[0]&^1 | 2
	return a
}
