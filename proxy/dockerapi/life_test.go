package dockerapi

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy"
)

// bed is a Waker whose engine the test puts to sleep, with a Front that is served.
type bed struct {
	*Front
	t      *testing.T
	path   string // of the Front's socket
	engine proxy.Dialer

	mu     sync.Mutex
	asleep bool
	wakes  int
	woken  chan struct{}
}

func newBed(t *testing.T, engine proxy.Dialer) *bed {
	b := &bed{t: t, engine: engine}
	b.Front = New(b, GuestPaths, shared{"/srv/shared"}, slog.New(slog.DiscardHandler))
	b.path, _ = serve(t, b.Front)
	return b
}

func (b *bed) Engine(ctx context.Context, active bool) (proxy.Dialer, error) {
	b.mu.Lock()
	asleep := b.asleep
	if asleep && active {
		b.wakes++
	}
	b.mu.Unlock()
	switch {
	case asleep && !active:
		return nil, ErrAsleep
	case asleep:
		b.wake()
	}
	return b.engine, ctx.Err()
}

func (b *bed) Woken(ctx context.Context) error {
	b.mu.Lock()
	asleep, woken := b.asleep, b.woken
	b.mu.Unlock()
	if !asleep {
		return nil
	}
	select {
	case <-woken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drowse is the begin of a sleep.
func (b *bed) drowse() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asleep, b.woken = true, make(chan struct{})
}

func (b *bed) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asleep {
		b.asleep = false
		close(b.woken)
	}
}

func (b *bed) wakeups() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wakes
}

// crlf is a head as it goes over the wire, from one with \n line ends and without its last.
func crlf(head string) string { return strings.ReplaceAll(head, "\n", "\r\n") + "\r\n\r\n" }

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("it never came to this: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestActiveCallsAreUse(t *testing.T) {
	arrived, answer := make(chan struct{}), make(chan struct{})
	b := newBed(t, engine(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-answer
	}))
	if got := b.Activity(); got != (Activity{}) {
		t.Errorf("Activity before the first call = %+v; want none", got)
	}
	for _, row := range []struct {
		head string
		open int
	}{
		{"GET /v1.47/containers/json HTTP/1.1\nHost: d", 0},
		{"GET /_ping HTTP/1.1\nHost: d", 0},
		{"POST /v1.47/containers/c/wait HTTP/1.1\nHost: d\nContent-Length: 0", 1},
		{"GET /v1.47/containers/c/logs?follow=1 HTTP/1.1\nHost: d", 1},
		{"POST /v1.47/containers/c/attach HTTP/1.1\nHost: d\nContent-Length: 0\nConnection: Upgrade\nUpgrade: tcp", 1},
	} {
		before := b.Activity()
		c, r := client(t, b.path)
		done := make(chan struct{})
		go func() { defer close(done); ask(t, c, r, row.head, "") }()
		<-arrived
		if got := b.Activity(); got.Open != row.open || got.Last.After(before.Last) != (row.open > 0) {
			t.Errorf("Activity during %.40q = %+v after %+v; want %d open, and a later Last for it alone", row.head, got, before, row.open)
		}
		answer <- struct{}{}
		<-done
		eventually(t, "the call is over", func() bool { return b.Activity().Open == 0 })
	}
}

func TestACallThatWaitsForTheWakeIsOpen(t *testing.T) {
	let := make(chan struct{})
	d := engine(t, func(http.ResponseWriter, *http.Request) {})
	f := New(waker(func(context.Context, bool) (proxy.Dialer, error) { <-let; return d, nil }), GuestPaths, shared{}, slog.New(slog.DiscardHandler))
	path, _ := serve(t, f)
	c, r := client(t, path)
	io.WriteString(c, "POST /containers/c/start HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
	eventually(t, "the call is open while it waits", func() bool { return f.Activity().Open == 1 })
	close(let)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("the call that waited = %v, %v; want the engine's answer", resp, err)
	}
}

// A held call has its body read, or its client's end would not be seen.
func TestAClientThatGoesAwayWithABodyIsNotWaitedFor(t *testing.T) {
	waiting, ended := make(chan struct{}), make(chan struct{})
	c, _ := client(t, front(t, waker(func(ctx context.Context, _ bool) (proxy.Dialer, error) {
		close(waiting)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	})))
	io.WriteString(c, "POST /networks/create HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{}")
	<-waiting
	c.Close()
	eventually(t, "the call is let go", func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
}

func TestSuspendEndsTheCallsInFlight(t *testing.T) {
	arrived := make(chan struct{}, 1)
	b := newBed(t, rawEngine(t, func(c *net.UnixConn) {
		in := bufio.NewReader(c)
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		switch r.URL.Path {
		case "/exec/e/start":
			io.WriteString(c, upgraded+"hello")
		case "/containers/c/export":
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
		}
		arrived <- struct{}{}
		io.Copy(io.Discard, in)
	}))
	const upgrade = "\nConnection: Upgrade\nUpgrade: tcp"
	for _, row := range []struct {
		says, head, body string
		status           int
		end              error
	}{
		{"an active call without an answer is told", "POST /containers/c/restart HTTP/1.1\nHost: d\nContent-Length: 0", "", 503, nil},
		{"an active GET without an answer is told", "GET /containers/c/top HTTP/1.1\nHost: d", "", 503, nil},
		{"a stream that is none yet is told", "POST /exec/slow/start HTTP/1.1\nHost: d\nContent-Length: 2" + upgrade, "{}", 503, nil},
		{"a stream ends", "POST /exec/e/start HTTP/1.1\nHost: d\nContent-Length: 2" + upgrade, "{}", 101, nil},
		{"an answer that was half given is cut, not ended", "GET /containers/c/export HTTP/1.1\nHost: d", "", 200, io.ErrUnexpectedEOF},
	} {
		t.Run(row.says, func(t *testing.T) {
			c, r := client(t, b.path)
			if _, err := io.WriteString(c, crlf(row.head)+row.body); err != nil {
				t.Fatal(err)
			}
			<-arrived
			got := make(chan *http.Response, 1)
			if row.status != 503 { // its head is here before the engine sleeps
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				got <- resp
			}
			b.Suspend()
			if row.status == 503 {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				got <- resp
			}
			resp := <-got
			if resp.StatusCode != row.status {
				t.Fatalf("%.40q = %s; want %d", row.head, resp.Status, row.status)
			}
			if row.status == 503 {
				if text := message(t, resp); text != errSuspended.Message {
					t.Errorf("%.40q is told %q; want that the engine was suspended", row.head, text)
				}
				return
			}
			var from io.Reader = r
			if row.status == 200 {
				from = resp.Body
			}
			if rest, err := io.ReadAll(from); !errors.Is(err, row.end) {
				t.Errorf("%.40q ends with %q, %v; want %v", row.head, rest, err, row.end)
			}
		})
	}
	eventually(t, "nothing is open", func() bool { return b.Activity().Open == 0 })
}

// A waker may give the way to an engine that goes to sleep before it is used.
func TestACallBetweenEngineAndSuspendWakesIt(t *testing.T) {
	asked := make(chan struct{})
	let := make(chan struct{})
	old := proxy.DialFunc(func(context.Context, string) (proxy.Conn, error) { return nil, errors.New("it is gone") })
	d := engine(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "awake") })
	first := true
	f := New(waker(func(context.Context, bool) (proxy.Dialer, error) {
		if first {
			first = false
			close(asked)
			<-let
			return old, nil
		}
		return d, nil
	}), GuestPaths, shared{}, slog.New(slog.DiscardHandler))
	path, _ := serve(t, f)
	c, r := client(t, path)
	io.WriteString(c, "POST /containers/c/start HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
	<-asked
	f.Suspend()
	close(let)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); string(b) != "awake" {
		t.Errorf("the call = %s %q; want the answer of the engine that woke", resp.Status, b)
	}
}
