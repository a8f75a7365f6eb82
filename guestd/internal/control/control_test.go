//go:build linux

package control

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
)

// A port whose host is gone gives io.EOF to a reader and holds a writer for ever, as the kernel's does.
type deadPort struct {
	net.Conn
	eof    chan struct{}
	closed chan struct{}
}

func (p *deadPort) Read(b []byte) (int, error) {
	select {
	case <-p.eof:
		return 0, io.EOF
	default:
	}
	n, err := p.Conn.Read(b)
	if err != nil {
		err = io.EOF
	}
	return n, err
}

func (p *deadPort) Write(b []byte) (int, error) {
	select {
	case <-p.eof:
		<-p.closed
		return 0, net.ErrClosed
	default:
		return p.Conn.Write(b)
	}
}

func (p *deadPort) Close() error { close(p.closed); return p.Conn.Close() }

// The guest must stop its engine when its host dies: nothing that it still wants to say may hold it.
func TestAHostThatIsGoneHoldsNobody(t *testing.T) {
	host, end := net.Pipe()
	port := &deadPort{Conn: end, eof: make(chan struct{}), closed: make(chan struct{})}
	hello := make(chan protocol.Hello, 1)
	s := &Session{Hello: func(h protocol.Hello) { hello <- h }}
	s.Tell(protocol.Message{Stopping: &protocol.Stopping{Reason: "told early"}})
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), port) }()
	go protocol.NewWriter(host).Write(protocol.Message{Hello: &protocol.Hello{Version: protocol.Version, Nonce: "n"}})
	in := protocol.NewReader(host)
	if m, err := in.Read(); err != nil || m.Welcome == nil || m.Welcome.Nonce != "n" {
		t.Fatalf("first word = %+v, %v; want a welcome", m, err)
	}
	if m, err := in.Read(); err != nil || m.Stopping == nil {
		t.Fatalf("second word = %+v, %v; want what was told early", m, err)
	}
	<-hello
	close(port.eof)
	host.Close()
	told := make(chan struct{})
	go func() { s.Tell(protocol.Message{Pong: &protocol.Pong{}}); close(told) }()
	select {
	case err := <-served:
		if !errors.Is(err, ErrHostGone) {
			t.Errorf("Serve = %v; want ErrHostGone", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Serve does not end")
	}
	select {
	case <-told:
	case <-time.After(time.Minute):
		t.Fatal("Tell to a host that is gone does not return")
	}
}

// The same when it goes in the middle of our first words.
func TestAHostThatGoesRightAfterTheWelcomeHoldsNobody(t *testing.T) {
	host, end := net.Pipe()
	port := &deadPort{Conn: end, eof: make(chan struct{}), closed: make(chan struct{})}
	s := &Session{Hello: func(protocol.Hello) {}}
	for _, name := range []string{"one", "two", "three"} {
		s.Tell(protocol.Message{Step: &protocol.Step{Name: name}})
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), port) }()
	go protocol.NewWriter(host).Write(protocol.Message{Hello: &protocol.Hello{Version: protocol.Version, Nonce: "n"}})
	if m, err := protocol.NewReader(host).Read(); err != nil || m.Welcome == nil {
		t.Fatalf("first word = %+v, %v; want a welcome", m, err)
	}
	// Nobody reads the rest: the write of "one" is held, in the pipe or by the port.
	close(port.eof)
	end.SetReadDeadline(time.Unix(1, 0)) // the reader looks again, and sees the end
	select {
	case err := <-served:
		if !errors.Is(err, ErrHostGone) {
			t.Errorf("Serve = %v; want ErrHostGone", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Serve does not end: a write to a host that is gone holds the reader")
	}
}
