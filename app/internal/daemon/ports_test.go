//go:build unix

package daemon

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/fakevm"
)

// publishing are services of a guest that asks for one port, and in whose containers what connects is echoed.
func publishing(held func() []protocol.Bind) map[string]transport.Handler {
	return map[string]transport.Handler{
		protocol.ServiceAsks: func(c proxy.Conn) {
			defer c.Close()
			if transport.Accept(c) != nil {
				return
			}
			protocol.NewWriter(c).Write(protocol.Message{Ask: &protocol.Ask{ID: 1, Held: &protocol.Held{Binds: held()}}})
			io.Copy(io.Discard, c)
		},
		protocol.ServiceConnect: func(c proxy.Conn) {
			defer c.Close()
			if transport.Accept(c) == nil {
				io.Copy(struct{ io.Writer }{c}, c)
			}
		},
	}
}

func TestPortsLiveAsLongAsTheirGuest(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken := l.Addr().String()
	defer l.Close()
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().String()
	free.Close()
	var none atomic.Bool
	w := newWorld(t, &fakevm.Driver{Services: publishing(func() []protocol.Bind {
		if none.Load() {
			return nil
		}
		return []protocol.Bind{
			{Key: "1", Protocol: "tcp", Address: at, Target: "172.17.0.2:80"},
			{Key: "2", Protocol: "tcp", Address: taken, Target: "172.17.0.3:80"},
		}
	})})
	ctx := context.Background()
	if err := w.Start(ctx); err != nil {
		t.Fatal(err)
	}
	var c net.Conn
	w.eventually(t, "the port", func() bool { c, err = net.Dial("tcp", at); return err == nil })
	defer c.Close()
	io.WriteString(c, "x")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Error("through the port:", err)
	}
	var all []api.Port
	w.eventually(t, "both ports listed", func() bool { all, err = w.Ports(ctx); return err == nil && len(all) == 2 })
	for _, p := range all {
		if (p.Fault != "") != (p.Address == taken) {
			t.Errorf("port %+v; want a fault of %s alone", p, taken)
		}
	}
	w.eventually(t, "a notice of the taken port", func() bool {
		s, _ := w.Status(ctx)
		return len(s.Notices) == 1 && strings.Contains(s.Notices[0].Text, taken+"/tcp: address already in use")
	})

	none.Store(true)
	first := w.driver.Machine()
	first.End(vmhost.Exit{Reason: vmhost.ExitPanicked, Detail: "the guest's kernel panicked"})
	io.ReadAll(c) // must end
	w.eventually(t, "another machine", func() bool { return w.driver.Machine() != first })
	w.phase(t, api.Running)
	if l, err := net.Listen("tcp4", at); err != nil {
		t.Error("the port of a guest that is gone:", err)
	} else {
		l.Close()
	}

	none.Store(false)
	w.driver.Machine().End(vmhost.Exit{Reason: vmhost.ExitPanicked, Detail: "the guest's kernel panicked"})
	w.eventually(t, "the port again", func() bool {
		c, err := net.Dial("tcp", at)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	if err := w.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if l, err := net.Listen("tcp4", at); err != nil {
		t.Error("the port after a stop:", err)
	} else {
		l.Close()
	}
}

// waiting connects to a port of an engine that sleeps, and gives what comes back of a text.
func waiting(at, text string) <-chan string {
	answer := make(chan string, 1)
	go func() {
		c, err := net.Dial("tcp", at)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer c.Close()
		io.WriteString(c, text)
		c.(*net.TCPConn).CloseWrite()
		b, err := io.ReadAll(c)
		if err != nil {
			b = append(b, err.Error()...)
		}
		answer <- string(b)
	}()
	return answer
}

// oneOf is an address of this machine that nobody has.
func oneOf(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// newerEngine has one container, and speaks a newer API than Cove's own client.
func newerEngine() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.99") })
	mux.HandleFunc("GET /{version}/containers/json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `[{"Id": "c1", "Names": ["/web"]}]`)
	})
	return mux
}

func TestAPortWakesTheEngine(t *testing.T) {
	for _, row := range []struct {
		says    string
		meddle  func(w *world) // with what was saved
		resumed bool
	}{
		{"from its sleep", func(*world) {}, true},
		{"into a boot, where what was saved is of no use", func(w *world) {
			if err := os.Chtimes(w.home.Dir("vm", profile, "data.raw"), time.Time{}, time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(row.says, func(t *testing.T) {
			at := oneOf(t)
			w := newWorld(t, &fakevm.Driver{Engine: newerEngine(), Services: publishing(func() []protocol.Bind {
				return []protocol.Bind{{Key: "1", Protocol: "tcp", Address: at, Target: "172.17.0.2:80", Container: "c1"}}
			})})
			ctx := context.Background()
			if err := w.Start(ctx); err != nil {
				t.Fatal(err)
			}
			w.eventually(t, "the port", func() bool { return <-waiting(at, "x") == "x" })
			listed := func(how string) {
				t.Helper()
				all, err := w.Ports(ctx)
				if err != nil || len(all) != 1 || all[0].Address != at {
					t.Fatalf("ports of an engine that %s are %+v, %v", how, all, err)
				}
				if c := all[0].Container; c == nil || c.Name != "web" {
					t.Errorf("while it %s the port is that of %+v; want web", how, c)
				}
			}
			listed("runs")
			if err := w.Suspend(ctx); err != nil {
				t.Fatal(err)
			}
			listed("sleeps")
			row.meddle(w)
			if s := w.phase(t, api.Suspended); len(s.Notices) != 0 {
				t.Errorf("notices %v", s.Notices)
			}
			if got := <-waiting(at, "wake"); got != "wake" {
				t.Errorf("who woke it got %q", got)
			}
			s := w.phase(t, api.Running)
			if resumed := len(s.Notices) == 0; resumed != row.resumed {
				t.Errorf("notices %v; want it resumed %t", s.Notices, row.resumed)
			}
			if err := w.Stop(ctx); err != nil {
				t.Fatal(err)
			}
			if l, err := net.Listen("tcp4", at); err != nil {
				t.Error("the port after a stop:", err)
			} else {
				l.Close()
			}
		})
	}
}

func TestAnEngineThatCannotWakeLetsGoOfWhoWaits(t *testing.T) {
	at := oneOf(t)
	driver := &fakevm.Driver{Services: publishing(func() []protocol.Bind {
		return []protocol.Bind{{Key: "1", Protocol: "tcp", Address: at, Target: "172.17.0.2:80"}}
	})}
	w := newWorld(t, driver)
	ctx := context.Background()
	if err := w.Start(ctx); err != nil {
		t.Fatal(err)
	}
	w.eventually(t, "the port", func() bool { return <-waiting(at, "x") == "x" })
	if err := w.Suspend(ctx); err != nil {
		t.Fatal(err)
	}
	driver.Refusal = &vmhost.Problem{ID: vmhost.ProblemNoMemory, Summary: "No.", Remedy: "Close something."}
	w.phase(t, api.Suspended) // the driver is seen as it is now
	if got := <-waiting(at, "x"); !strings.Contains(got, "reset") {
		t.Errorf("who waited got %q; want a reset", got)
	}
	w.phase(t, api.Failed)
	driver.Refusal = nil
	if err := w.Start(ctx); err != nil {
		t.Fatal(err)
	}
	w.eventually(t, "the port again", func() bool { return <-waiting(at, "x") == "x" })
}
