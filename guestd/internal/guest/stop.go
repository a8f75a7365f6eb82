//go:build linux

package guest

import (
	"context"
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/covedesk/cove/guestd/internal/boot"
	"golang.org/x/sys/unix"
)

// shutDown stops the engine, which stops its containers, then containerd, then what is left, and makes
// sure that everything is on the disk. Each part has a bound.
func (g *Guest) shutDown() {
	g.engineDown()
	if g.dockerd != nil {
		waitFor(dockerdPatience+time.Second, func() bool { return g.dockerd.Pid() == 0 })
	}
	containerdLife.end()
	done := make(chan struct{})
	go func() { g.services.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(containerdPatience + time.Second):
		slog.Warn("services did not end")
	}
	// Shims and what containers left: everything but this process.
	unix.Kill(-1, unix.SIGTERM)
	waitFor(restPatience, func() bool { return unix.Kill(-1, 0) != nil })
	unix.Kill(-1, unix.SIGKILL)
	for _, l := range g.logs {
		l.CloseFile()
	}
	if err := boot.SwapOff(); err != nil {
		slog.Warn("swap", "err", err)
	}
	unix.Sync()
	if err := unmountData(); err != nil {
		slog.Warn("unmount the data disk", "err", err)
	}
	unix.Sync()
}

// waitFor looks until ok or until patience is over.
func waitFor(patience time.Duration, ok func() bool) {
	for end := time.Now().Add(patience); !ok() && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
}

// unmountData unmounts what lies on the data disk, the deepest first; what is busy is made read-only,
// which writes all of it.
func unmountData() error {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		fields := strings.Fields(lines[i])
		if len(fields) > 1 && (strings.HasPrefix(fields[1], "/var/") || strings.HasPrefix(fields[1], "/run/docker")) {
			unix.Unmount(fields[1], unix.MNT_DETACH)
		}
	}
	if err := unix.Unmount("/var", 0); err == nil || err == unix.EINVAL {
		return nil
	}
	return unix.Mount("", "/var", "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// PowerOff switches the machine off. It does not return.
func PowerOff() {
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // the kernel refuses only when we are not process 1
}

// Of linux/input-event-codes.h.
const (
	eventKey = 1
	keyPower = 116
)

// watchPowerButton calls pressed when the machine's power button is. A guest without one has the host's
// word on the control port.
func watchPowerButton(ctx context.Context, pressed func()) {
	var f *os.File
	for f == nil {
		names, _ := filepath.Glob("/sys/class/input/event*/device/name")
		for _, n := range names {
			if b, err := os.ReadFile(n); err == nil && strings.TrimSpace(string(b)) == "Power Button" {
				f, _ = os.Open("/dev/input/" + filepath.Base(filepath.Dir(filepath.Dir(n))))
			}
		}
		if f == nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	event := make([]byte, 24) // struct input_event on 64-bit Linux
	for {
		if _, err := f.Read(event); err != nil {
			return
		}
		if binary.LittleEndian.Uint16(event[16:]) == eventKey && binary.LittleEndian.Uint16(event[18:]) == keyPower && binary.LittleEndian.Uint32(event[20:]) == 1 {
			pressed()
		}
	}
}
