package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/covedesk/cove/vmhost"
)

var _ vmhost.Balloon = (*machine)(nil)

// SetMemory asks the balloon: QEMU's command counts what is left to the guest.
func (m *machine) SetMemory(_ context.Context, bytes int64) error {
	size, err := m.memorySize()
	if err != nil {
		return err
	}
	if bytes < vmhost.LeastMemory || bytes > size {
		return fmt.Errorf("leave the guest %d MiB of memory: between %d and %d can be left", bytes>>20, int64(vmhost.LeastMemory)>>20, size>>20)
	}
	return m.ask("balloon", map[string]int64{"value": bytes}, nil)
}

// Memory says how the memory stands.
func (m *machine) Memory(context.Context) (vmhost.Memory, error) {
	var out vmhost.Memory
	var err error
	if out.Size, err = m.memorySize(); err != nil {
		return out, err
	}
	var balloon struct{ Actual int64 }
	if err := m.ask("query-balloon", nil, &balloon); err != nil {
		return out, err
	}
	out.Granted = balloon.Actual
	out.Resident, err = resident(m.cmd.Process.Pid)
	return out, err
}

func (m *machine) memorySize() (int64, error) {
	var size struct {
		Base int64 `json:"base-memory"`
	}
	err := m.ask("query-memory-size-summary", nil, &size)
	return size.Base, err
}

// ask runs a command of the monitor and reads its answer into out, which may be nil.
func (m *machine) ask(command string, arguments, out any) error {
	question := map[string]any{"execute": command}
	if arguments != nil {
		question["arguments"] = arguments
	}
	b, err := json.Marshal(question)
	if err != nil {
		return fmt.Errorf("ask qemu %s: %w", command, err)
	}
	said, err := m.monitor.Run(b)
	if err == nil && out != nil {
		err = json.Unmarshal(said, &struct {
			Return any `json:"return"`
		}{out})
	}
	if err != nil {
		return fmt.Errorf("ask qemu %s: %w", command, err)
	}
	return nil
}

// memoryFile is what the guest's memory is called among QEMU's descriptors: memfd_create(2) and the kind of
// its backend.
const memoryFile = "/memfd:memory-backend-memfd"

// resident is how much of the guest's memory takes room, by the blocks of its file. It is not opened: a
// descriptor of ours would keep the memory when QEMU has ended. The counters of the process would have to
// walk its page tables, and stop the guest for as long.
func resident(pid int) (int64, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, fmt.Errorf("find the guest's memory: %w", err)
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if to, err := os.Readlink(name); err != nil || !strings.HasPrefix(to, memoryFile) {
			continue
		}
		var st syscall.Stat_t
		if err := syscall.Stat(name, &st); err != nil {
			return 0, fmt.Errorf("look at the guest's memory: %w", err)
		}
		return st.Blocks * 512, nil
	}
	return 0, errors.New("QEMU has no file with the guest's memory")
}
