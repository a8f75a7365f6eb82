//go:build linux

// Package reap starts programs in a process that is the guest's first one. There, every orphan's
// status must be collected, and a collector that takes any child's status would take those that
// os/exec waits for. So one collector takes them all and gives each to whoever started the program.
package reap

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// Reaper collects the status of every child of this process. There is one at the most.
type Reaper struct {
	mu      sync.Mutex
	waiting map[int]chan unix.WaitStatus
}

// New starts collecting. From now on nobody else in this process may wait for a child.
func New() *Reaper {
	r := &Reaper{waiting: map[int]chan unix.WaitStatus{}}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGCHLD)
	go func() {
		for range signals {
			r.collect()
		}
	}()
	return r
}

// Start starts the command and returns a channel that gives its status once. The command's Stdin,
// Stdout and Stderr must be files or nil: nobody calls its Wait, so nobody would copy for others.
func (r *Reaper) Start(cmd *exec.Cmd) (<-chan unix.WaitStatus, error) {
	// Held over the start, so that a child that ends at once finds its channel.
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done := make(chan unix.WaitStatus, 1)
	r.waiting[cmd.Process.Pid] = done
	return done, nil
}

// Run runs the command to its end and returns what it printed; a status other than 0 is an error.
func (r *Reaper) Run(cmd *exec.Cmd) ([]byte, error) {
	out, err := os.CreateTemp("", "out")
	if err != nil {
		return nil, err
	}
	defer out.Close()
	os.Remove(out.Name())
	cmd.Stdout, cmd.Stderr = out, out
	done, err := r.Start(cmd)
	if err != nil {
		return nil, err
	}
	status := <-done
	text := make([]byte, 64<<10)
	n, _ := out.ReadAt(text, 0)
	if status != 0 {
		return text[:n], fmt.Errorf("%s: %s: %s", cmd.Path, Describe(status), text[:n])
	}
	return text[:n], nil
}

func (r *Reaper) collect() {
	for {
		var status unix.WaitStatus
		r.mu.Lock()
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			r.mu.Unlock()
			continue
		}
		if pid <= 0 {
			r.mu.Unlock()
			if err != nil && err != unix.ECHILD {
				slog.Error("collect children", "err", err)
			}
			return
		}
		if done := r.waiting[pid]; done != nil {
			delete(r.waiting, pid)
			done <- status
		}
		r.mu.Unlock()
	}
}

// Describe says in words how a process ended.
func Describe(s unix.WaitStatus) string {
	if s.Signaled() {
		return fmt.Sprintf("ended by signal %d (%s)", s.Signal(), unix.SignalName(s.Signal()))
	}
	return fmt.Sprintf("exit status %d", s.ExitStatus())
}
