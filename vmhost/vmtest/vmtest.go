// Package vmtest is the contract of vmhost.Driver and vmhost.Machine as a test suite. Every driver runs
// it: the real ones with a real guest, and fakevm, on whose word the daemon's tests stand.
package vmtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
	"github.com/covedesk/cove/vmhost"
)

// patience bounds every wait. It is for a real guest under software emulation on a machine under load.
const patience = 7 * time.Minute

// Run runs the suite. open gives a driver and the parts of a machine that nothing else uses; the suite
// sets the Spec's Console.
func Run(t *testing.T, open func(t *testing.T) (vmhost.Driver, vmhost.Spec)) {
	t.Run("a driver says what it is and what it runs on", func(t *testing.T) {
		d, spec := open(t)
		ctx := within(t)
		if d.Name() == "" {
			t.Error("Name is empty")
		}
		if err := d.Check(ctx); err != nil {
			t.Errorf("Check = %v; want nil on a host that runs this suite", err)
		}
		all, err := d.Accelerators(ctx, spec.Kernel)
		if err != nil {
			t.Fatal("Accelerators:", err)
		}
		some := false
		for _, a := range all {
			some = some || a.Works
			if a.Name == "" || a.Reason == "" {
				t.Errorf("Accelerators gives %+v; want a name and a reason", a)
			}
		}
		if !some {
			t.Errorf("Accelerators = %+v; want one that works", all)
		}
	})
	t.Run("a start whose context has ended gives no machine", func(t *testing.T) {
		d, spec := open(t)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if m, err := d.Start(ctx, spec); err == nil {
			m.Kill()
			<-m.Done()
			t.Error("Start = nil; want an error")
		}
	})
	t.Run("a guest greets, serves and stops when it is asked", func(t *testing.T) { session(t, open) })
	t.Run("a killed machine ends as killed", func(t *testing.T) { killed(t, open) })
	for _, row := range []struct {
		says, word string
		said       func(protocol.Message) bool
	}{
		{"a guest whose host is gone while it serves stops by itself", "Ready", ready},
		// It has more to say than what its host still reads, and nobody takes it.
		{"a guest whose host is gone right after its greeting stops by itself", "Welcome", welcomed},
	} {
		t.Run(row.says, func(t *testing.T) {
			m := start(t, open)
			m.hello()
			m.await(row.word, row.said)
			if err := m.Control().Close(); err != nil {
				t.Error("close the control port:", err)
			}
			m.ends(vmhost.ExitPoweredOff)
		})
	}
	t.Run("a guest stops at its power button", func(t *testing.T) {
		m := start(t, open)
		m.hello()
		m.await("Ready", ready)
		if err := m.PowerOff(within(t)); err != nil {
			t.Error("PowerOff:", err)
		}
		m.ends(vmhost.ExitPoweredOff)
	})
	t.Run("a guest does with less memory for a while", func(t *testing.T) { balloon(t, open) })
	t.Run("one machine runs in a folder at a time", func(t *testing.T) { busy(t, open) })
	t.Run("a machine that can be suspended is whole in a folder, or goes on", func(t *testing.T) { suspended(t, open) })
	t.Run("a suspended machine goes on where it was, once", func(t *testing.T) { resumed(t, open) })
}

func welcomed(m protocol.Message) bool { return m.Welcome != nil }
func ready(m protocol.Message) bool    { return m.Ready != nil }

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// session is what the daemon does with a machine that is well.
func session(t *testing.T, open func(*testing.T) (vmhost.Driver, vmhost.Spec)) {
	m := start(t, open)
	if a := m.Accelerator(); a.Name == "" || !a.Works || a.Reason == "" {
		t.Errorf("Accelerator = %+v; want one that works, and why", a)
	}
	if m.Exit() != (vmhost.Exit{}) {
		t.Errorf("Exit = %+v while the machine runs; want nothing", m.Exit())
	}
	m.hello()
	if w := m.await("Welcome", welcomed).Welcome; w.Nonce != m.nonce || w.Version != protocol.Version || w.Kernel == "" || w.Arch == "" {
		t.Errorf("Welcome = %+v; want the nonce %s, our version and what the guest is", w, m.nonce)
	}
	listening := m.await("Listening", func(m protocol.Message) bool { return m.Listening != nil }).Listening
	if r := m.await("Ready", ready).Ready; r.EngineVersion == "" || r.APIVersion == "" {
		t.Errorf("Ready = %+v; want both versions", r)
	}
	m.out.Write(protocol.Message{Ping: &protocol.Ping{ID: 77}})
	if p := m.await("Pong", func(m protocol.Message) bool { return m.Pong != nil }).Pong; p.ID != 77 {
		t.Errorf("Pong = %d after Ping 77", p.ID)
	}

	ctx := within(t)
	var links []proxy.Link
	names := map[string]bool{}
	for _, l := range m.Links() {
		if names[l.String()] || l.String() == "" {
			t.Errorf("two links, or one without a name: %q", l)
		}
		names[l.String()] = true
		if l.String() == "mux" && listening.Mux || l.String() != "mux" && listening.Vsock {
			links = append(links, l)
		}
	}
	for _, l := range links {
		t.Run("over "+l.String(), func(t *testing.T) {
			if _, err := transport.New(l, transport.NewSecret()).Dial(ctx, protocol.ServiceEcho); !errors.Is(err, transport.ErrNotOurGuest) {
				t.Errorf("Dial with another secret = %v; want ErrNotOurGuest", err)
			}
			services(t, ctx, transport.New(l, m.secret))
		})
	}
	client, tried, err := transport.Choose(ctx, links, m.secret)
	if err != nil {
		t.Fatalf("Choose = %v after %v; want a way to the guest", err, tried)
	}

	if g, ok := m.Machine.(vmhost.DiskGrower); ok {
		t.Run("its disk grows", func(t *testing.T) { grows(t, ctx, g, m.spec.Data, client) })
	}

	// A second hello is a new session: a guest brought back from a saved state gets a secret of its own.
	old := m.secret
	m.hello()
	if w := m.await("the second Welcome", welcomed).Welcome; w.Nonce != m.nonce {
		t.Errorf("the second Welcome's nonce = %s; want %s", w.Nonce, m.nonce)
	}
	m.eventually("the new secret is taken", func() bool {
		return transport.SelfTest(ctx, transport.New(linkOf(m, client.Link()), m.secret)) == nil
	})
	if err := transport.SelfTest(ctx, transport.New(linkOf(m, client.Link()), old)); err == nil {
		t.Error("the old secret is still taken after a second Hello")
	}

	m.out.Write(protocol.Message{Shutdown: &protocol.Shutdown{}})
	m.ends(vmhost.ExitPoweredOff)
	if err := m.Kill(); err != nil {
		t.Errorf("Kill after the end = %v; want nil", err)
	}
	if e := m.Exit(); e.Reason != vmhost.ExitPoweredOff {
		t.Errorf("Exit after a late Kill = %+v; want what it was", e)
	}
	if m.console.size() == 0 {
		t.Error("nothing of the guest's console came")
	}
}

// grows makes the data disk larger while the guest has it.
func grows(t *testing.T, ctx context.Context, g vmhost.DiskGrower, path string, d proxy.Dialer) {
	ask := func(req protocol.DiskRequest) (a protocol.DiskAnswer) {
		t.Helper()
		c, err := d.Dial(ctx, protocol.ServiceDisk)
		if err != nil {
			t.Fatal("Dial:", err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		if err := json.NewEncoder(c).Encode(req); err != nil {
			t.Fatalf("ask %+v: %v", req, err)
		}
		if err := json.NewDecoder(c).Decode(&a); err != nil {
			t.Fatalf("ask %+v: %v", req, err)
		}
		return a
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	before, more := ask(protocol.DiskRequest{}), int64(1<<30)
	if err := g.GrowDisk(ctx, st.Size()-512); err == nil {
		t.Error("GrowDisk to a smaller size = nil; want an error")
	}
	if err := g.GrowDisk(ctx, st.Size()+more); err != nil {
		t.Fatal("GrowDisk:", err)
	}
	if a := ask(protocol.DiskRequest{Grow: st.Size() + more}); a.Error != "" || a.Size < before.Size+more/2 {
		t.Errorf("the guest's file system has grown from %d to %+v by %d; want more than half of it", before.Size, a, more)
	}
	if now, err := os.Stat(path); err != nil || now.Size() != st.Size()+more {
		t.Errorf("the file has %d bytes (%v); want %d", now.Size(), err, st.Size()+more)
	}
	if a := ask(protocol.DiskRequest{Trim: true}); a.Error != "" {
		t.Errorf("a trim answers %+v; want no error", a)
	}
}

func linkOf(m *machine, name string) proxy.Link {
	for _, l := range m.Links() {
		if l.String() == name {
			return l
		}
	}
	return nil
}

// services tries each of guestd's.
func services(t *testing.T, ctx context.Context, d proxy.Dialer) {
	if err := transport.SelfTest(ctx, d); err != nil {
		t.Error("echo:", err)
	}
	dial := func(name string) proxy.Conn {
		c, err := d.Dial(ctx, name)
		if err != nil {
			t.Fatalf("Dial(%s) = %v", name, err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(patience))
		return c
	}
	const n = 3<<20 + 5
	sink := dial(protocol.ServiceSink)
	go func() { sink.Write(make([]byte, n)); sink.CloseWrite() }()
	if got, err := io.ReadAll(sink); err != nil || !bytes.Equal(got, binary.BigEndian.AppendUint64(nil, n)) {
		t.Errorf("sink of %d bytes answers %v, %v; want their count", n, got, err)
	}
	source := dial(protocol.ServiceSource)
	source.Write(binary.BigEndian.AppendUint64(nil, n))
	if got, err := io.Copy(io.Discard, struct{ io.Reader }{source}); got != n || err != nil {
		t.Errorf("source of %d bytes gives %d, %v", n, got, err)
	}
	var used protocol.Usage
	if err := json.NewDecoder(dial(protocol.ServiceUsage)).Decode(&used); err != nil || used.Up <= 0 || used.Memory.Free <= 0 || used.Memory.Total < used.Memory.Free || used.Containers != 0 {
		t.Errorf("usage = %+v, %v; want an idle guest's", used, err)
	}
	engine := http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.Dial(ctx, protocol.ServiceDocker)
	}}
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/_ping", nil)
	resp, err := engine.RoundTrip(req)
	if err != nil {
		t.Fatal("GET /_ping:", err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || string(b) != "OK" || err != nil {
		t.Errorf("GET /_ping = %s %q, %v; want OK", resp.Status, b, err)
	}
	var refused *transport.RefusedError
	if _, err := d.Dial(ctx, "no such"); !errors.As(err, &refused) {
		t.Errorf("Dial of no such service = %v; want a refusal", err)
	}
}

func killed(t *testing.T, open func(*testing.T) (vmhost.Driver, vmhost.Spec)) {
	m := start(t, open)
	m.hello()
	m.await("Listening", func(m protocol.Message) bool { return m.Listening != nil })
	m.await("Ready", ready)
	client, _, err := transport.Choose(within(t), m.Links(), m.secret)
	if err != nil {
		t.Fatal("Choose:", err)
	}
	conn, err := client.Dial(within(t), protocol.ServiceEcho)
	if err != nil {
		t.Fatal("Dial:", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := m.Kill(); err != nil {
				t.Error("Kill:", err)
			}
		})
	}
	wg.Wait()
	m.ends(vmhost.ExitKilled)
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Read of a connection to a machine that is gone = %v; want its end", err)
	}
}

func busy(t *testing.T, open func(*testing.T) (vmhost.Driver, vmhost.Spec)) {
	m := start(t, open)
	type result struct {
		m   vmhost.Machine
		err error
	}
	second := make(chan result, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		o, err := m.driver.Start(ctx, m.spec)
		second <- result{o, err}
	}()
	m.hello()
	m.await("Welcome", welcomed) // time enough for a second one to come through
	refused := func(r result) {
		t.Helper()
		var p *vmhost.Problem
		if r.err == nil {
			t.Error("a second machine runs in the folder of the first")
			r.m.Kill()
			<-r.m.Done()
		} else if !errors.As(r.err, &p) || p.ID != vmhost.ProblemBusy || p.Remedy == "" {
			t.Errorf("Start in the folder of another = %v; want a *vmhost.Problem %s with a remedy", r.err, vmhost.ProblemBusy)
		}
	}
	var early bool
	select {
	case r := <-second:
		early = true
		refused(r)
	default:
	}
	m.Kill()
	m.ends(vmhost.ExitKilled)
	if !early {
		// It waited, and may have given up before the first one ended.
		if r := <-second; r.err != nil {
			refused(r)
		} else {
			r.m.Kill()
			<-r.m.Done()
		}
	}
	// The folder is free again.
	o, err := m.driver.Start(within(t), m.spec)
	if err != nil {
		t.Fatalf("Start after the first one's end = %v; want a machine", err)
	}
	o.Kill()
	<-o.Done()
}

// machine is one that the suite started.
type machine struct {
	vmhost.Machine
	t       *testing.T
	driver  vmhost.Driver
	spec    vmhost.Spec
	console *console
	out     *protocol.Writer
	said    chan protocol.Message // closed when the control port ends
	nonce   string
	secret  transport.Secret
}

// start starts a machine with a context that ends with the start, and kills it after the test.
func start(t *testing.T, open func(*testing.T) (vmhost.Driver, vmhost.Spec)) *machine {
	t.Helper()
	d, spec := open(t)
	return begin(t, d, spec)
}

func begin(t *testing.T, d vmhost.Driver, spec vmhost.Spec) *machine {
	t.Helper()
	m := &machine{t: t, driver: d, console: &console{}, said: make(chan protocol.Message, 4096)}
	spec.Console = m.console
	m.spec = spec
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	if m.Machine, err = d.Start(ctx, spec); err != nil {
		t.Fatal("Start:", err)
	}
	t.Cleanup(func() {
		m.Kill()
		<-m.Done()
		m.Control().Close()
		if t.Failed() {
			t.Logf("the console's end:\n%s", m.console.end())
		}
	})
	m.out = protocol.NewWriter(m.Control())
	go func() {
		defer close(m.said)
		for in := protocol.NewReader(m.Control()); ; {
			msg, err := in.Read()
			if err != nil {
				return
			}
			m.said <- msg
		}
	}()
	return m
}

// hello opens a session with a new nonce and a new secret. A guest that still boots reads it later.
func (m *machine) hello() {
	b := make([]byte, 16)
	rand.Read(b)
	m.nonce, m.secret = hex.EncodeToString(b), transport.NewSecret()
	h := &protocol.Hello{Version: protocol.Version, Nonce: m.nonce, Secret: m.secret.RevealSecretBytes(), Time: time.Now(), Config: protocol.Config{Hostname: "vmtest"}}
	go m.out.Write(protocol.Message{Hello: h})
}

// await skips to the message that fits.
func (m *machine) await(what string, fits func(protocol.Message) bool) protocol.Message {
	m.t.Helper()
	late := time.After(patience)
	for {
		select {
		case msg, ok := <-m.said:
			switch {
			case !ok:
				m.t.Fatalf("the control port ended; want %s", what)
			case fits(msg):
				return msg
			case msg.Failed != nil:
				m.t.Fatalf("the guest says %+v; want %s", *msg.Failed, what)
			}
		case <-late:
			m.t.Fatalf("the guest does not say %s", what)
		}
	}
}

func (m *machine) eventually(what string, ok func() bool) {
	m.t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			m.t.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// ends waits for the machine's end, and looks whether all that it held is let go.
func (m *machine) ends(want vmhost.ExitReason) {
	m.t.Helper()
	select {
	case <-m.Done():
	case <-time.After(patience):
		m.t.Fatalf("the machine does not end; want %s", want)
	}
	e := m.Exit()
	if e.Reason != want || e.Detail == "" {
		m.t.Errorf("Exit = %+v; want %s and a sentence", e, want)
	}
	if again := m.Exit(); again != e {
		m.t.Errorf("Exit = %+v and then %+v; want one end", e, again)
	}
	for late := time.After(patience); ; {
		select {
		case _, ok := <-m.said:
			if ok {
				continue
			}
		case <-late:
			m.t.Error("the control port outlives its machine")
		}
		break
	}
	for _, l := range m.Links() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		c, err := l.Open(ctx)
		if err == nil {
			c.Close()
			m.t.Errorf("Open(%s) = nil after the machine's end; want an error", l)
		} else if ctx.Err() != nil {
			m.t.Errorf("Open(%s) hangs after the machine's end", l)
		}
		cancel()
	}
}

// console keeps what a guest prints.
type console struct {
	mu sync.Mutex
	b  []byte
}

func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.b = append(c.b, b...)
	return len(b), nil
}

func (c *console) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.b)
}

func (c *console) end() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b[max(0, len(c.b)-4096):]
}
