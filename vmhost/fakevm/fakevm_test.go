package fakevm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/vmtest"
)

// patience bounds every wait. It is for a machine under load.
const patience = 2 * time.Minute

func TestContract(t *testing.T) {
	vmtest.Run(t, func(t *testing.T) (vmhost.Driver, vmhost.Spec) {
		dir := t.TempDir()
		data := filepath.Join(dir, "data.raw")
		if err := os.WriteFile(data, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
		return &Driver{}, vmhost.Spec{Name: "test", CPUs: 1, Memory: 1 << 30, RunDir: dir, Data: data}
	})
}

// talk starts a machine, says hello, and gives what the guest says until the port ends.
func talk(t *testing.T, d *Driver) (*Machine, transport.Secret, <-chan protocol.Message) {
	t.Helper()
	v, err := d.Start(t.Context(), vmhost.Spec{Name: "test", RunDir: t.TempDir()})
	if err != nil {
		t.Fatal("Start:", err)
	}
	m := d.Machine()
	if vmhost.Machine(m) != v {
		t.Error("Machine is not the one that was started last")
	}
	t.Cleanup(func() { m.Kill(); <-m.Done(); m.Control().Close() })
	m.Control().SetDeadline(time.Now().Add(patience))
	secret := transport.NewSecret()
	protocol.NewWriter(m.Control()).Write(protocol.Message{Hello: &protocol.Hello{Version: protocol.Version, Nonce: "n", Secret: secret.RevealSecretBytes(), Config: protocol.Config{Hostname: "h"}}})
	said := make(chan protocol.Message, 100)
	go func() {
		defer close(said)
		for in := protocol.NewReader(m.Control()); ; {
			msg, err := in.Read()
			if err != nil {
				return
			}
			said <- msg
		}
	}()
	return m, secret, said
}

// until skips to the message that fits; false: the port ended before.
func until(said <-chan protocol.Message, fits func(protocol.Message) bool) bool {
	for m := range said {
		if fits(m) {
			return true
		}
	}
	return false
}

func ready(m protocol.Message) bool { return m.Ready != nil }

func TestFaults(t *testing.T) {
	t.Run("a silent guest is silent, and ends with its host", func(t *testing.T) {
		m, _, said := talk(t, &Driver{Fault: Fault{Silent: true}})
		m.Control().CloseWrite()
		if until(said, func(m protocol.Message) bool { return m.Welcome != nil }) {
			t.Error("a silent guest says Welcome")
		}
		<-m.Done()
	})
	t.Run("a guest of another version says so and does not boot", func(t *testing.T) {
		m, _, said := talk(t, &Driver{Fault: Fault{Version: 9}})
		if !until(said, func(m protocol.Message) bool { return m.Welcome != nil && m.Welcome.Version == 9 }) {
			t.Error("no Welcome with version 9")
		}
		protocol.NewWriter(m.Control()).Write(protocol.Message{Shutdown: &protocol.Shutdown{}})
		if until(said, ready) {
			t.Error("a guest of another version boots")
		}
	})
	t.Run("a fatal failure is told and powers off", func(t *testing.T) {
		m, _, said := talk(t, &Driver{Fault: Fault{Failed: &protocol.Failed{Cause: protocol.CauseDataDiskAlien, Detail: "no", Fatal: true}}})
		if !until(said, func(m protocol.Message) bool {
			return m.Failed != nil && m.Failed.Cause == protocol.CauseDataDiskAlien
		}) {
			t.Error("the failure is not told")
		}
		<-m.Done()
		if e := m.Exit(); e.Reason != vmhost.ExitPoweredOff {
			t.Errorf("Exit = %+v; want %s", e, vmhost.ExitPoweredOff)
		}
	})
	t.Run("a stubborn guest ends by Kill alone", func(t *testing.T) {
		m, _, said := talk(t, &Driver{Fault: Fault{Stubborn: true}})
		until(said, ready)
		m.PowerOff(t.Context())
		protocol.NewWriter(m.Control()).Write(protocol.Message{Shutdown: &protocol.Shutdown{}})
		protocol.NewWriter(m.Control()).Write(protocol.Message{Ping: &protocol.Ping{ID: 1}})
		if !until(said, func(m protocol.Message) bool { return m.Pong != nil }) {
			t.Error("a stubborn guest stopped when it was asked")
		}
		m.Control().CloseWrite()
		m.Kill()
		<-m.Done()
		if e := m.Exit(); e.Reason != vmhost.ExitKilled {
			t.Errorf("Exit = %+v; want %s", e, vmhost.ExitKilled)
		}
	})
	t.Run("without a first link the second is listened on", func(t *testing.T) {
		_, _, said := talk(t, &Driver{Fault: Fault{NoVsock: true}})
		if !until(said, func(m protocol.Message) bool {
			return m.Listening != nil && !m.Listening.Vsock && m.Listening.Mux
		}) {
			t.Error("Listening does not say that there is the mux alone")
		}
	})
	t.Run("a deaf link answers nobody", func(t *testing.T) {
		m, secret, said := talk(t, &Driver{Fault: Fault{DeafLink: true}})
		until(said, ready)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := transport.SelfTest(ctx, transport.New(m.Links()[0], secret)); !errors.Is(err, context.Canceled) {
			t.Errorf("SelfTest over a deaf link = %v; want context.Canceled", err)
		}
		if err := transport.SelfTest(t.Context(), transport.New(m.Links()[1], secret)); err != nil {
			t.Errorf("SelfTest over the other link = %v", err)
		}
	})
	t.Run("a guest that pauses is ready when it is let go on", func(t *testing.T) {
		pause := make(chan struct{})
		m, _, said := talk(t, &Driver{Pause: pause})
		until(said, func(m protocol.Message) bool { return m.Listening != nil })
		protocol.NewWriter(m.Control()).Write(protocol.Message{Ping: &protocol.Ping{ID: 1}})
		for msg := range said {
			if msg.Ready != nil {
				t.Error("Ready came while the guest was to pause")
			}
			if msg.Pong != nil {
				break
			}
		}
		close(pause)
		if !until(said, ready) {
			t.Error("no Ready after the pause")
		}
	})
	t.Run("what a test says comes from the guest, and its end is the machine's", func(t *testing.T) {
		m, _, said := talk(t, &Driver{})
		until(said, ready)
		m.Tell(protocol.Message{Service: &protocol.Service{Name: "dockerd", State: "backoff"}})
		if !until(said, func(m protocol.Message) bool { return m.Service != nil && m.Service.State == "backoff" }) {
			t.Error("what Tell was given is not told")
		}
		if h := m.Hello(); h == nil || h.Config.Hostname != "h" {
			t.Errorf("Hello = %+v; want the one that was said", h)
		}
		want := vmhost.Exit{Reason: vmhost.ExitPanicked, Detail: "it panicked", Evidence: "Kernel panic"}
		m.End(want)
		<-m.Done()
		if m.Exit() != want {
			t.Errorf("Exit = %+v; want %+v", m.Exit(), want)
		}
	})
	t.Run("what a driver is to refuse it refuses", func(t *testing.T) {
		p := &vmhost.Problem{ID: vmhost.ProblemNoMemory}
		d := &Driver{Unfit: p, Refusal: p}
		if err := d.Check(t.Context()); err != p {
			t.Errorf("Check = %v; want Unfit", err)
		}
		if _, err := d.Start(t.Context(), vmhost.Spec{RunDir: t.TempDir()}); err != p {
			t.Errorf("Start = %v; want Refusal", err)
		}
	})
}

func TestServices(t *testing.T) {
	hijack := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		io.Copy(struct{ io.Writer }{c}, buf)
	})
	m, secret, said := talk(t, &Driver{Engine: hijack, Services: map[string]transport.Handler{
		"own": func(c proxy.Conn) { io.WriteString(c, "mine") }, protocol.ServiceLogs: nil}})
	until(said, ready)
	for _, l := range m.Links() {
		t.Run("over "+l.String(), func(t *testing.T) {
			client := transport.New(l, secret)
			dial := func(name string) proxy.Conn {
				c, err := client.Dial(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				c.SetDeadline(time.Now().Add(patience))
				t.Cleanup(func() { c.Close() })
				return c
			}
			// An engine that takes a connection over has its half-close.
			c := dial(protocol.ServiceDocker)
			io.WriteString(c, "POST /exec/e/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
			r := bufio.NewReader(c)
			if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 101 {
				t.Fatalf("exec start = %v, %v; want 101", resp, err)
			}
			io.WriteString(c, "input")
			c.CloseWrite()
			if got, err := io.ReadAll(r); string(got) != "input" || err != nil {
				t.Errorf("the stream gave %q, %v; want the input", got, err)
			}
			if got, err := io.ReadAll(dial("own")); string(got) != "mine" || err != nil {
				t.Errorf("a test's own service gave %q, %v; want mine", got, err)
			}
			var refused *transport.RefusedError
			if _, err := client.Dial(t.Context(), protocol.ServiceLogs); !errors.As(err, &refused) {
				t.Errorf("Dial of a service that was taken away = %v; want a refusal", err)
			}
			s := dial(protocol.ServiceShell)
			json.NewEncoder(s).Encode(protocol.ShellRequest{Args: []string{"a"}})
			protocol.WriteShell(s, protocol.ShellStdin, []byte("in"))
			protocol.WriteShell(s, protocol.ShellStdin, nil)
			var out string
			for buf := make([]byte, protocol.MaxShellFrame); ; {
				kind, data, err := protocol.ReadShell(s, buf)
				if err != nil {
					t.Fatal("ReadShell:", err)
				}
				if kind == protocol.ShellExit {
					break
				}
				out += string(data)
			}
			if out != "[\"a\"]\nin" {
				t.Errorf("the shell printed %q; want its arguments and its input", out)
			}
		})
	}
}
