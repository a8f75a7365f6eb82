package ports

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
)

// waker counts those who want the guest, and lets some.
type waker struct {
	asked atomic.Int64
	never atomic.Bool // nobody may
}

func (w *waker) wake(netip.Addr) bool {
	w.asked.Add(1)
	return !w.never.Load()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

func dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(network, address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * patience))
	return c
}

func bound(t *testing.T, p *Publisher, network, target string) string {
	t.Helper()
	b := protocol.Bind{Key: network, Protocol: network, Address: "127.0.0.1:" + freePort(t, network), Target: target}
	if err := p.Bind(b); err != nil {
		t.Fatal(err)
	}
	return b.Address
}

func TestConnectionsOfASleepAreAllServedAfterIt(t *testing.T) {
	var w waker
	p := asleep(t, w.wake)
	at := bound(t, p, "tcp", echoTCP(t))
	const clients = 1000
	var wg sync.WaitGroup
	for i := range clients {
		c := dial(t, "tcp", at)
		wg.Go(func() {
			defer c.Close()
			text := strings.Repeat(fmt.Sprint("client ", i, " "), 1+i%500) // some longer than what is read ahead
			io.WriteString(c, text)
			c.(*net.TCPConn).CloseWrite()
			if b, err := io.ReadAll(c); string(b) != "echo "+text {
				t.Errorf("client %d got %d bytes, %v; want %d", i, len(b), err, 5+len(text))
			}
		})
	}
	eventually(t, "all of them waiting", func() bool { return p.Activity().Open == clients })
	eventually(t, "the guest asked for by each", func() bool { return w.asked.Load() >= clients })
	p.Lead(guest{})
	wg.Wait()
	if got := w.asked.Load(); got != clients {
		t.Errorf("the guest was asked for %d times; want once for each of %d", got, clients)
	}
	eventually(t, "the end of all", func() bool { return p.Activity().Open == 0 })
	if len(p.held) != 0 || len(p.dialling) != 0 {
		t.Errorf("%d places and %d turns are still taken", len(p.held), len(p.dialling))
	}
}

func TestAClientThatLeavesIsLetGo(t *testing.T) {
	p := asleep(t, new(waker).wake)
	at := bound(t, p, "tcp", echoTCP(t))
	c := dial(t, "tcp", at)
	io.WriteString(c, "never mind")
	eventually(t, "the client waiting", func() bool { return len(p.held) == 1 })
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	eventually(t, "its place free", func() bool { return len(p.held) == 0 && p.Activity().Open == 0 })
}

func TestThoseWhoMayNotWakeWaitForOthers(t *testing.T) {
	var w waker
	w.never.Store(true)
	p := asleep(t, w.wake)
	at := bound(t, p, "tcp", echoTCP(t))
	first := dial(t, "tcp", at)
	eventually(t, "the first waiting", func() bool { return p.Activity().Open == 1 })
	gone := dial(t, "tcp", at)
	eventually(t, "another", func() bool { return p.Activity().Open == 2 })
	gone.Close()
	eventually(t, "it let go", func() bool { return p.Activity().Open == 1 })
	var others []net.Conn
	for range maxStrays {
		others = append(others, dial(t, "tcp", at))
	}
	eventually(t, "all of them at their places", func() bool { return p.Activity().Total == 2+maxStrays })
	if _, err := io.ReadAll(first); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the oldest of too many got %v; want a reset", err)
	}
	w.never.Store(false)
	waking := dial(t, "tcp", at)
	eventually(t, "one who may wake it in a place of his own", func() bool { return len(p.held) == 1 })
	p.Lead(guest{})
	for i, c := range append(others, waking) {
		io.WriteString(c, "x")
		c.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(c); string(b) != "echo x" {
			t.Errorf("client %d got %q, %v", i, b, err)
		}
	}
}

func TestBeyondThePlacesTheKernelHoldsThem(t *testing.T) {
	p := asleep(t, new(waker).wake)
	p.held = make(chan struct{}, 2)
	at := bound(t, p, "tcp", echoTCP(t))
	var all []net.Conn
	for range 20 {
		all = append(all, dial(t, "tcp", at))
	}
	eventually(t, "as many as there are places, and one at the door", func() bool { return p.Activity().Open == 3 })
	p.Lead(guest{})
	for i, c := range all {
		io.WriteString(c, "x")
		c.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(c); string(b) != "echo x" {
			t.Errorf("client %d got %q, %v", i, b, err)
		}
	}
}

// half answers with "half", and goes on only when it is told to.
func half(t *testing.T) string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			io.WriteString(c, "half")
		}
	}()
	return l.Addr().String()
}

func TestWhatTheSleepCutsIsNoWholeAnswer(t *testing.T) {
	for _, row := range []struct {
		says string
		cut  func(*Publisher, proxy.Conn)
	}{
		{"sleep", func(p *Publisher, _ proxy.Conn) { p.Suspend() }},
		{"the transport's death", func(_ *Publisher, guest proxy.Conn) { guest.SetDeadline(time.Unix(1, 0)) }},
		{"release", func(p *Publisher, _ proxy.Conn) { p.Release("tcp") }},
	} {
		for _, ends := range []bool{false, true} {
			p := asleep(t, nil)
			reached := make(chan proxy.Conn, 1)
			p.Lead(proxy.DialFunc(func(ctx context.Context, service string) (proxy.Conn, error) {
				c, err := guest{}.Dial(ctx, service)
				reached <- c
				return c, err
			}))
			c := dial(t, "tcp", bound(t, p, "tcp", half(t)))
			if ends {
				c.(*net.TCPConn).CloseWrite()
			}
			b := make([]byte, 4)
			if _, err := io.ReadFull(c, b); err != nil {
				t.Fatal(err)
			}
			row.cut(p, <-reached)
			if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("after half an answer, cut by %s (input ended %t), the client got %v; want a reset", row.says, ends, err)
			}
		}
	}
}

func TestAConnectionThatIsDialledWhenItFallsAsleepIsServedAfterIt(t *testing.T) {
	p := asleep(t, new(waker).wake)
	dialling := make(chan struct{})
	p.Lead(proxy.DialFunc(func(ctx context.Context, _ string) (proxy.Conn, error) {
		close(dialling)
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	at := bound(t, p, "tcp", echoTCP(t))
	c := dial(t, "tcp", at)
	<-dialling
	p.Suspend()
	io.WriteString(c, "still here")
	c.(*net.TCPConn).CloseWrite()
	p.Lead(guest{})
	if b, err := io.ReadAll(c); string(b) != "echo still here" {
		t.Errorf("it got %q, %v", b, err)
	}
}

// records is a guest that keeps the datagrams that it gets, by the order of their coming.
type records struct {
	mu  sync.Mutex
	got []string
}

func (r *records) Dial(context.Context, string) (proxy.Conn, error) {
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	go func() {
		in, b := Datagrams(theirs), make([]byte, maxPayload)
		for {
			n, err := in.Read(b)
			if err != nil {
				theirs.Close()
				return
			}
			r.mu.Lock()
			r.got = append(r.got, string(b[:n]))
			r.mu.Unlock()
		}
	}()
	return ours, nil
}

func (r *records) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// send sends datagrams, each when the one before has been taken from the kernel, so that none is lost there.
func send(t *testing.T, p *Publisher, taken func() int, c net.Conn, texts ...string) {
	t.Helper()
	for _, text := range texts {
		before := taken()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a datagram taken", func() bool { return taken() > before })
	}
}

func TestTheFirstDatagramsOfASleepAreKeptInOrder(t *testing.T) {
	for _, row := range []struct {
		says          string
		size, n, kept int
	}{
		{"256 of them", 10, 300, 256},
		{"1 MiB of them", 50 << 10, 30, 20},
	} {
		var w waker
		p := asleep(t, w.wake)
		at := bound(t, p, "udp", "192.0.2.1:7")
		c := dial(t, "udp", at)
		pad := strings.Repeat("x", row.size-8)
		var sent []string
		for i := range row.n {
			sent = append(sent, fmt.Sprintf("%08d%s", i, pad))
		}
		send(t, p, func() int { return int(w.asked.Load()) }, c, sent...)
		eventually(t, row.says+": the rest counted as dropped", func() bool { return p.List()[0].Dropped == int64(row.n-row.kept) })
		var r records
		p.Lead(&r)
		eventually(t, row.says+": what was kept delivered", func() bool { return len(r.all()) >= row.kept })
		io.WriteString(c, "later")
		eventually(t, row.says+": a later one delivered", func() bool { return len(r.all()) > row.kept })
		if got := r.all(); !slices.Equal(got[:row.kept], sent[:row.kept]) || got[row.kept] != "later" || len(got) != row.kept+1 {
			t.Errorf("%s: %d were delivered, not the first %d in order and the later one", row.says, len(got), row.kept)
		}
	}
}

func TestStrayDatagramsTakeNoRoomOfOthers(t *testing.T) {
	var w waker
	w.never.Store(true)
	p := asleep(t, w.wake)
	at := bound(t, p, "udp", "192.0.2.1:7")
	asked := func() int { return int(w.asked.Load()) }
	stray, mine := dial(t, "udp", at), dial(t, "udp", at)
	var texts []string
	for i := range 2 * maxEarly {
		texts = append(texts, fmt.Sprint("stray ", i))
	}
	send(t, p, asked, stray, texts...)
	w.never.Store(false)
	send(t, p, asked, mine, "mine")
	var r records
	p.Lead(&r)
	eventually(t, "the one who may wake it, and a quarter of strays", func() bool { return len(r.all()) == maxEarly/4+1 })
	if !slices.Contains(r.all(), "mine") {
		t.Error("what woke the guest was not delivered")
	}
}

func TestFlowsEndWithTheSleepAndBeginAnewAfterIt(t *testing.T) {
	var w waker
	p := asleep(t, w.wake)
	p.Lead(guest{})
	c := dial(t, "udp", bound(t, p, "udp", echoUDP(t)))
	echo := func(text string) bool {
		io.WriteString(c, text)
		b := make([]byte, 100)
		c.SetReadDeadline(time.Now().Add(time.Second))
		n, _ := c.Read(b)
		return string(b[:n]) == "echo "+text
	}
	eventually(t, "an echo", func() bool { return echo("a") })
	p.Suspend()
	eventually(t, "the flow's end", func() bool { return p.Activity().Open == 0 })
	io.WriteString(c, "b")
	eventually(t, "a word that wakes", func() bool { return w.asked.Load() > 0 })
	p.Lead(guest{})
	b := make([]byte, 100)
	c.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.Read(b); string(b[:n]) != "echo b" {
		t.Errorf("after the sleep it got %q, %v", b[:n], err)
	}
}

func TestSuspendIfIsForTheQuiet(t *testing.T) {
	p := newPublisher(t)
	at := bound(t, p, "tcp", echoTCP(t))
	quiet := p.Activity()
	if got, err := ask(t, at, "x"); got != "echo x" {
		t.Fatal(got, err)
	}
	if p.SuspendIf(quiet) {
		t.Error("it slept over a connection")
	}
	if got, err := ask(t, at, "y"); got != "echo y" {
		t.Errorf("after a sleep that did not come: %q, %v", got, err)
	}
	eventually(t, "quiet", func() bool { return p.SuspendIf(p.Activity()) })
	want := Activity{Total: 2, Bytes: int64(len("x") + len("echo x") + len("y") + len("echo y"))}
	p.Release("tcp")
	if got := p.Activity(); got != want {
		t.Errorf("Activity() = %+v; want %+v, of ports that are no more too", got, want)
	}
}

func TestWhoComesAfterHoldsTheSamePorts(t *testing.T) {
	target := echoTCP(t)
	before := newPublisher(t)
	for _, b := range []protocol.Bind{
		{Key: "mine", Protocol: "tcp", Address: "127.0.0.1:" + freePort(t, "tcp"), Target: target, Container: "c"},
		{Key: "taken", Protocol: "tcp", Address: "127.0.0.1:" + freePort(t, "tcp"), Target: target},
		{Key: "udp", Protocol: "udp", Address: "127.0.0.1:" + freePort(t, "udp"), Target: target, HostNetwork: true},
	} {
		if err := before.Bind(b); err != nil {
			t.Fatal(err)
		}
	}
	saved, err := json.Marshal(before.Table())
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]string{}
	for _, b := range before.Table() {
		at[b.Key] = b.Address
	}
	before.Close()
	other, err := net.Listen("tcp4", at["taken"])
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()

	var table []protocol.Bind
	if err := json.Unmarshal(saved, &table); err != nil {
		t.Fatal(err)
	}
	var w waker
	p := asleep(t, w.wake)
	p.retry = time.Millisecond
	if err := p.Hold(table); kind(err) != protocol.AskInUse || !strings.Contains(err.Error(), at["taken"]) {
		t.Errorf("Hold with a port taken meanwhile = %v; want that it is in use", err)
	}
	faults := func() (all []string) {
		for _, l := range p.List() {
			if l.Fault != "" {
				all = append(all, l.Bind.Key+": "+l.Fault)
			}
		}
		return all
	}
	if got := faults(); len(got) != 1 || !strings.Contains(got[0], at["taken"]+"/tcp: address already in use") {
		t.Errorf("faults are %q; want the taken port", got)
	}
	if again, err := json.Marshal(p.Table()); err != nil || !bytes.Equal(again, saved) {
		t.Errorf("the table is %s; want the same as before, %s", again, saved)
	}

	c := dial(t, "tcp", at["mine"])
	eventually(t, "a client that waits", func() bool { return len(p.held) == 1 })
	p.Lead(guest{})
	if err := p.Hold(table); err != nil { // the guest's own list, at its wake
		t.Errorf("the guest's list, with a fault that is known: %v", err)
	}
	io.WriteString(c, "held")
	c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "echo held" {
		t.Errorf("who waited over the guest's list got %q, %v", b, err)
	}
	other.Close()
	eventually(t, "the taken port ours when it is free", func() bool { return len(faults()) == 0 })
	if got, err := ask(t, at["taken"], "x"); got != "echo x" {
		t.Errorf("the port that was taken answers %q, %v", got, err)
	}
}

func TestAFaultEndsWithItsPort(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p := newPublisher(t)
	p.retry = time.Millisecond
	b := protocol.Bind{Key: "k", Protocol: "tcp", Address: taken.Addr().String(), Target: echoTCP(t)}
	if err := p.Hold([]protocol.Bind{b}); kind(err) != protocol.AskInUse {
		t.Fatal(err)
	}
	if err := p.Bind(b); kind(err) != protocol.AskInUse {
		t.Errorf("Bind of a fault = %v; want why", err)
	}
	p.Release("k")
	if l := p.List(); len(l) != 0 {
		t.Errorf("after its release %+v is there", l)
	}
	eventually(t, "nobody trying", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return !p.retrying })
}

// counted is a guest that counts how often it is dialled.
type counted struct {
	guest
	dials atomic.Int64
}

func (c *counted) Dial(ctx context.Context, service string) (proxy.Conn, error) {
	c.dials.Add(1)
	return c.guest.Dial(ctx, service)
}

func TestAGuestThatBootsInPlaceOfAWakeServesWhoWaited(t *testing.T) {
	p := asleep(t, new(waker).wake)
	at := map[string]protocol.Bind{}
	for _, key := range []string{"back", "not back"} {
		b := protocol.Bind{Key: key, Protocol: "tcp", Address: "127.0.0.1:" + freePort(t, "tcp"), Target: "192.0.2.1:80"}
		if err := p.Bind(b); err != nil {
			t.Fatal(err)
		}
		at[key] = b
	}
	back, not := dial(t, "tcp", at["back"].Address), dial(t, "tcp", at["not back"].Address)
	eventually(t, "both waiting", func() bool { return len(p.held) == 2 })
	p.Disown()
	var g counted
	p.Lead(&g)
	p.Hold(nil) // its engine has not started yet
	b := at["back"]
	// The engine binds what it finds of before, where no container is, and releases it; then come its bind, and
	// its proxy's claim, for a container that does not listen yet.
	late := "127.0.0.1:" + freePort(t, "tcp")
	for _, b.Target = range []string{"", "127.0.0.1:1", "release", "", late} {
		if b.Target == "release" {
			p.Release(b.Key)
		} else if err := p.Bind(b); err != nil {
			t.Fatal(err)
		}
		gone := make([]byte, 1)
		back.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := back.Read(gone); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("while the engine starts who waits for %q got %v; want to wait on", b.Target, err)
		}
	}
	back.SetReadDeadline(time.Now().Add(patience))
	p.Settle()
	eventually(t, "a try before the container listens", func() bool { return g.dials.Load() > 0 })
	echoAt(t, late)
	io.WriteString(back, "x")
	back.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(back); string(b) != "echo x" {
		t.Errorf("who waited for a port that is back got %q, %v", b, err)
	}
	if _, err := io.ReadAll(not); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("who waited for a port that is not back got %v; want a reset", err)
	}
	if l := p.List(); len(l) != 1 || l[0].Bind.Key != "back" {
		t.Errorf("held are %+v; want the port that is back", l)
	}
	if p.Release("back"); len(p.List()) != 0 {
		t.Error("a release after Settle is none")
	}
}
