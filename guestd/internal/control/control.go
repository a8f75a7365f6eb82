//go:build linux

// Package control is the guest's end of the control port: it hears what the host wants, tells it how
// the guest is, and says when the host is gone. What is told before the host has said hello is kept
// and told then.
package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"golang.org/x/sys/unix"
)

// portPatience is how long a port may take to show up.
const portPatience = 20 * time.Second

// OpenPort opens a virtio-serial port by its name, for root alone.
func OpenPort(ctx context.Context, name string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, portPatience)
	defer cancel()
	for {
		files, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(b)) == name {
				dev := "/dev/" + filepath.Base(filepath.Dir(f))
				os.Chmod(dev, 0o600)
				return os.OpenFile(dev, os.O_RDWR, 0)
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no virtio-serial port named %q", name)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// ErrHostGone says that the host has closed the control port.
var ErrHostGone = errors.New("host is gone")

// Session is the talk with the host.
type Session struct {
	// Hello is called for every hello that speaks our version: the first one starts the guest, a later
	// one brings a new secret.
	Hello func(protocol.Hello)
	// SetClock and Shutdown are called as the host asks.
	SetClock func(by time.Duration)
	Shutdown func()
	// Sync writes to the disk what is not there yet, before the machine is saved or paused, and gives up what is
	// kept of files if it is to forget that.
	Sync func(forget bool)

	mu      sync.Mutex
	out     *protocol.Writer   // nil until the host said hello
	waiting []protocol.Message // to be written, in order
	writing bool               // one goroutine writes what waits
	gone    bool               // the host
	hellos  int                // so far
}

// Tell tells the host, now or after its hello, and never waits: a write to a port whose host is gone
// waits for ever (kernel, virtio_console), and who tells must go on.
func (s *Session) Tell(m protocol.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	s.waiting = append(s.waiting, m)
	s.writeLocked()
}

// writeLocked sees to it that somebody writes what waits.
func (s *Session) writeLocked() {
	if s.out == nil || s.writing {
		return
	}
	s.writing = true
	go func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for len(s.waiting) > 0 && s.out != nil {
			m, out := s.waiting[0], s.out
			s.waiting = s.waiting[1:]
			if m.Asleep != nil {
				s.out = nil
			}
			s.mu.Unlock()
			out.Write(m) // a host that is gone is noticed by the reader
			s.mu.Lock()
		}
		s.writing = false
	}()
}

// sleep says the last word before a save, unless another hello has come since the given one.
func (s *Session) sleep(hellos int, forget bool) {
	s.Sync(forget)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hellos == hellos {
		s.waiting = append(s.waiting, protocol.Message{Asleep: &protocol.Asleep{}})
		s.writeLocked()
	}
}

// Flush waits until what was told is written, or until patience is over: a machine that switches itself
// off has its last word heard.
func (s *Session) Flush(patience time.Duration) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		done := s.gone || s.out == nil || !s.writing
		s.mu.Unlock()
		if done {
			return
		}
	}
}

// Serve hears the host until it is gone, and returns ErrHostGone then.
func (s *Session) Serve(ctx context.Context, port io.ReadWriteCloser) error {
	stop := context.AfterFunc(ctx, func() { port.Close() })
	defer stop()
	in := protocol.NewReader(port)
	greeted := false
	for {
		m, err := in.Read()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF) && !greeted:
			// Nobody is at the other end yet: a read then gives nothing (kernel, virtio_console).
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
			continue
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			s.leave(port)
			return ErrHostGone
		case err != nil:
			return fmt.Errorf("control port: %w", err)
		}
		switch {
		case m.Hello != nil:
			greeted = s.welcome(port, *m.Hello) || greeted
		case m.SetClock != nil:
			s.SetClock(m.SetClock.By)
		case m.Shutdown != nil:
			s.Shutdown()
		case m.Sleep != nil:
			s.mu.Lock()
			hellos := s.hellos
			s.mu.Unlock()
			go s.sleep(hellos, m.Sleep.Forget)
		case m.Ping != nil:
			s.Tell(protocol.Message{Pong: &protocol.Pong{ID: m.Ping.ID, Time: time.Now()}})
		}
	}
}

// leave says no more to a host that is gone. The port is closed first, which ends a write that waits.
func (s *Session) leave(port io.Closer) {
	port.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone, s.waiting = true, nil
}

// welcome answers a hello, before all that waits.
func (s *Session) welcome(port io.Writer, h protocol.Hello) bool {
	ours := h.Version == protocol.Version
	if ours {
		s.Hello(h) // who is welcome may dial at once
	}
	answer := protocol.Message{Welcome: &protocol.Welcome{Version: protocol.Version, Nonce: h.Nonce, Kernel: kernelRelease(), Arch: runtime.GOARCH}}
	s.mu.Lock()
	s.hellos++
	s.waiting = slices.DeleteFunc(s.waiting, func(m protocol.Message) bool { return m.Asleep != nil }) // called off
	if s.out == nil {
		s.out = protocol.NewWriter(port)
	}
	if !ours {
		s.waiting = nil // it would not understand
	}
	s.waiting = append([]protocol.Message{answer}, s.waiting...)
	s.writeLocked()
	s.mu.Unlock()
	return ours
}

func kernelRelease() string {
	var u unix.Utsname
	unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:])
}
