package qemu

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// guardName is the guard's argv[0], by which it knows itself in process lists and in main.
const guardName = "cove-qemu-guard"

// Descriptors that the guard inherits.
const (
	guardOwner   = 3 // the reading end of a pipe whose other end the owner has
	guardMachine = 4 // QEMU's pidfd
)

// Guard is the main of the guard and returns false in any other process: call it first in every
// program that starts machines. The guard is a second process of this program that outlives it, however
// it dies, to end a QEMU whose guest does not switch itself off in [Grace].
func Guard() bool {
	if len(os.Args) == 0 || os.Args[0] != guardName {
		return false
	}
	owner := []unix.PollFd{{Fd: guardOwner, Events: unix.POLLIN}, {Fd: guardMachine, Events: unix.POLLIN}}
	wait(owner, -1)
	if owner[1].Revents != 0 {
		return true // the machine ended first
	}
	machine := owner[1:]
	wait(machine, Grace)
	if machine[0].Revents == 0 {
		unix.PidfdSendSignal(guardMachine, unix.SIGKILL, nil, 0)
	}
	return true
}

// wait polls until one of the descriptors has something or the time is over; negative means for ever.
func wait(fds []unix.PollFd, d time.Duration) {
	end := time.Now().Add(d)
	for {
		ms := -1
		if d >= 0 {
			ms = max(0, int(time.Until(end).Milliseconds()))
		}
		if n, err := unix.Poll(fds, ms); n > 0 || err == nil || err != unix.EINTR {
			return
		}
	}
}

// guard starts the guard of a process. Closing the answer after the process ended ends the guard.
func guard(pid int) (io.Closer, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("guard qemu: %w", err)
	}
	machine := os.NewFile(uintptr(fd), "pidfd")
	defer machine.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("guard qemu: %w", err)
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{guardName}
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=off"}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{r, machine}
	cmd.SysProcAttr = detached() // a Ctrl-C at the terminal is for the owner
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, fmt.Errorf("guard qemu: %w", err)
	}
	return &guardian{w, cmd}, nil
}

type guardian struct {
	w   *os.File
	cmd *exec.Cmd
}

func (g *guardian) Close() error {
	g.w.Close()
	return g.cmd.Wait()
}
