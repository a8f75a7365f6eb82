package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/proxytest"
)

const patience = 2 * time.Minute

// unixLink is a link over a unix socket: what a hypervisor's sockets are, without the hypervisor.
type unixLink struct{ path string }

func (l unixLink) String() string { return "unix" }
func (l unixLink) Close() error   { return nil }
func (l unixLink) Open(ctx context.Context) (proxy.Conn, error) {
	for {
		c, err := new(net.Dialer).DialContext(ctx, "unix", l.path)
		if err == nil {
			return c.(proxy.Conn), nil
		}
		// A full backlog is no answer: a thousand dial at once.
		if ctx.Err() != nil || !strings.Contains(err.Error(), "temporarily unavailable") {
			return nil, err
		}
		time.Sleep(time.Millisecond)
	}
}

type unixListener struct{ *net.UnixListener }

func (l unixListener) Accept() (proxy.Conn, error) { return l.AcceptUnix() }

// guest is a Server with the services of the tests.
type guest struct {
	*Server
	accepted sync.Map // name given by the host: chan proxy.Conn
}

func newGuest() *guest {
	g := &guest{}
	g.Server = NewServer(map[string]Handler{
		EchoService: func(c proxy.Conn) { io.Copy(c, struct{ io.Reader }{c}); c.CloseWrite() },
		"refused":   func(c proxy.Conn) { Refuse(c, "not today") },
		"panics":    func(proxy.Conn) { panic("a bug") },
		// Gives the test the guest's end of the connection whose first 8 bytes are its number.
		"hand": func(c proxy.Conn) {
			id := make([]byte, 8)
			if _, err := io.ReadFull(c, id); err != nil {
				return
			}
			ch, _ := g.accepted.Load(string(id))
			h := &held{Conn: c, done: make(chan struct{})}
			ch.(chan proxy.Conn) <- h
			<-h.done
		},
	})
	return g
}

// held tells the handler when the test closed its end.
type held struct {
	proxy.Conn
	once sync.Once
	done chan struct{}
}

func (h *held) Close() error {
	err := h.Conn.Close()
	h.once.Do(func() { close(h.done) })
	return err
}

// open makes a connection through the handshake and gives both ends.
func (g *guest) open(d proxy.Dialer) func(context.Context) (proxy.Conn, proxytest.Peer, error) {
	var mu sync.Mutex
	n := 0
	return func(ctx context.Context) (proxy.Conn, proxytest.Peer, error) {
		mu.Lock()
		n++
		id := []byte("00000000")
		for i, v := 7, n; v > 0; i, v = i-1, v/10 {
			id[i] = byte('0' + v%10)
		}
		mu.Unlock()
		ch := make(chan proxy.Conn, 1)
		g.accepted.Store(string(id), ch)
		c, err := d.Dial(ctx, "hand")
		if err != nil {
			return nil, nil, err
		}
		if _, err := c.Write(id); err != nil {
			return nil, nil, err
		}
		select {
		case peer := <-ch:
			return c, peer, nil
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// overUnix serves a guest on a unix socket.
func overUnix(t *testing.T, g *guest) unixLink {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, func(ctx context.Context) { g.Serve(ctx, unixListener{l}) })
	return unixLink{path}
}

func serve(t *testing.T, f func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// pipe is a byte pipe's two ends.
func pipe(t *testing.T) (host, end net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "pipe"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if host, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if end, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return host, end
}

// overMux serves a guest on a multiplexer over a socket pair, with the rest of an older session before it.
func overMux(t *testing.T, g *guest) proxy.Link {
	t.Helper()
	host, end := pipe(t)
	host.Write([]byte("rest of an older session COVEMU COVEMUX"))
	end.Write([]byte("\x00\x01\x02 the guest's rest COVEMUX\nCOVE"))
	serve(t, func(ctx context.Context) { ServeMux(ctx, end, g.Server) })
	link := OpenMux(host)
	t.Cleanup(func() { link.Close() })
	return link
}

func TestContract(t *testing.T) {
	for name, over := range map[string]func(*testing.T, *guest) proxy.Link{
		"unix": func(t *testing.T, g *guest) proxy.Link { return overUnix(t, g) },
		"mux":  overMux,
	} {
		t.Run(name, func(t *testing.T) {
			g, secret := newGuest(), NewSecret()
			g.SetSecret(secret)
			c := New(over(t, g), secret)
			if err := SelfTest(context.Background(), c); err != nil {
				t.Fatal(err)
			}
			proxytest.Run(t, g.open(c))
		})
	}
}

func TestStrangersGetNothing(t *testing.T) {
	g, secret := newGuest(), NewSecret()
	link := overUnix(t, g)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := SelfTest(ctx, New(link, secret)); err == nil {
		t.Error("a guest without a secret let somebody in")
	}
	g.SetSecret(secret)
	if err := SelfTest(ctx, New(link, NewSecret())); !errors.Is(err, ErrNotOurGuest) {
		t.Errorf("with another secret: %v; want ErrNotOurGuest", err)
	}
	greeting := magic + strings.Repeat("n", nonceSize)
	for _, says := range []string{"", "GET / HTTP/1.1\r\n\r\n", magic, greeting, greeting + strings.Repeat("p", macSize) + "\xff", greeting + strings.Repeat("p", macSize) + "\x04echo"} {
		c, err := link.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(says))
		c.CloseWrite()
		got, _ := io.ReadAll(c)
		// A whole greeting gets the guest's proof, and nothing after a wrong answer to it.
		if len(got) != 0 && len(got) != nonceSize+macSize {
			t.Errorf("to %.20q the guest said %d bytes", says, len(got))
		}
		c.Close()
	}
	if err := SelfTest(ctx, New(link, secret)); err != nil {
		t.Error("after the strangers:", err)
	}
}

// recorder keeps what the host wrote.
type recorder struct {
	proxy.Conn
	wrote *bytes.Buffer
}

func (r recorder) Write(b []byte) (int, error) { r.wrote.Write(b); return r.Conn.Write(b) }

type recordingLink struct {
	unixLink
	wrote *bytes.Buffer
}

func (l recordingLink) Open(ctx context.Context) (proxy.Conn, error) {
	c, err := l.unixLink.Open(ctx)
	return recorder{c, l.wrote}, err
}

func TestAReplayedHandshakeIsWorthless(t *testing.T) {
	g, secret := newGuest(), NewSecret()
	g.SetSecret(secret)
	link := recordingLink{overUnix(t, g), new(bytes.Buffer)}
	ctx := context.Background()
	c, err := New(link, secret).Dial(ctx, EchoService)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	again, err := link.unixLink.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	again.Write(append(link.wrote.Bytes(), "echo this"...))
	again.CloseWrite()
	got, _ := io.ReadAll(again)
	if len(got) > nonceSize+macSize {
		t.Errorf("a replayed handshake got %d bytes; want no more than a challenge", len(got))
	}
}

// A container that squats the port answers the host: it must learn nothing that the guest would take.
func TestASquatterLearnsNoProof(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	heard := make(chan []byte, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Write(make([]byte, nonceSize+macSize))
		b, _ := io.ReadAll(c)
		heard <- b
	}()
	_, err = New(unixLink{path}, NewSecret()).Dial(context.Background(), "docker")
	if !errors.Is(err, ErrNotOurGuest) {
		t.Errorf("Dial = %v; want ErrNotOurGuest", err)
	}
	if b := <-heard; len(b) != len(magic)+nonceSize || bytes.Contains(b, []byte("docker")) {
		t.Errorf("the squatter heard %q; want the magic and a nonce, not the name of a service", b)
	}
}

func TestServices(t *testing.T) {
	g, secret := newGuest(), NewSecret()
	g.SetSecret(secret)
	c := New(overUnix(t, g), secret)
	ctx := context.Background()
	var refused *RefusedError
	if _, err := c.Dial(ctx, "refused"); !errors.As(err, &refused) || refused.Message != "not today" {
		t.Errorf("Dial of a refused service = %v; want its word", err)
	}
	if _, err := c.Dial(ctx, "none"); !errors.As(err, &refused) {
		t.Errorf("Dial of no service = %v; want a refusal", err)
	}
	if _, err := c.Dial(ctx, strings.Repeat("x", 100)); err == nil {
		t.Error("a service name of 100 bytes is taken")
	}
	c.Dial(ctx, "panics")
	if err := SelfTest(ctx, c); err != nil {
		t.Error("after a service that panicked:", err)
	}
}

func TestANewSecretEndsTheOldSession(t *testing.T) {
	g, secret := newGuest(), NewSecret()
	g.SetSecret(secret)
	link := overUnix(t, g)
	ctx := context.Background()
	old, err := New(link, secret).Dial(ctx, EchoService)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	next := NewSecret()
	g.SetSecret(next)
	old.SetDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, old); err != nil && errors.Is(err, context.DeadlineExceeded) {
		t.Error("a connection of the old secret lives on:", err)
	}
	if err := SelfTest(ctx, New(link, secret)); err == nil {
		t.Error("the old secret is still taken")
	}
	if err := SelfTest(ctx, New(link, next)); err != nil {
		t.Error(err)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		c, err := l.Accept()
		if err == nil {
			defer c.Close()
			cancel()
			io.Copy(io.Discard, c)
		}
	}()
	if _, err := New(unixLink{path}, NewSecret()).Dial(ctx, "docker"); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial to one who says nothing = %v; want context.Canceled", err)
	}
}

// noHalf loses half-close, as some hypervisors' sockets do.
type noHalf struct{ unixLink }

func (l noHalf) Open(ctx context.Context) (proxy.Conn, error) {
	c, err := l.unixLink.Open(ctx)
	return noHalfConn{c}, err
}

type noHalfConn struct{ proxy.Conn }

func (c noHalfConn) CloseWrite() error { return c.Conn.Close() }

func TestChooseTakesTheFirstThatWorks(t *testing.T) {
	g, secret := newGuest(), NewSecret()
	g.SetSecret(secret)
	bad := noHalf{overUnix(t, g)}
	good := overMux(t, g)
	c, tried, err := Choose(context.Background(), []proxy.Link{bad, good}, secret)
	if err != nil || c.Link() != "mux" || len(tried) != 2 || tried[0].Err == nil {
		t.Errorf("Choose = %v after %v, %v; want mux after one that failed", c, tried, err)
	}
	if _, tried, err = Choose(context.Background(), []proxy.Link{bad}, secret); err == nil || len(tried) != 1 {
		t.Errorf("Choose with no good link = %v after %v; want an error", err, tried)
	}
}

// One who holds a stranger's connection open holds up no end of the server.
func TestServeEndsWithAStrangerInTheMiddle(t *testing.T) {
	g := newGuest()
	g.SetSecret(NewSecret())
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, unixListener{l}) }()
	c, err := unixLink{path}.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte(magic + strings.Repeat("n", nonceSize)))
	if _, err := io.ReadFull(c, make([]byte, nonceSize+macSize)); err != nil {
		t.Fatal("the challenge:", err)
	}
	begun := time.Now()
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve = %v; want nil at the end of its context", err)
	}
	if took := time.Since(begun); took > handshakePatience/2 {
		t.Errorf("Serve ended after %s; want it not to wait for a stranger", took)
	}
}

func FuzzChallenge(f *testing.F) {
	secret := NewSecret()
	greeting := magic + strings.Repeat("n", nonceSize)
	f.Add([]byte(magic))
	f.Add([]byte(greeting + strings.Repeat("p", macSize) + "\x04echo"))
	f.Add([]byte(greeting + strings.Repeat("p", macSize) + "\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		name, err := challenge(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(data), io.Discard}, secret)
		if err == nil {
			t.Fatalf("%q was let in as %q", data, name)
		}
	})
}

// said is a peer that says what it says, whatever it hears.
type said struct {
	proxy.Conn
	io.Reader
}

func (s said) Read(b []byte) (int, error)  { return s.Reader.Read(b) }
func (s said) Write(b []byte) (int, error) { return len(b), nil }

func FuzzGreet(f *testing.F) {
	secret := NewSecret()
	f.Add(make([]byte, nonceSize+macSize+1), "docker")
	f.Add(bytes.Repeat([]byte{1}, nonceSize+macSize+3), "")
	f.Fuzz(func(t *testing.T, data []byte, service string) {
		err := greet(said{Reader: bytes.NewReader(data)}, secret, service)
		var refused *RefusedError
		if err == nil || errors.As(err, &refused) {
			t.Fatalf("%q was taken for our guest: %v", data, err)
		}
	})
}
