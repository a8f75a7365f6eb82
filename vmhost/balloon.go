package vmhost

import "context"

// Balloon is a Machine whose guest can do with less memory while it runs. What the guest's kernel has
// free goes back to the host by itself, whatever the balloon holds.
type Balloon interface {
	Machine

	// SetMemory lets the guest have so many bytes of those that it was started with, and returns at once.
	// The guest follows as far as it can: Memory says how far. What is taken in large steps makes a
	// guest that needs it stand still, so the caller goes in small ones. More than the machine's size,
	// or less than LeastMemory, is an error.
	SetMemory(ctx context.Context, bytes int64) error

	// Memory says how the memory stands.
	Memory(ctx context.Context) (Memory, error)
}

// LeastMemory is less than any guest boots with, in bytes.
const LeastMemory = 256 << 20

// Memory is a machine's memory, in bytes.
type Memory struct {
	Size     int64 // it was started with
	Granted  int64 // the balloon leaves to the guest
	Resident int64 // the host has given and not got back; where the host swaps, swapped ones are in it
}
