//go:build linux

// Package asks is the guest's end of what it asks of the host: a port to listen on, a way to the user's
// ssh agent. The host opens the session, since only the host dials; an ask waits for one, and is asked
// again when the session ends before the answer came.
package asks

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
)

// Asks is the guest's end. The zero value with Held set is ready.
type Asks struct {
	// Held lists the bindings that the host is to have, told at the start of every session. It is called
	// with no session open, so what is bound after it is asked in the session.
	Held func() []protocol.Bind

	mu      sync.Mutex
	last    uint64        // the newest ask's ID
	newest  *session      // nil: the host is away
	session *session      // the newest, once the host holds what it is to hold
	opened  chan struct{} // closed when a session opens; nil when nobody waits
}

// session is one connection of the host's.
type session struct {
	conn    proxy.Conn
	out     *protocol.Writer
	over    chan struct{}
	mu      sync.Mutex
	waiting map[uint64]chan *protocol.AskError
}

// Ask asks the host and waits for its answer. A refusal is a *protocol.AskError; the context's end is its
// cause. The ask's ID is set here.
func (a *Asks) Ask(ctx context.Context, ask protocol.Ask) error {
	for {
		s, opened := a.current()
		if s == nil {
			select {
			case <-opened:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		answered, err := a.in(ctx, s, ask)
		if answered {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

func (a *Asks) current() (*session, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.session == nil && a.opened == nil {
		a.opened = make(chan struct{})
	}
	return a.session, a.opened
}

// in asks in one session, and says whether the host answered.
func (a *Asks) in(ctx context.Context, s *session, ask protocol.Ask) (answered bool, err error) {
	a.mu.Lock()
	a.last++
	ask.ID = a.last
	a.mu.Unlock()
	answer := make(chan *protocol.AskError, 1)
	s.mu.Lock()
	s.waiting[ask.ID] = answer
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, ask.ID)
		s.mu.Unlock()
	}()
	if err := s.out.Write(protocol.Message{Ask: &ask}); err != nil {
		s.conn.Close() // its reader ends the session
		<-s.over
		return false, nil
	}
	select {
	case refused := <-answer:
		if refused != nil {
			return true, refused
		}
		return true, nil
	case <-s.over:
		return false, nil
	case <-ctx.Done():
		return false, nil
	}
}

// Serve is the handler of protocol.ServiceAsks: it runs a session, which ends the one before it.
func (a *Asks) Serve(conn proxy.Conn) {
	if transport.Accept(conn) != nil {
		return
	}
	s := &session{conn: conn, out: protocol.NewWriter(conn), over: make(chan struct{}), waiting: map[uint64]chan *protocol.AskError{}}
	a.mu.Lock()
	older := a.newest
	a.newest, a.session = s, nil
	a.mu.Unlock()
	if older != nil {
		older.conn.Close()
		<-older.over
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if a.tellHeld(s) {
			a.open(s)
		}
	})
	err := s.read()
	slog.Info("asks session ended", "err", err)
	conn.Close()
	a.close(s)
	wg.Wait()
}

// tellHeld tells the host what it is to hold, and says whether the session still lives then.
func (a *Asks) tellHeld(s *session) bool {
	left := a.Held()
	for {
		now := left[:min(len(left), protocol.MaxHeld)]
		left = left[len(now):]
		answered, err := a.in(context.Background(), s, protocol.Ask{Held: &protocol.Held{Binds: now, More: len(left) > 0}})
		if err != nil {
			slog.Warn("the host does not hold every port", "err", err)
		}
		if !answered || len(left) == 0 {
			return answered
		}
	}
}

// open lets those in who wait, unless the session is over or a newer one came.
func (a *Asks) open(s *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.newest != s {
		return
	}
	a.session = s
	if a.opened != nil {
		close(a.opened)
		a.opened = nil
	}
}

// close ends the session for those who wait for an answer in it.
func (a *Asks) close(s *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.newest == s {
		a.newest, a.session = nil, nil
	}
	close(s.over)
}

// read hands answers out until the host is gone.
func (s *session) read() error {
	in := protocol.NewReader(s.conn)
	for {
		m, err := in.Read()
		if err != nil {
			return err
		}
		if m.Answer == nil {
			return errors.New("the host said something else than an answer")
		}
		s.mu.Lock()
		answer := s.waiting[m.Answer.ID]
		s.mu.Unlock()
		if answer != nil {
			select {
			case answer <- m.Answer.Error:
			default: // a second answer to one ask
			}
		}
	}
}
