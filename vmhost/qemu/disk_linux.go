package qemu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/covedesk/cove/vmhost"
	"golang.org/x/sys/unix"
)

var _ vmhost.DiskGrower = (*machine)(nil)

// GrowDisk lets QEMU make the file larger, which has it open and locked, and tell the guest.
func (m *machine) GrowDisk(_ context.Context, size int64) error {
	m.saving.Lock() // a saved machine belongs to a disk of this size
	defer m.saving.Unlock()
	st, err := os.Stat(m.spec.Data)
	if err != nil {
		return fmt.Errorf("grow the data disk: %w", err)
	}
	if st.Size() > size {
		return fmt.Errorf("grow the data disk: it has %d bytes, which is more than %d", st.Size(), size)
	}
	if err := m.ask("block_resize", map[string]any{"node-name": "data", "size": size}, nil); err != nil {
		return fmt.Errorf("grow the data disk: %w", err)
	}
	return nil
}

const (
	// spaceRetry is how often a machine that waits for room on the host's disk looks for it.
	spaceRetry = 2 * time.Second
	// errorRetry is how often one whose host could not write for another reason tries again.
	errorRetry = 15 * time.Second
	// goOn is how long a machine has to run to count as going on: a write that fails again does so at once.
	goOn = time.Second
)

// failedWrite is the monitor's word that a write to the data disk failed. QEMU has paused the machine, so
// that the guest has seen no error.
type failedWrite struct {
	full   bool // there is no room, or no more for this user
	reason string
}

// writeFailed reads a BLOCK_IO_ERROR, and says whether it paused the machine.
func writeFailed(data map[string]any) (failedWrite, bool) {
	full, _ := data["nospace"].(bool)
	reason, _ := data["reason"].(string)
	action, _ := data["action"].(string)
	return failedWrite{full: full || strings.EqualFold(reason, unix.EDQUOT.Error()), reason: reason}, action == "stop"
}

// pauseFor lets the machine go on when its writes may succeed again; one that fails again pauses it again.
func (m *machine) pauseFor(w failedWrite) {
	m.mu.Lock()
	first := !m.paused
	m.paused = true
	m.mu.Unlock()
	if !first {
		return
	}
	m.log.Warn("a write to the data disk failed, and the machine is paused", "reason", w.reason, "full", w.full)
	told := vmhost.EventDiskError
	if w.full {
		told = vmhost.EventDiskFull
	}
	m.event(told)
	go func() {
		for !m.goesOn(w) {
			if m.over(0) {
				return
			}
		}
		m.event(vmhost.EventResumed)
	}()
}

// goesOn waits until it is time to try, tries, and says whether the machine runs.
func (m *machine) goesOn(w failedWrite) bool {
	retry := errorRetry
	if w.full {
		retry = spaceRetry
	}
	if m.over(retry) || w.full && !room(m.spec.Data) {
		return false
	}
	m.saving.Lock() // what is being saved stands still for another reason
	defer m.saving.Unlock()
	if m.still || m.do("cont") != nil || m.over(goOn) || !m.runs() {
		return false
	}
	m.mu.Lock()
	m.paused = false
	m.mu.Unlock()
	return true
}

// over waits for so long, and says whether the machine ended.
func (m *machine) over(wait time.Duration) bool {
	select {
	case <-m.done:
		return true
	case <-time.After(wait):
		return false
	}
}

// room says whether a full disk has become less so. A host that does not say is tried.
func room(path string) bool {
	var s unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &s); err != nil {
		return true
	}
	return int64(s.Bavail)*s.Bsize >= vmhost.RoomToGoOn
}

func (m *machine) runs() bool {
	var status struct{ Running bool }
	return m.ask("query-status", nil, &status) == nil && status.Running
}
