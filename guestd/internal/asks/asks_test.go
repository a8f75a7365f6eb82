//go:build linux

package asks

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
)

// host is the other end of a session.
type host struct {
	t    *testing.T
	conn *net.UnixConn
	in   *protocol.Reader
	out  *protocol.Writer
}

// session opens one and answers its first ask, which lists what is held.
func open(t *testing.T, a *Asks) (*host, protocol.Held) {
	t.Helper()
	h := connect(t, a)
	first := h.next()
	if first.Held == nil {
		t.Fatalf("the first ask is %+v; want what is held", first)
	}
	h.answer(first, nil)
	return h, *first.Held
}

func connect(t *testing.T, a *Asks) *host {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: t.TempDir() + "/s", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var guest *net.UnixConn
	var wg sync.WaitGroup
	wg.Go(func() { guest, _ = l.AcceptUnix() })
	conn, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	wg.Wait()
	if err != nil || guest == nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); a.Serve(proxy.Conn(guest)) }()
	t.Cleanup(func() { conn.Close(); <-done })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return &host{t, conn, protocol.NewReader(conn), protocol.NewWriter(conn)}
}

func (h *host) next() protocol.Ask {
	h.t.Helper()
	m, err := h.in.Read()
	if err != nil || m.Ask == nil {
		h.t.Fatalf("read an ask: %+v, %v", m, err)
	}
	return *m.Ask
}

func (h *host) answer(a protocol.Ask, e *protocol.AskError) {
	h.t.Helper()
	if err := h.out.Write(protocol.Message{Answer: &protocol.Answer{ID: a.ID, Error: e}}); err != nil {
		h.t.Fatal(err)
	}
}

func ask(a *Asks, key string) <-chan error {
	c := make(chan error, 1)
	go func() { c <- a.Ask(context.Background(), protocol.Ask{Bind: &protocol.Bind{Key: key}}) }()
	return c
}

func TestAnswersFindTheirAsksInAnyOrder(t *testing.T) {
	a := &Asks{Held: func() []protocol.Bind { return nil }}
	h, _ := open(t, a)
	first, second := ask(a, "one"), ask(a, "two")
	asked := map[string]protocol.Ask{}
	for range 2 {
		q := h.next()
		asked[q.Bind.Key] = q
	}
	h.answer(asked["two"], &protocol.AskError{Kind: protocol.AskInUse, Text: "taken"})
	var refused *protocol.AskError
	if err := <-second; !errors.As(err, &refused) || refused.Kind != protocol.AskInUse {
		t.Errorf("the refused ask gave %v; want in-use", err)
	}
	h.answer(asked["one"], nil)
	if err := <-first; err != nil {
		t.Errorf("the granted ask gave %v", err)
	}
}

func TestAnAskOutlivesItsSession(t *testing.T) {
	held := []protocol.Bind{{Key: "kept"}}
	a := &Asks{Held: func() []protocol.Bind { return held }}
	waiting := ask(a, "new") // before any host is there
	h, list := open(t, a)
	if len(list.Binds) != 1 || list.Binds[0].Key != "kept" {
		t.Errorf("held %+v; want the one that is kept", list)
	}
	h.next()
	h.conn.Close() // the host dies before it answers
	h, _ = open(t, a)
	h.answer(h.next(), nil)
	if err := <-waiting; err != nil {
		t.Errorf("the ask gave %v; want the second host's yes", err)
	}
}

func TestALongListComesInPieces(t *testing.T) {
	a := &Asks{Held: func() []protocol.Bind { return make([]protocol.Bind, 2*protocol.MaxHeld+1) }}
	h := connect(t, a)
	total := 0
	for more := true; more; {
		q := h.next()
		total, more = total+len(q.Held.Binds), q.Held.More
		h.answer(q, nil)
	}
	if total != 2*protocol.MaxHeld+1 {
		t.Errorf("%d bindings came; want all", total)
	}
	answered := ask(a, "one")
	h.answer(h.next(), nil)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestNothingIsAskedBeforeTheHostHoldsWhatItIsToHold(t *testing.T) {
	a := &Asks{Held: func() []protocol.Bind { return nil }}
	waiting := ask(a, "one")
	h := connect(t, a)
	first := h.next()
	if first.Held == nil {
		t.Fatalf("the first ask is %+v", first)
	}
	h.answer(first, nil)
	h.answer(h.next(), nil)
	if err := <-waiting; err != nil {
		t.Error(err)
	}
}

func TestANewSessionEndsTheOlder(t *testing.T) {
	a := &Asks{Held: func() []protocol.Bind { return nil }}
	old, _ := open(t, a)
	fresh, _ := open(t, a)
	if _, err := old.in.Read(); err == nil {
		t.Error("the older session goes on")
	}
	answered := ask(a, "one")
	fresh.answer(fresh.next(), nil)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestAnAskThatIsGivenUpEnds(t *testing.T) {
	a := &Asks{Held: func() []protocol.Bind { return nil }}
	h, _ := open(t, a)
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Ask(ctx, protocol.Ask{Release: &protocol.Release{Key: "x"}}) }()
	q := h.next()
	why := errors.New("enough")
	cancel(why)
	if err := <-done; err != why {
		t.Errorf("Ask gave %v; want the cause", err)
	}
	h.answer(q, nil) // to nobody
	answered := ask(a, "next")
	h.answer(h.next(), nil)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}
