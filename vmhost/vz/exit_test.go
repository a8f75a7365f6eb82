package vz

import (
	"errors"
	"strings"
	"testing"

	"github.com/covedesk/cove/vmhost"
)

func TestWatcher(t *testing.T) {
	for _, row := range []struct {
		says, console     string
		panicked, restart bool
	}{
		{"an ordinary boot and end", "[    0.1] Linux version 6.12\r\nguestd: ready\n[   99.0] reboot: Power down\n", false, false},
		{"a panic restarts after its timeout", "[    2.0] Kernel panic - not syncing: Attempted to kill init!\n[    2.1] CPU: 0\n[    2.2] Rebooting in 1 seconds..", true, true},
		{"a panic that is not through yet", "[    2.0] Kernel panic - not syncing: oops\n[    2.1] CPU: 0\n", true, false},
		{"a restart that was asked for", "[    9.0] reboot: Restarting system\n", false, true},
		{"a kernel that tells no time", "reboot: Restarting system", false, true},
		{"a kernel that tells who it was", "[    2.0][    T1] Kernel panic - not syncing: x\n[    2.2][    T1] Rebooting in 1 seconds..\n", true, true},
		{"a log line that quotes the kernel", `time="now" level=error msg="reboot: Restarting system Kernel panic - not syncing"` + "\n", false, false},
		{"a countdown without a panic", "Rebooting in 1 seconds..\n", false, false},
		{"a line without end", "[ " + strings.Repeat("x", 4*maxLine) + "\nreboot: Restarting system\n", false, true},
		{"a bracket that is not closed", "[ reboot: Restarting system\n", false, false},
	} {
		for _, size := range []int{1, 7, 1 << 20} {
			w := newWatcher()
			for rest := row.console; rest != ""; {
				n := min(size, len(rest))
				w.Write([]byte(rest[:n]))
				rest = rest[n:]
			}
			panicked, restart, console := w.said()
			told := false
			select {
			case <-w.restarts:
				told = true
			default:
			}
			if panicked != row.panicked || restart != row.restart || told != restart || console != row.console {
				t.Errorf("%s, %d bytes at a time: said() = %v, %v, %d bytes, told %v; want %v, %v, %d bytes", row.says, size, panicked, restart, len(console), told, row.panicked, row.restart, len(row.console))
			}
		}
	}
}

func TestWatcherForgets(t *testing.T) {
	w := newWatcher()
	for range 100 {
		w.Write([]byte(strings.Repeat("x", 1000) + "\n"))
	}
	w.Write([]byte("last"))
	_, _, console := w.said()
	if len(console) != evidenceSize || !strings.HasSuffix(console, "last") || cap(w.kept) > 8*evidenceSize {
		t.Errorf("the watcher keeps %d bytes (ends in last: %v) in %d; want the last %d", len(console), strings.HasSuffix(console, "last"), cap(w.kept), evidenceSize)
	}
}

func TestExplain(t *testing.T) {
	const panicText = "noise\n[    2.0] BUG: kernel NULL pointer\n[    2.1] Kernel panic - not syncing: Fatal\n[    2.2] Rebooting in 1 seconds..\n"
	broken := errors.New("the framework broke")
	for _, row := range []struct {
		says     string
		killed   bool
		err      error
		console  string
		want     vmhost.ExitReason
		evidence string
	}{
		{"a stop is the guest's own", false, nil, "bye\n", vmhost.ExitPoweredOff, ""},
		{"what we killed was killed, whatever else", true, broken, panicText, vmhost.ExitKilled, ""},
		{"a panic is named with the oops before it", false, nil, panicText, vmhost.ExitPanicked, "BUG: kernel NULL"},
		{"a panic explains the framework's error", false, broken, panicText, vmhost.ExitPanicked, "not syncing: Fatal"},
		{"a restart is no power-off", false, nil, "reboot: Restarting system\n", vmhost.ExitReset, ""},
		{"the framework's fault shows the console", false, broken, "last words\n", vmhost.ExitCrashed, "last words"},
	} {
		w := newWatcher()
		w.Write([]byte(row.console))
		got := explain(row.killed, row.err, w)
		if got.Reason != row.want || !strings.Contains(got.Evidence, row.evidence) || got.Detail == "" {
			t.Errorf("%s: explain(%v, %v, %q) = %+v; want %s with %q", row.says, row.killed, row.err, row.console, got, row.want, row.evidence)
		}
	}
}
