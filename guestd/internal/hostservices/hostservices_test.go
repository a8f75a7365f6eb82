//go:build linux

package hostservices

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
)

// askFunc is the host as a function.
type askFunc func(context.Context, protocol.Ask) error

func (f askFunc) Ask(ctx context.Context, a protocol.Ask) error { return f(ctx, a) }

// link opens raw connections to a server's socket, and listener takes them.
type link string

func (link) String() string { return "unix" }
func (link) Close() error   { return nil }
func (l link) Open(ctx context.Context) (proxy.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", string(l))
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

type listener struct{ *net.UnixListener }

func (l listener) Accept() (proxy.Conn, error) { return l.AcceptUnix() }

// guest runs Doors that ask a host, which gets a way to dial back. It returns the containers' socket and
// that way.
func guest(t *testing.T, host func(proxy.Dialer, protocol.Open) error) (string, proxy.Dialer) {
	t.Helper()
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "services"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	secret := transport.NewSecret()
	dial := transport.New(link(l.Addr().String()), secret)
	d := New(askFunc(func(_ context.Context, a protocol.Ask) error { return host(dial, *a.Open) }))
	server := transport.NewServer(map[string]transport.Handler{protocol.ServiceCallback: d.Callback})
	server.SetSecret(secret)
	door, err := Listen(filepath.Join(dir, "host-services", "agent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { server.Serve(ctx, listener{l}) })
	wg.Go(func() { d.Serve(door, protocol.HostServiceSSHAgent) })
	t.Cleanup(func() { door.Close(); cancel(); wg.Wait() })
	return door.Addr().String(), dial
}

func connect(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

func TestAContainerReachesTheHostsService(t *testing.T) {
	socket, _ := guest(t, func(dial proxy.Dialer, open protocol.Open) error {
		if open.Service != protocol.HostServiceSSHAgent {
			t.Errorf("the guest asks for %q", open.Service)
		}
		c, err := dial.Dial(context.Background(), protocol.CallbackService(open.Call))
		if err != nil {
			return err
		}
		go func() { // an agent that answers once it has all
			defer c.Close()
			said, _ := io.ReadAll(struct{ io.Reader }{c})
			c.Write(bytes.ToUpper(said))
			c.CloseWrite()
		}()
		return nil
	})
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("the socket is %v, %v; want every user of a container let in", st.Mode(), err)
	}
	for _, word := range []string{"one", "two"} {
		c := connect(t, socket)
		io.WriteString(c, word)
		c.CloseWrite()
		got, err := io.ReadAll(c)
		if want := string(bytes.ToUpper([]byte(word))); err != nil || string(got) != want {
			t.Errorf("%q came back as %q, %v; want %q after the half-close", word, got, err, want)
		}
	}
}

func TestARefusalClosesTheConnection(t *testing.T) {
	socket, _ := guest(t, func(proxy.Dialer, protocol.Open) error { return errors.New("there is no agent") })
	// More than may wait at once: each is let go of.
	for range 2 * maxWaiting {
		if got, err := io.ReadAll(connect(t, socket)); len(got) != 0 || err != nil {
			t.Fatalf("the container reads %q, %v; want the end", got, err)
		}
	}
}

func TestAHostThatSaysYesAndDoesNotComeIsNotWaitedFor(t *testing.T) {
	socket, _ := guest(t, func(proxy.Dialer, protocol.Open) error { return nil })
	if got, err := io.ReadAll(connect(t, socket)); len(got) != 0 || err != nil {
		t.Fatalf("the container reads %q, %v; want the end", got, err)
	}
}

func TestACallIsAnsweredOnceAndOnlyIfSomebodyWaits(t *testing.T) {
	again := make(chan error, 1)
	socket, dial := guest(t, func(dial proxy.Dialer, open protocol.Open) error {
		c, err := dial.Dial(context.Background(), protocol.CallbackService(open.Call))
		if err != nil {
			return err
		}
		_, err = dial.Dial(context.Background(), protocol.CallbackService(open.Call))
		again <- err
		return c.Close()
	})
	io.ReadAll(connect(t, socket))
	var refused *transport.RefusedError
	if err := <-again; !errors.As(err, &refused) {
		t.Errorf("the second dial of one call gave %v; want a refusal", err)
	}
	for _, service := range []string{protocol.CallbackService(99), protocol.ServiceCallback, protocol.ServiceCallback + "/x"} {
		if _, err := dial.Dial(context.Background(), service); !errors.As(err, &refused) {
			t.Errorf("Dial(%s) gave %v; want a refusal", service, err)
		}
	}
}
