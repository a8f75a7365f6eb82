package vmhost

import "context"

// Suspender is a Machine that can be saved to files and be brought back: see Spec.Saved. It is the driver
// that knows which of its machines can.
type Suspender interface {
	// Suspend saves the machine in the folder dir, which it makes and which must not be there, and ends the
	// machine: its Exit's reason is ExitSuspended. Before the folder is complete, beside is called to put in
	// what the caller will need; the folder has another path then. When Suspend returns nil, dir is whole and
	// on the disk; with an error there is no dir, and the machine runs on, or has ended for a reason of its own.
	//
	// The guest must have said all on the control port (guestd/protocol, Sleep); connections over Links end.
	Suspend(ctx context.Context, dir string, beside func(dir string) error) error
}

// Pauser is a Machine that can stand still: its processors do nothing, and its memory stays with it.
type Pauser interface {
	// Pause has the machine stand still. What is open over Control and Links stays open, and nobody answers
	// there. The guest does not notice: its clocks are behind afterwards. A machine that waits for room on the
	// host's disk is not paused. With an error it goes on.
	Pause(ctx context.Context) error

	// GoOn lets a paused machine run again.
	GoOn(ctx context.Context) error
}
