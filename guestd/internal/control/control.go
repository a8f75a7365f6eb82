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
	SetClock func(time.Time)
	Shutdown func()

	mu    sync.Mutex
	out   *protocol.Writer // nil until the host said hello
	early []protocol.Message
	gone  bool // the host
}

// Tell tells the host, now or after its hello.
func (s *Session) Tell(m protocol.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	if s.out == nil {
		s.early = append(s.early, m)
		return
	}
	s.out.Write(m) // a host that is gone is noticed by the reader
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
			s.SetClock(m.SetClock.Time)
		case m.Shutdown != nil:
			s.Shutdown()
		case m.Ping != nil:
			s.Tell(protocol.Message{Pong: &protocol.Pong{ID: m.Ping.ID}})
		}
	}
}

// leave says no more to a host that is gone. A write to a port that nobody reads waits for ever
// (kernel, virtio_console), so the port is closed first, which ends one that waits already.
func (s *Session) leave(port io.Closer) {
	port.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone, s.early = true, nil
}

func (s *Session) welcome(port io.Writer, h protocol.Hello) bool {
	s.mu.Lock()
	out := protocol.NewWriter(port)
	out.Write(protocol.Message{Welcome: &protocol.Welcome{Version: protocol.Version, Nonce: h.Nonce, Kernel: kernelRelease(), Arch: runtime.GOARCH}})
	if h.Version != protocol.Version {
		s.mu.Unlock()
		return false
	}
	s.out = out
	for _, m := range s.early {
		out.Write(m)
	}
	s.early = nil
	s.mu.Unlock()
	s.Hello(h)
	return true
}

func kernelRelease() string {
	var u unix.Utsname
	unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:])
}
