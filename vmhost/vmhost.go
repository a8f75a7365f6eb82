// Package vmhost says what a virtual machine is to Cove: what one is made from, what it can do, and
// how it ends. It holds no driver; those are in its subpackages, one per hypervisor, and all of them
// pass the suite in vmhost/vmtest. A driver never knows who uses it.
package vmhost

import (
	"context"
	"io"
	"syscall"

	"github.com/covedesk/cove/proxy"
)

// Spec is what a machine is made from. Sizes are in bytes.
type Spec struct {
	Name   string // for people and process lists, such as "default"
	CPUs   int
	Memory int64

	Kernel  string   // path of the kernel image
	Initrd  string   // path of the initial file system
	Cmdline []string // words of the kernel command line, beside what the driver needs itself
	Root    string   // path of the read-only root image (erofs, raw)
	Data    string   // path of the writable data disk; its format is raw

	// Shares are the host's folders that the guest may mount. Where the hypervisor has no file server of its
	// own, Files serves them; without it the guest gets none.
	Shares []Share
	Files  FileServer

	// RunDir is a folder of ours, mode 0700, for sockets of this machine.
	RunDir string

	// Network is what the machine's network card is plugged into: see Network.
	Network Network

	// Console receives what the guest prints on its console. It must not block for long.
	Console io.Writer

	// Accelerator asks for one by name; empty lets the driver choose. See Driver.Accelerators.
	Accelerator string

	// Saved is a folder that Suspender.Suspend made: the machine is brought back from it in place of being
	// booted. It can be used once: it is moved away before the guest runs. All else of the Spec must be
	// what it was. Where it does not fit, Start's error is a *Problem ProblemSaved, and the folder is as it was.
	Saved string

	// Event is told what happens to the machine while it runs, one call at a time. It must not block.
	// It may be nil.
	Event func(Event)
}

// Share is one folder of the host.
type Share struct {
	Path     string // absolute
	ReadOnly bool
}

// FileServer answers FUSE requests: vmhost/share has one. in and out are byte streams in pieces; n is how
// much of out is written. It is called from many goroutines, and outlives its machine.
type FileServer interface {
	HandleRequest(in, out [][]byte) (n int, errno syscall.Errno)
}

// Driver starts machines on one hypervisor.
type Driver interface {
	// Name is the driver's, such as "qemu".
	Name() string

	// Check says whether this host can run machines at all; the error is a *Problem.
	Check(ctx context.Context) error

	// Accelerators tells what was tried for running the guest's code and what came of it, best
	// first. The first one that works is what Start uses when the Spec asks for none. Where one has to
	// be proven, that is by booting the kernel at the given path: it can take seconds, and the answer
	// is remembered for this host and hypervisor.
	Accelerators(ctx context.Context, kernel string) ([]Accelerator, error)

	// Start runs a machine and returns when the hypervisor runs it; the guest may still have to
	// boot. The context bounds the start only. The error is a *Problem where there is a remedy.
	Start(ctx context.Context, spec Spec) (Machine, error)
}

// Accelerator is one way to run the guest's code.
type Accelerator struct {
	Name   string // "kvm", "hvf", "whpx", "tcg"
	Works  bool
	Reason string // why it works or not, one sentence
}

// Machine is a running virtual machine. It ends once, and stays ended.
type Machine interface {
	// Accelerator is what it runs on, with the reason for the choice.
	Accelerator() Accelerator

	// Control is the root-only control port of guestd/protocol. Closing it tells the guest that
	// the host is gone. One connection for the life of the machine, and the caller's to close: a
	// driver whose port outlives its machine (QEMU's does) leaves what the guest said last to be read.
	Control() proxy.Conn

	// Links are the ways to the guest's service listener, best first. Not all may work: the
	// guest says which it listens on, and a self-test decides.
	Links() []proxy.Link

	// PowerOff asks the guest to stop, as a power button does, and returns at once.
	PowerOff(ctx context.Context) error

	// Kill ends the machine now. What the guest had not written to its disk is lost.
	Kill() error

	// Done is closed when the machine has ended and all that it held is let go.
	Done() <-chan struct{}

	// Exit says how it ended. It is valid after Done.
	Exit() Exit
}

// Event is something that happens to a running machine.
type Event string

// What can happen to a running machine.
const (
	EventDiskFull  Event = "disk-full"  // the host's disk is full: the machine is paused, and goes on when there is RoomToGoOn
	EventDiskError Event = "disk-error" // the host cannot write the data disk: the machine is paused, and tries again
	EventResumed   Event = "resumed"    // it goes on
)

// Exit is how a machine ended.
type Exit struct {
	Reason   ExitReason
	Detail   string // one sentence, such as "QEMU was ended by signal 9"
	Evidence string // the end of what the hypervisor printed
}

// ExitReason is a word for how a machine ended.
type ExitReason string

// The ways a machine ends.
const (
	ExitPoweredOff ExitReason = "powered-off" // the guest switched itself off
	ExitReset      ExitReason = "reset"       // the guest asked for a reboot; we do not reboot in place
	ExitPanicked   ExitReason = "panicked"    // the guest's kernel gave up
	ExitKilled     ExitReason = "killed"      // by Kill
	ExitSuspended  ExitReason = "suspended"   // by Suspend
	ExitCrashed    ExitReason = "crashed"     // the hypervisor ended by itself or by somebody else's hand
)
