package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/covedesk/cove/proxy"
)

// Handler serves one authenticated connection and closes it.
type Handler func(conn proxy.Conn)

// Listener accepts raw connections of a link.
type Listener interface {
	Accept() (proxy.Conn, error)
	Close() error
}

const (
	// handshakePatience is how long a caller has to prove itself.
	handshakePatience = 10 * time.Second
	// maxStrangers bounds the connections that have not proved themselves yet: more than the host
	// ever opens at once, and a bound on what a flood can take.
	maxStrangers = 2048
)

// Server is the guest's side: it lets in whoever knows the secret of this boot, and gives him the
// service he asks for.
type Server struct {
	services map[string]Handler

	mu     sync.Mutex
	secret *Secret
	conns  map[proxy.Conn]struct{} // of this secret

	strangers chan struct{}
}

// NewServer returns a Server for the services. Until SetSecret it lets nobody in.
func NewServer(services map[string]Handler) *Server {
	return &Server{services: services, conns: map[proxy.Conn]struct{}{}, strangers: make(chan struct{}, maxStrangers)}
}

// SetSecret begins a session: connections of an older secret are closed, and it is refused from now on.
func (s *Server) SetSecret(secret Secret) {
	s.mu.Lock()
	old := s.conns
	s.secret, s.conns = &secret, map[proxy.Conn]struct{}{}
	s.mu.Unlock()
	for c := range old {
		c.Close()
	}
}

// Serve accepts until the context ends or the listener fails for good, then waits for its connections.
func (s *Server) Serve(ctx context.Context, l Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// Out of descriptors or memory: let what is open end first.
			slog.Warn("accept", "err", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case s.strangers <- struct{}{}:
			wg.Go(func() { s.admit(ctx, conn) })
		default:
			conn.Close()
		}
	}
}

func (s *Server) admit(ctx context.Context, conn proxy.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer func() {
		// One connection's fault must not take down the process: in the guest it is the first one.
		if p := recover(); p != nil {
			slog.Error("service failed", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	known := false
	defer func() {
		if !known {
			<-s.strangers
		}
	}()
	secret := s.current()
	if secret == nil {
		return
	}
	conn.SetDeadline(time.Now().Add(handshakePatience))
	name, err := challenge(conn, *secret)
	if err != nil {
		return
	}
	conn.SetDeadline(time.Time{})
	<-s.strangers
	known = true
	if !s.enter(conn, secret) {
		return
	}
	defer s.leave(conn)
	if name == laterService {
		if name, err = laterName(conn); err != nil {
			return
		}
	}
	name, argument, _ := strings.Cut(name, "/")
	handler := s.services[name]
	if handler == nil {
		refuse(conn, "there is no such service")
		return
	}
	handler(&pending{Conn: conn, argument: argument})
}

// pending answers the handshake when the handler first writes, reads, or refuses.
type pending struct {
	proxy.Conn
	argument string
	once     sync.Once
	err      error
}

// Argument is what the caller asked for after the service's name and a slash: "x/y" for "name/x/y".
func Argument(conn proxy.Conn) string {
	if p, ok := conn.(*pending); ok {
		return p.argument
	}
	return ""
}

// Refuse tells the caller why he does not get the service. It is for a Handler, before anything else.
func Refuse(conn proxy.Conn, why string) {
	if p, ok := conn.(*pending); ok {
		p.once.Do(func() { p.err = refuse(p.Conn, why) })
	}
	conn.Close()
}

func (p *pending) accept() error {
	p.once.Do(func() { _, p.err = p.Conn.Write([]byte{0}) })
	return p.err
}

// Accept tells the caller that he has the service. Reading and writing do it by themselves.
func Accept(conn proxy.Conn) error {
	if p, ok := conn.(*pending); ok {
		return p.accept()
	}
	return nil
}

func (p *pending) Read(b []byte) (int, error) {
	if err := p.accept(); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}

func (p *pending) Write(b []byte) (int, error) {
	if err := p.accept(); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

func (p *pending) CloseWrite() error {
	if err := p.accept(); err != nil {
		return err
	}
	return p.Conn.CloseWrite()
}

func (s *Server) current() *Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.secret
}

// enter takes the connection into the session, unless that ended during the handshake.
func (s *Server) enter(conn proxy.Conn, secret *Secret) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.secret != secret {
		return false
	}
	s.conns[conn] = struct{}{}
	return true
}

func (s *Server) leave(conn proxy.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}
