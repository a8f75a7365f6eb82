// Package proxytest is the contract of proxy.Conn as a test suite. Every way to the guest runs it, so
// that `docker run -i` ends its input over all of them alike.
package proxytest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy"
)

// patience bounds every wait. It is for a machine under load; nothing here takes a second on a quiet one.
const patience = 2 * time.Minute

// Peer is the other side of a connection that was opened.
type Peer = proxy.Conn

// Run runs the suite. open makes a connection and gives both its ends; it is called from many goroutines.
func Run(t *testing.T, open func(ctx context.Context) (proxy.Conn, Peer, error)) {
	pair := func(t *testing.T) (proxy.Conn, Peer) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		a, b, err := open(ctx)
		if err != nil {
			t.Fatal("open:", err)
		}
		t.Cleanup(func() { a.Close(); b.Close() })
		a.SetDeadline(time.Now().Add(patience))
		b.SetDeadline(time.Now().Add(patience))
		return a, b
	}
	ways := func(t *testing.T, f func(t *testing.T, from, to proxy.Conn)) {
		a, b := pair(t)
		t.Run("host to guest", func(t *testing.T) { f(t, a, b) })
		a, b = pair(t)
		t.Run("guest to host", func(t *testing.T) { f(t, b, a) })
	}

	t.Run("what is written arrives, and an answer comes back after a half-close", func(t *testing.T) {
		ways(t, func(t *testing.T, from, to proxy.Conn) {
			sent := make([]byte, 1<<20+7)
			rand.Read(sent)
			go func() { from.Write(sent); from.CloseWrite() }()
			got, err := io.ReadAll(to)
			if err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("read %d bytes, %v; want the %d that were written", len(got), err, len(sent))
			}
			go func() { to.Write(sent[:99999]); to.CloseWrite() }()
			got, err = io.ReadAll(from)
			if err != nil || !bytes.Equal(got, sent[:99999]) {
				t.Fatalf("the answer has %d bytes, %v; want 99999", len(got), err)
			}
		})
	})
	t.Run("both directions at once", func(t *testing.T) {
		a, b := pair(t)
		const n = 4 << 20
		var wg sync.WaitGroup
		for _, c := range []proxy.Conn{a, b} {
			wg.Go(func() {
				if _, err := c.Write(make([]byte, n)); err != nil {
					t.Error("write:", err)
				}
				c.CloseWrite()
			})
			wg.Go(func() {
				if got, err := io.Copy(io.Discard, struct{ io.Reader }{c}); got != n || err != nil {
					t.Errorf("read %d bytes, %v; want %d", got, err, n)
				}
			})
		}
		wg.Wait()
	})
	t.Run("a close is seen by a peer that reads and by one that writes", func(t *testing.T) {
		ways(t, func(t *testing.T, from, to proxy.Conn) {
			from.Close()
			io.Copy(io.Discard, struct{ io.Reader }{to}) // must end
			b := make([]byte, 64<<10)
			for end := time.Now().Add(patience); ; {
				if _, err := to.Write(b); err != nil {
					if errors.Is(err, os.ErrDeadlineExceeded) {
						t.Error("a write to a closed peer hangs")
					}
					return
				}
				if time.Now().After(end) {
					t.Fatal("writes to a closed peer go on and on")
				}
			}
		})
	})
	t.Run("a slow reader gets everything, and the writer waits for him", func(t *testing.T) {
		ways(t, func(t *testing.T, from, to proxy.Conn) {
			const n = 8 << 20
			wrote := make(chan error, 1)
			go func() {
				_, err := from.Write(make([]byte, n))
				from.CloseWrite()
				wrote <- err
			}()
			got, piece := 0, make([]byte, 3000)
			for {
				m, err := to.Read(piece)
				got += m
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := <-wrote; got != n || err != nil {
				t.Errorf("read %d bytes, write gave %v; want %d", got, err, n)
			}
		})
	})
	t.Run("a reader that does not read stops nobody else", func(t *testing.T) {
		stuck, lazy := pair(t)
		go stuck.Write(make([]byte, 64<<20)) // ends when the test closes it
		a, b := pair(t)
		go func() { a.Write([]byte("passes")); a.CloseWrite() }()
		if got, err := io.ReadAll(b); string(got) != "passes" || err != nil {
			t.Errorf("read %q, %v; want passes", got, err)
		}
		lazy.Close()
	})
	t.Run("a deadline ends a read and a later one lets it go on", func(t *testing.T) {
		a, b := pair(t)
		b.SetReadDeadline(time.Now().Add(-time.Second))
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read after the deadline = %v; want os.ErrDeadlineExceeded", err)
		}
		b.SetReadDeadline(time.Now().Add(patience))
		go a.Write([]byte("x"))
		if _, err := io.ReadFull(b, make([]byte, 1)); err != nil {
			t.Error("Read with a new deadline:", err)
		}
	})
	t.Run("closing twice and half-closing twice is no harm", func(t *testing.T) {
		a, b := pair(t)
		a.CloseWrite()
		a.CloseWrite()
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("Read after the peer's CloseWrite = %v; want io.EOF", err)
		}
		a.Close()
		a.Close()
	})
	t.Run("a thousand at once", func(t *testing.T) {
		var wg sync.WaitGroup
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for i := range 1000 {
			wg.Go(func() {
				a, b, err := open(ctx)
				if err != nil {
					t.Error("open:", err)
					return
				}
				defer a.Close()
				defer b.Close()
				a.SetDeadline(time.Now().Add(patience))
				b.SetDeadline(time.Now().Add(patience))
				want := fmt.Sprint("number ", i)
				go func() { a.Write([]byte(want)); a.CloseWrite() }()
				if got, err := io.ReadAll(b); string(got) != want || err != nil {
					t.Errorf("read %q, %v; want %q", got, err, want)
				}
			})
		}
		wg.Wait()
	})
}
