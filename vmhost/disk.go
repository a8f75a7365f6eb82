package vmhost

import "context"

// DiskGrower is a Machine whose data disk can grow while it runs.
type DiskGrower interface {
	// GrowDisk makes the data disk so many bytes large, its file included, and the guest see it. The file
	// system on it is the guest's to grow. A disk never shrinks: a smaller size than it has is an error.
	GrowDisk(ctx context.Context, size int64) error
}

// RoomToGoOn is the room, in bytes, that a machine paused by EventDiskFull waits for: with less it would
// only go on to the next pause.
const RoomToGoOn = 256 << 20
