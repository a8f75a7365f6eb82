package transport

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy"
)

// port is the host's end of a virtio-serial port: it outlives the daemons that use it, one after the other.
type port struct {
	net.Conn
	mu  sync.Mutex
	cut int // after so many more bytes the daemon is dead; 0: it lives
}

func (p *port) dieAfter(n int) { p.mu.Lock(); defer p.mu.Unlock(); p.cut = n }

func (p *port) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut == 0 || len(b) < p.cut {
		if p.cut > 0 {
			p.cut -= len(b)
		}
		return p.Conn.Write(b)
	}
	p.Conn.Write(b[:p.cut])
	p.Close()
	return 0, net.ErrClosed
}

// Close is a daemon's death: it reads no more, and the port stays.
func (p *port) Close() error { return p.Conn.SetReadDeadline(time.Unix(1, 0)) }

// again is the same port in a new daemon's hands.
func (p *port) again() *port {
	p.Conn.SetReadDeadline(time.Time{})
	return &port{Conn: p.Conn}
}

// A daemon dies, perhaps in the middle of a word; the guest lives on (a saved one comes back so). The
// next daemon begins anew on the same port.
func TestAMuxBeginsAnewOnTheSamePipe(t *testing.T) {
	for _, row := range []struct {
		says  string
		cut   int // the old daemon dies after so many bytes of 256 KiB
		trash []byte
	}{
		{"after a whole record", 0, nil},
		{"in the middle of a record's head", recordHeader + 12 + 2, nil},
		{"in the middle of a record's body", 40 << 10, nil},
		{"in the middle of a later record", 200 << 10, nil},
		{"with text in between", 0, []byte("login: root\n")},
		{"with what looks like a greeting in between", 0, []byte(muxMagic + strings.Repeat("n", muxNonceSize))},
		{"with what looks like the head of the longest record in between", 0, []byte{recordMark, 1, 0, 0}},
		{"with what looks like a record too long in between", 0, []byte{recordMark, 0xff, 0xff, 0xff}},
		{"with a record of nonsense in between", 0, append([]byte{recordMark, 0, 0, 24}, bytes.Repeat([]byte{0xff}, 24)...)},
	} {
		t.Run(row.says, func(t *testing.T) {
			g, secret := newGuest(), NewSecret()
			g.SetSecret(secret)
			host, end := pipe(t)
			t.Cleanup(func() { host.Close() })
			host.SetDeadline(time.Now().Add(patience)) // a test that hangs says so
			serve(t, func(ctx context.Context) { ServeMux(ctx, end, g.Server) })
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()

			dying := &port{Conn: host}
			old := OpenMux(dying)
			c, err := New(old, secret).Dial(ctx, EchoService)
			if err != nil {
				t.Fatal("Dial by the first daemon:", err)
			}
			c.SetDeadline(time.Now().Add(patience))
			c.Write(make([]byte, 256<<10)) // nobody reads the echo of it
			dying.dieAfter(row.cut)
			if row.cut > 0 {
				c.Write(make([]byte, 256<<10)) // ends by the daemon's death
			}
			dying.Close()
			old.Close()
			host.Write(row.trash)

			next := OpenMux(dying.again())
			if err := SelfTest(ctx, New(next, secret)); err != nil {
				t.Fatal("SelfTest by the next daemon:", err)
			}
			if _, err := c.Write([]byte("x")); err == nil {
				t.Error("a connection of the first daemon still takes bytes; want an error")
			}
			next.Close()
		})
	}
}

func TestServeMuxEndsWithItsPipe(t *testing.T) {
	for _, says := range []string{"", "COVEM", muxMagic, muxMagic + strings.Repeat("n", muxNonceSize), muxMagic + strings.Repeat("n", muxNonceSize) + "\xc5\x00"} {
		host, end := pipe(t)
		host.Write([]byte(says))
		host.(proxy.Conn).CloseWrite()
		if err := ServeMux(context.Background(), end, newGuest().Server); err == nil {
			t.Errorf("ServeMux on a pipe that ends after %q = nil; want an error", says)
		}
		host.Close()
	}
}

// One who gives up on a guest that says nothing is let go at once.
func TestOpenOfAMuxEndsWithItsContext(t *testing.T) {
	host, end := pipe(t)
	defer end.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.ReadFull(end, make([]byte, maxRecord))
		cancel()
	}()
	if _, err := OpenMux(host).Open(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Open on a pipe with nobody at its end = %v; want context.Canceled", err)
	}
}

// `docker run … head -c 5` over the multiplexer: the guest answers, ends and hears no more, while the
// client still writes. What the guest said arrives.
func TestJoinOverAMuxGivesTheLastWords(t *testing.T) {
	g, secret := newGuest(), NewSecret()
	g.SetSecret(secret)
	open := g.open(New(overMux(t, g), secret))
	for range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		c, peer, err := open(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		client, relay := pipe(t)
		client.SetDeadline(time.Now().Add(patience))
		joined := make(chan error, 1)
		go func() { joined <- proxy.Join(relay.(proxy.Conn), c, nil) }()
		go client.Write(make([]byte, 16<<20)) // nobody reads it all
		io.ReadFull(peer, make([]byte, 5))
		answer := bytes.Repeat([]byte("12345"), 100_000)
		peer.Write(answer)
		peer.Close()
		got, err := io.ReadAll(client)
		if !bytes.Equal(got, answer) {
			t.Errorf("the client read %d bytes, %v; want %d", len(got), err, len(answer))
		}
		client.Close()
		<-joined
	}
}

func TestSkipTo(t *testing.T) {
	for _, row := range []struct{ in, want, rest string }{
		{"ab", "ab", ""},
		{"xxabrest", "ab", "rest"},
		{"aab", "ab", ""},
		{"aaaaaaab!", "aab", "!"},
		{"COVEMCOVEMUX\nrest", muxMagic, "rest"},
		{"COVEMUXCOVEMUX\n", muxMagic, ""},
	} {
		for at := range 3 * len(row.want) { // wherever it lies
			in := bufio.NewReader(strings.NewReader(strings.Repeat(".", at) + row.in))
			err := skipTo(in, []byte(row.want))
			if rest, _ := io.ReadAll(in); err != nil || string(rest) != row.rest {
				t.Errorf("skipTo(%d dots and %q, %q) = %v and leaves %q; want %q", at, row.in, row.want, err, rest, row.rest)
			}
		}
	}
	if err := skipTo(bufio.NewReader(strings.NewReader("COVEMUX")), []byte(muxMagic)); err != io.EOF {
		t.Errorf("skipTo in what holds no magic = %v; want io.EOF", err)
	}
}

// pipeOf is a byte pipe that says what it says and hears everything.
type pipeOf struct{ io.Reader }

func (pipeOf) Write(b []byte) (int, error) { return len(b), nil }
func (pipeOf) Close() error                { return nil }

// Whatever is on the pipe, the guest opens nothing without the secret and ends when the pipe does.
func FuzzServeMux(f *testing.F) {
	begin := muxMagic + strings.Repeat("n", muxNonceSize)
	syn := "\xc5\x00\x00\x0c" + "\x00\x01\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00"
	f.Add([]byte(begin))
	f.Add([]byte(begin + syn))
	f.Add([]byte(begin + syn + syn + begin + syn))
	f.Fuzz(func(t *testing.T, data []byte) {
		srv := NewServer(map[string]Handler{"": func(proxy.Conn) { t.Error("a service was given") }})
		srv.SetSecret(NewSecret())
		if err := ServeMux(context.Background(), pipeOf{bytes.NewReader(data)}, srv); err == nil {
			t.Error("ServeMux = nil; want the pipe's end")
		}
	})
}
