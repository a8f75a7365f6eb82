package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/covedesk/cove/vmhost"
	"golang.org/x/sys/unix"
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
	out.Resident, err = resident(m.memory)
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

// resident is how much of the guest's memory takes room, by the blocks of its file. The counters of QEMU's
// process would have to walk its page tables, and stop the guest for as long.
func resident(memory *os.File) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(memory.Fd()), &st); err != nil {
		return 0, fmt.Errorf("look at the guest's memory: %w", err)
	}
	return st.Blocks * 512, nil
}
