//go:build linux

// Package supervise keeps the guest's services running: it starts them, keeps what they say, starts
// them again with growing pauses when they end, and gives up after a bound, saying why.
package supervise

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/covedesk/cove/guestd/internal/logs"
	"github.com/covedesk/cove/guestd/internal/reap"
	"golang.org/x/sys/unix"
)

const (
	firstPause = 500 * time.Millisecond
	maxPause   = 10 * time.Second
	// A service that ended so often within the window is given up: it will not get better by itself.
	maxEnds = 5
	window  = 2 * time.Minute
)

// State is where a service is in its life; the words are guestd/protocol's.
type State string

const (
	Starting State = "starting"
	Running  State = "running"
	Backoff  State = "backoff"
	Failed   State = "failed"
	Stopped  State = "stopped"
)

// Change is what a service's watcher is told.
type Change struct {
	Name     string
	State    State
	Restarts int
	Detail   string
}

// Service is one program that is to run all the time.
type Service struct {
	Name   string
	Args   []string // the program and its arguments
	Env    []string
	Cgroup string // its folder under /sys/fs/cgroup; empty: this process's own
	Log    *logs.Log
	Reaper *reap.Reaper
	Watch  func(Change) // called in order, from one goroutine at a time
	// StopPatience is how long it has between SIGTERM and SIGKILL.
	StopPatience time.Duration

	mu       sync.Mutex
	pid      int
	restarts int
}

// Run keeps the service running until ctx ends, then stops it and returns nil. An error says that it
// was given up, and why.
func (s *Service) Run(ctx context.Context) error {
	pause := firstPause
	var ends []time.Time
	for {
		s.tell(Starting, "")
		begun := time.Now()
		status, err := s.once(ctx)
		if ctx.Err() != nil {
			s.tell(Stopped, "")
			return nil
		}
		why := status
		if err != nil {
			why = err.Error()
		}
		ends = append(ends, time.Now())
		for time.Since(ends[0]) > window {
			ends = ends[1:]
		}
		if len(ends) >= maxEnds {
			err := fmt.Errorf("%s ended %d times within %s, the last time with %s", s.Name, len(ends), window, why)
			s.tell(Failed, err.Error())
			return err
		}
		if time.Since(begun) > window {
			pause = firstPause
		}
		s.mu.Lock()
		s.restarts++
		s.mu.Unlock()
		s.tell(Backoff, why)
		slog.Warn("service ended", "name", s.Name, "how", why, "again in", pause)
		select {
		case <-ctx.Done():
			s.tell(Stopped, "")
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// once runs the program to its end.
func (s *Service) once(ctx context.Context) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	cmd := exec.Command(s.Args[0], s.Args[1:]...)
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if s.Cgroup != "" {
		dir, err := os.Open(s.Cgroup)
		if err != nil {
			w.Close()
			return "", err
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	done, err := s.Reaper.Start(cmd)
	w.Close()
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	s.pid = cmd.Process.Pid
	s.mu.Unlock()
	s.tell(Running, "")
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		buf := make([]byte, 16<<10)
		for {
			n, err := r.Read(buf)
			s.Log.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	var status unix.WaitStatus
	select {
	case status = <-done:
	case <-ctx.Done():
		status = s.stop(cmd.Process.Pid, done)
	}
	s.mu.Lock()
	s.pid = 0
	s.mu.Unlock()
	// A grandchild may hold the pipe open; what it says then is not this run's.
	select {
	case <-copied:
	case <-time.After(time.Second):
	}
	return reap.Describe(status), nil
}

func (s *Service) stop(pid int, done <-chan unix.WaitStatus) unix.WaitStatus {
	unix.Kill(pid, unix.SIGTERM)
	select {
	case status := <-done:
		return status
	case <-time.After(s.StopPatience):
	}
	slog.Warn("service does not stop; killing it", "name", s.Name)
	unix.Kill(-pid, unix.SIGKILL)
	return <-done
}

// Pid is the running program's, or 0.
func (s *Service) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}

func (s *Service) tell(state State, detail string) {
	s.mu.Lock()
	restarts := s.restarts
	s.mu.Unlock()
	if s.Watch != nil {
		s.Watch(Change{s.Name, state, restarts, detail})
	}
}
