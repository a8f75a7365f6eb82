package daemon

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/disk"
)

const (
	// spaceEvery is how often the room on the host's disk is looked at while the VM runs.
	spaceEvery = 5 * time.Second
	// lowRoom is the room below which people are warned: an image or two more, and the VM is paused.
	lowRoom = 2 << 30
	// clearRoom is the room from which a later shortage is worth another warning.
	clearRoom = lowRoom + lowRoom/2
)

// spaceWatch warns once a shortage.
type spaceWatch struct{ warned bool }

// look says whether to warn, of so much room and of a disk that may take so much more.
func (w *spaceWatch) look(free, more int64) bool {
	switch {
	case free >= min(clearRoom, more):
		w.warned = false
	case free < min(lowRoom, more) && !w.warned:
		w.warned = true
		return true
	}
	return false
}

// watchSpace warns before the host's disk is full, which would pause the machine.
func (v *vm) watchSpace() {
	path := v.start.disk
	folder := filepath.Dir(path)
	t := time.NewTicker(spaceEvery)
	defer t.Stop()
	for w := new(spaceWatch); ; {
		free, err := disk.Free(folder)
		u, uerr := disk.UsageOf(path)
		if more := u.Size - u.Allocated; err == nil && uerr == nil && w.look(free, more) {
			v.d.life.Notice(fmt.Sprintf("The disk that holds %s is nearly full: %d MiB are left, and the VM's data may take %d MiB more. Free about %d MiB, or drop what is not needed with `docker system prune`; with nothing left, the VM is paused until there is room.",
				folder, free>>20, more>>20, mebibytes(min(lowRoom, more)-free)))
		}
		select {
		case <-v.done:
			return
		case <-t.C:
		}
	}
}

// mebibytes are rounded up: what is asked for has to be enough.
func mebibytes(n int64) int64 { return (n + 1<<20 - 1) >> 20 }

// fullNotice says that the machine is paused, and how much to free.
func fullNotice(folder string, free int64) string {
	if free >= vmhost.RoomToGoOn {
		return fmt.Sprintf("The disk that holds %s had no room for what the VM writes, so the VM is paused. %d MiB are free now, and it tries again by itself; if it stays like this, a quota may be used up.", folder, free>>20)
	}
	return fmt.Sprintf("The disk that holds %s is full, so the VM is paused: %d MiB are left. Free about %d MiB there; it goes on by itself, and nothing is lost.",
		folder, free>>20, mebibytes(vmhost.RoomToGoOn-free))
}

// stuckNotice says what becomes of a stop while the machine waits for its disk.
func stuckNotice(folder string, free int64) string {
	free = max(0, vmhost.RoomToGoOn-free)
	do := "The host cannot write it now"
	if free > 0 {
		do = fmt.Sprintf("Free about %d MiB there now", mebibytes(free))
	}
	return fmt.Sprintf("The VM waits for room on the disk that holds %s and cannot stop its containers in order. %s, and it does within %.0f seconds; after that it is ended, and what its programs wrote last is lost.",
		folder, do, (orderPatience + powerPatience).Seconds())
}

// happened keeps what the machine tells while it runs.
func (d *Daemon) happened(e vmhost.Event, data string, clock clockwork, waits *atomic.Bool) {
	folder := filepath.Dir(data)
	waits.Store(e != vmhost.EventResumed)
	switch e {
	case vmhost.EventDiskFull:
		free, err := disk.Free(folder)
		if err != nil {
			d.log.Warn("room on the host's disk", "err", err)
		}
		d.life.Notice(fullNotice(folder, free))
	case vmhost.EventDiskError:
		d.life.Notice(fmt.Sprintf("The host could not write the VM's disk in %s, so the VM is paused; it tries again by itself. `cove logs coved` has the error.", folder))
	case vmhost.EventResumed:
		clock.now() // it stood still
		d.life.Notice("The host's disk takes what the VM writes again: the VM goes on.")
	}
}
