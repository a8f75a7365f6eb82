package vz

import (
	"bytes"
	"strings"
	"sync"

	"github.com/covedesk/cove/vmhost"
)

// evidenceSize is how much of the console's last words is kept for an explanation.
const evidenceSize = 16 << 10

// What Linux prints, at the level that `quiet` does not hide (kernel/panic.c and kernel/reboot.c). A
// panic with a timeout ends in the second line, the timeout before the restart.
const (
	linePanic     = "Kernel panic - not syncing"
	lineRebooting = "Rebooting in "
	lineRestart   = "reboot: Restarting system"
)

// watcher reads along on the console. The framework does not tell a guest's restart from nothing at all:
// what the kernel says before it is the only sign. A line counts only where the kernel's word begins it,
// so that a log line which quotes one ends nobody's machine.
type watcher struct {
	restarts chan struct{} // closed when the guest is about to restart

	mu       sync.Mutex
	kept     []byte // the last evidenceSize bytes, or up to twice as many
	line     []byte // the line so far
	panicked bool
	restart  bool
}

// maxLine is how much of a line is looked at: the kernel's own are shorter.
const maxLine = 1 << 10

func newWatcher() *watcher { return &watcher{restarts: make(chan struct{})} }

// Write looks at what the guest printed. It never fails.
func (w *watcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, p...)
	if len(w.kept) > 2*evidenceSize {
		w.kept = append(w.kept[:0], w.kept[len(w.kept)-evidenceSize:]...)
	}
	for rest := p; len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte("\n"))
		w.line = append(w.line, part[:min(len(part), maxLine-len(w.line))]...)
		if ended {
			w.lookLocked()
			w.line = w.line[:0]
		}
		rest = after
	}
	w.lookLocked() // a last word may have no end
	return len(p), nil
}

func (w *watcher) lookLocked() {
	said := w.line
	for bytes.HasPrefix(said, []byte("[")) { // the time, and who it was: printk.time, CONFIG_PRINTK_CALLER
		_, after, ended := bytes.Cut(said, []byte("]"))
		if !ended {
			return
		}
		said = bytes.TrimLeft(after, " ")
	}
	if bytes.HasPrefix(said, []byte(linePanic)) {
		w.panicked = true
	}
	again := bytes.HasPrefix(said, []byte(lineRestart)) || w.panicked && bytes.HasPrefix(said, []byte(lineRebooting))
	if again && !w.restart {
		w.restart = true
		close(w.restarts)
	}
}

// said is what the watcher has seen, with the end of the console.
func (w *watcher) said() (panicked, restart bool, console string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.panicked, w.restart, string(w.kept[max(0, len(w.kept)-evidenceSize):])
}

// explain says how a machine ended: whether we killed it, what the framework said (nil for a stop), and
// what was on the console.
func explain(killed bool, err error, w *watcher) vmhost.Exit {
	panicked, restart, console := w.said()
	switch {
	case killed:
		return vmhost.Exit{Reason: vmhost.ExitKilled, Detail: "the machine was ended because we asked for it"}
	case panicked:
		return vmhost.Exit{Reason: vmhost.ExitPanicked, Detail: "the guest's kernel panicked", Evidence: fromPanic(console)}
	case restart:
		return vmhost.Exit{Reason: vmhost.ExitReset, Detail: "the guest restarted itself"}
	case err != nil:
		return vmhost.Exit{Reason: vmhost.ExitCrashed, Detail: err.Error(), Evidence: strings.TrimSpace(console)}
	}
	return vmhost.Exit{Reason: vmhost.ExitPoweredOff, Detail: "the guest switched itself off"}
}

// fromPanic is the console from a little before the panic on.
func fromPanic(console string) string {
	at := max(0, strings.Index(console, linePanic))
	if oops := strings.Index(console[:at], "BUG: "); oops >= 0 {
		at = oops
	}
	return console[max(0, at-200):]
}
