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
	"net"
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
	t.Run("what was written before a close arrives, at a slow reader too", func(t *testing.T) {
		ways(t, func(t *testing.T, from, to proxy.Conn) {
			sent := make([]byte, 3<<20+1)
			rand.Read(sent)
			wrote := make(chan error, 1)
			go func() {
				_, err := from.Write(sent)
				from.Close()
				wrote <- err
			}()
			var got bytes.Buffer
			_, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{to}, make([]byte, 5000))
			if werr := <-wrote; err != nil || werr != nil || !bytes.Equal(got.Bytes(), sent) {
				t.Errorf("read %d bytes, %v, after Write = %v; want the %d that were written before Close", got.Len(), err, werr, len(sent))
			}
		})
	})
	t.Run("the last words of one who closes without listening arrive", func(t *testing.T) {
		ways(t, func(t *testing.T, from, to proxy.Conn) {
			if _, err := to.Write([]byte("never read")); err != nil {
				t.Fatal("Write:", err)
			}
			if _, err := from.Write([]byte("last words")); err != nil {
				t.Fatal("Write:", err)
			}
			from.Close()
			// Whether an end or an abort comes after them is the system's business.
			if got, err := io.ReadAll(to); string(got) != "last words" {
				t.Errorf("read %q, %v; want the last words", got, err)
			}
		})
	})
	t.Run("a writer to one who gave up reading is not held, and still gets the answer", func(t *testing.T) {
		ways(t, func(t *testing.T, from, to proxy.Conn) {
			if err := to.CloseRead(); err != nil {
				t.Fatal("CloseRead:", err)
			}
			if _, err := from.Write(make([]byte, 32<<20)); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("Write to one who gave up reading hangs; want it to end, well or with an error")
			}
			if _, err := to.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Read after one's own CloseRead = %v; want an end", err)
			}
			if _, err := to.Write([]byte("answer")); err != nil {
				t.Fatal("Write after CloseRead:", err)
			}
			to.CloseWrite()
			if got, err := io.ReadAll(from); string(got) != "answer" {
				t.Errorf("read %q, %v; want the answer", got, err)
			}
		})
	})
	t.Run("several may write at once, and no byte is lost", func(t *testing.T) {
		ways(t, func(t *testing.T, from, to proxy.Conn) {
			const writers, each = 8, 1 << 20
			var wg sync.WaitGroup
			for i := range writers {
				wg.Go(func() {
					if _, err := from.Write(bytes.Repeat([]byte{byte(i)}, each)); err != nil {
						t.Error("Write:", err)
					}
				})
			}
			ended := make(chan struct{})
			go func() { defer close(ended); wg.Wait(); from.CloseWrite() }()
			got, err := io.ReadAll(to)
			if err != nil {
				t.Error("Read:", err)
				from.Close()
			}
			<-ended
			for i := range writers {
				if n := bytes.Count(got, []byte{byte(i)}); n != each {
					t.Errorf("%d bytes of writer %d came; want %d", n, i, each)
				}
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
	t.Run("a deadline ends a write that nobody reads, and what it counts has arrived", func(t *testing.T) {
		ways(t, func(t *testing.T, from, to proxy.Conn) {
			from.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
			n, err := from.Write(make([]byte, 64<<20))
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("Write that nobody reads = %d, %v; want os.ErrDeadlineExceeded", n, err)
			}
			from.SetWriteDeadline(time.Now().Add(patience))
			more := make(chan error, 1)
			go func() {
				_, err := from.Write([]byte("more"))
				more <- errors.Join(err, from.CloseWrite())
			}()
			if got, err := io.Copy(io.Discard, struct{ io.Reader }{to}); got != int64(n+4) || err != nil {
				t.Errorf("read %d bytes, %v; want the %d that Write counted and 4 more", got, err, n)
			}
			from.SetWriteDeadline(time.Now().Add(-time.Second)) // nothing is left to wait for
			if err := <-more; err != nil {
				t.Error("Write and CloseWrite with a new deadline:", err)
			}
		})
	})
	t.Run("deadlines between reads lose no byte and hold nobody", func(t *testing.T) {
		ways(t, func(t *testing.T, from, to proxy.Conn) {
			const n = 24 << 20
			go func() { from.Write(make([]byte, n)); from.CloseWrite() }()
			got, piece := 0, make([]byte, 100_000)
			for {
				to.SetReadDeadline(time.Now().Add(-time.Second))
				m, err := to.Read(piece)
				got += m
				if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) && err != io.EOF {
					t.Fatalf("Read after its deadline = %d, %v; want os.ErrDeadlineExceeded", m, err)
				}
				to.SetReadDeadline(time.Now().Add(patience))
				m, err = to.Read(piece)
				got += m
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatalf("Read after %d of %d bytes: %v", got, n, err)
				}
			}
			if got != n {
				t.Errorf("read %d bytes; want %d", got, n)
			}
		})
	})
	t.Run("one's own close ends what waits", func(t *testing.T) {
		ways(t, func(t *testing.T, from, _ proxy.Conn) {
			ended := make(chan error, 2)
			go func() { _, err := from.Read(make([]byte, 1)); ended <- err }()
			go func() { _, err := from.Write(make([]byte, 64<<20)); ended <- err }()
			from.Close()
			for range 2 {
				if err := <-ended; !errors.Is(err, net.ErrClosed) {
					t.Errorf("what waited when its own side closed = %v; want net.ErrClosed", err)
				}
			}
			if _, err := from.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Read after Close = %v; want net.ErrClosed", err)
			}
			if _, err := from.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Write after Close = %v; want net.ErrClosed", err)
			}
		})
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
