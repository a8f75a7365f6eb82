package proxy_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/proxytest"
)

// pair makes a connected pair of unix sockets.
func pair(ctx context.Context) (proxy.Conn, proxy.Conn, error) {
	dir, err := os.MkdirTemp("", "join")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	a, err := new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	b, err := l.Accept()
	if err != nil {
		return nil, nil, errors.Join(err, a.Close())
	}
	return a.(proxy.Conn), b.(proxy.Conn), nil
}

// sockets is a pair for one test.
func sockets(t *testing.T) (proxy.Conn, proxy.Conn) {
	t.Helper()
	a, b, err := pair(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	for _, c := range []net.Conn{a, b} {
		c.SetDeadline(time.Now().Add(2 * time.Minute))
	}
	return a, b
}

// joined is a client and a server with a Join between them.
func joined(t *testing.T) (client, server proxy.Conn, n *proxy.Counters, done chan error) {
	client, a := sockets(t)
	b, server := sockets(t)
	n, done = new(proxy.Counters), make(chan error, 1)
	go func() { done <- proxy.Join(a, b, n) }()
	return client, server, n, done
}

func TestJoinKeepsHalfClose(t *testing.T) {
	client, server, n, done := joined(t)
	question := make([]byte, 5<<20)
	rand.Read(question)
	go func() { client.Write(question); client.CloseWrite() }()
	got, err := io.ReadAll(server)
	if err != nil || !bytes.Equal(got, question) {
		t.Fatalf("the server read %d bytes, %v; want %d", len(got), err, len(question))
	}
	go func() { server.Write([]byte("answer")); server.CloseWrite() }()
	if got, err := io.ReadAll(client); string(got) != "answer" || err != nil {
		t.Errorf("the client read %q, %v; want answer", got, err)
	}
	if err := <-done; err != nil {
		t.Errorf("Join = %v; want nil after two ends", err)
	}
	if a, b := n.AtoB.Load(), n.BtoA.Load(); a != int64(len(question)) || b != 6 {
		t.Errorf("counted %d and %d bytes; want %d and 6", a, b, len(question))
	}
}

// `docker run -i … head -c 5` with a long input: the container ends, and what it wrote must arrive.
func TestJoinGivesTheAnswerToOneWhoStillWrites(t *testing.T) {
	client, server, _, done := joined(t)
	go client.Write(make([]byte, 64<<20)) // nobody reads it all
	io.ReadFull(server, make([]byte, 5))
	server.Write([]byte("12345"))
	server.CloseWrite()
	server.CloseRead()
	got := make([]byte, 5)
	if _, err := io.ReadFull(client, got); err != nil || string(got) != "12345" {
		t.Errorf("the client read %q, %v; want 12345", got, err)
	}
	client.Close()
	<-done
}

func TestJoinEndsBothWhenOneIsGone(t *testing.T) {
	client, server, _, done := joined(t)
	client.Close()
	if _, err := io.Copy(io.Discard, server); err != nil {
		t.Error("the server's read:", err)
	}
	server.Close()
	<-done // must come
}

// Joined streams keep the contract of the streams themselves.
func TestJoinIsTransparent(t *testing.T) {
	proxytest.Run(t, func(ctx context.Context) (proxy.Conn, proxytest.Peer, error) {
		client, a, err := pair(ctx)
		if err != nil {
			return nil, nil, err
		}
		b, server, err := pair(ctx)
		if err != nil {
			return nil, nil, err
		}
		go proxy.Join(a, b, nil) // ends when the suite has closed both ends
		return client, server, nil
	})
}

func TestJoinIsByteExactBothWaysAtOnce(t *testing.T) {
	client, server, n, done := joined(t)
	sent := make([]byte, 16<<20)
	rand.Read(sent)
	var wg sync.WaitGroup
	for name, ends := range map[string][2]proxy.Conn{"client to server": {client, server}, "server to client": {server, client}} {
		wg.Go(func() {
			for at := 0; at < len(sent); at += 70_001 { // across the sizes of Join's buffers
				ends[0].Write(sent[at:min(at+70_001, len(sent))])
			}
			ends[0].CloseWrite()
		})
		wg.Go(func() {
			if got, err := io.ReadAll(ends[1]); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%s: read %d bytes, %v; want the same %d", name, len(got), err, len(sent))
			}
		})
	}
	wg.Wait()
	if err := <-done; err != nil {
		t.Errorf("Join = %v; want nil after two ends", err)
	}
	if a, b := n.AtoB.Load(), n.BtoA.Load(); a != int64(len(sent)) || b != int64(len(sent)) {
		t.Errorf("counted %d and %d bytes; want %d both ways", a, b, len(sent))
	}
}

func TestJoinEnds(t *testing.T) {
	for _, row := range []struct {
		says string
		do   func(client, server proxy.Conn) // both ends are closed after it
		want error                           // nil: Join returns nil
	}{
		{"well when the client ends first", func(client, server proxy.Conn) {
			client.CloseWrite()
			io.Copy(io.Discard, struct{ io.Reader }{server})
			server.CloseWrite()
			io.Copy(io.Discard, struct{ io.Reader }{client})
		}, nil},
		{"well when the server ends first", func(client, server proxy.Conn) {
			server.CloseWrite()
			io.Copy(io.Discard, struct{ io.Reader }{client})
			client.CloseWrite()
			io.Copy(io.Discard, struct{ io.Reader }{server})
		}, nil},
		{"with the cause when the client aborts, and the server sees the end", func(client, server proxy.Conn) {
			server.Write([]byte("never read"))
			io.ReadFull(client, make([]byte, 1)) // so that there is something unread
			client.Close()
			io.Copy(io.Discard, struct{ io.Reader }{server})
		}, syscall.ECONNRESET},
		{"with the cause when the server aborts, and the client sees the end", func(client, server proxy.Conn) {
			client.Write([]byte("never read"))
			io.ReadFull(server, make([]byte, 1))
			server.Close()
			io.Copy(io.Discard, struct{ io.Reader }{client})
		}, syscall.ECONNRESET},
	} {
		t.Run(row.says, func(t *testing.T) {
			client, server, _, done := joined(t)
			row.do(client, server)
			client.Close()
			server.Close()
			if err := <-done; row.want == nil && err != nil || !errors.Is(err, row.want) {
				t.Errorf("Join = %v; want %v", err, row.want)
			}
		})
	}
}

// faulty reads and writes what the test says, and remembers what was done to it.
type faulty struct {
	proxy.Conn // nil: anything else panics
	io.Reader
	io.Writer
	closed, readShut, writeShut atomic.Bool
	wake                        chan struct{} // closed with it
	once                        sync.Once
}

func newFaulty(r io.Reader, w io.Writer) *faulty {
	return &faulty{Reader: r, Writer: w, wake: make(chan struct{})}
}

func (f *faulty) Read(b []byte) (int, error) {
	if f.Reader == nil {
		<-f.wake
		return 0, net.ErrClosed
	}
	return f.Reader.Read(b)
}
func (f *faulty) Write(b []byte) (int, error) { return f.Writer.Write(b) }
func (f *faulty) CloseWrite() error           { f.writeShut.Store(true); return nil }
func (f *faulty) CloseRead() error            { f.readShut.Store(true); return nil }
func (f *faulty) Close() error {
	f.closed.Store(true)
	f.once.Do(func() { close(f.wake) })
	return nil
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestJoinOfAFault(t *testing.T) {
	fault := errors.New("the disk is on fire")
	for _, row := range []struct {
		says     string
		a, b     *faulty
		want     error
		readShut bool // a is told that nobody reads it
	}{
		{"a read that fails takes both down and is what Join returns", newFaulty(iotest.ErrReader(fault), io.Discard), newFaulty(nil, io.Discard), fault, false},
		{"a write that fails takes both down and is what Join returns", newFaulty(bytes.NewReader(make([]byte, 9)), io.Discard), newFaulty(nil, failing{fault}), fault, true},
		{"a reader that is gone is no fault", newFaulty(bytes.NewReader(make([]byte, 9)), io.Discard), newFaulty(bytes.NewReader(nil), failing{syscall.EPIPE}), nil, true},
		{"an answer outlives a reader that is gone", newFaulty(bytes.NewReader(make([]byte, 9)), io.Discard), newFaulty(bytes.NewReader(make([]byte, 9)), failing{io.ErrClosedPipe}), nil, true},
	} {
		var n proxy.Counters
		err := proxy.Join(row.a, row.b, &n)
		if !errors.Is(err, row.want) || (err == nil) != (row.want == nil) {
			t.Errorf("%s: Join = %v; want %v", row.says, err, row.want)
		}
		if !row.a.closed.Load() || !row.b.closed.Load() {
			t.Errorf("%s: closed %t and %t; want both", row.says, row.a.closed.Load(), row.b.closed.Load())
		}
		if got := row.a.readShut.Load(); got != row.readShut {
			t.Errorf("%s: the source was told = %t; want %t", row.says, got, row.readShut)
		}
		if n.AtoB.Load() != 0 {
			t.Errorf("%s: counted %d bytes that nobody took", row.says, n.AtoB.Load())
		}
	}
}

// tcp is a pair for one test.
func tcp(t *testing.T) (dialled, accepted *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	for _, c := range []net.Conn{a, b} {
		c.SetDeadline(time.Now().Add(2 * time.Minute))
	}
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func TestJoinResetsAStreamThatWasCutAndNoOther(t *testing.T) {
	cut := errors.New("the transport is gone")
	for _, row := range []struct {
		says  string
		guest io.Reader // what comes for the client
		want  error
	}{
		{"half an answer is reset", io.MultiReader(strings.NewReader("half"), iotest.ErrReader(cut)), syscall.ECONNRESET},
		{"no answer is reset", iotest.ErrReader(cut), syscall.ECONNRESET},
		{"a whole answer ends well", strings.NewReader("whole"), nil},
	} {
		client, a := tcp(t)
		done := make(chan error, 1)
		go func() { done <- proxy.Join(a, newFaulty(row.guest, io.Discard), nil) }()
		if row.want == nil {
			client.CloseWrite()
		}
		if _, err := io.ReadAll(client); row.want == nil && err != nil || !errors.Is(err, row.want) {
			t.Errorf("%s: the client's read = %v; want %v", row.says, err, row.want)
		}
		<-done
	}
}

// told is a connection that says when its writing side has ended.
type told struct {
	*net.TCPConn
	all chan struct{}
}

func (c *told) CloseWrite() error {
	defer close(c.all)
	return c.TCPConn.CloseWrite()
}

// An answer that nobody has read yet is not thrown away with a question that nobody can take.
func TestJoinLeavesAWholeAnswerAloneWhenTheQuestionIsCut(t *testing.T) {
	client, a := tcp(t)
	answer := bytes.Repeat([]byte("answer "), 20_000) // more than the client's socket holds; the rest is in ours
	if err := errors.Join(client.SetReadBuffer(16<<10), a.SetWriteBuffer(1<<20)); err != nil {
		t.Fatal(err)
	}
	side := &told{a, make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- proxy.Join(side, newFaulty(bytes.NewReader(answer), io.Discard), nil) }()
	<-side.all
	a.SetReadDeadline(time.Unix(1, 0))
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Join = %v; want the cut", err)
	}
	if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, answer) {
		t.Errorf("the client read %d of %d bytes, %v", len(got), len(answer), err)
	}
}
