//go:build linux

package vuvsock

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy"
)

// locked runs f with the device's lock, since the device answers on other goroutines too.
func (g *guest) locked(f func()) { g.d.mu.Lock(); defer g.d.mu.Unlock(); f() }

// await takes packets until one with the operation came, and gives it.
func (g *guest) await(t *testing.T, op uint16) (header, []byte) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		g.take()
		for i, h := range g.received {
			if h.op == op {
				body := g.bodies[i]
				g.received, g.bodies = append(g.received[:i:i], g.received[i+1:]...), append(g.bodies[:i:i], g.bodies[i+1:]...)
				return h, body
			}
		}
	}
	t.Fatalf("no packet with operation %d came; got %+v", op, g.received)
	return header{}, nil
}

// dialled is a connection whose guest end the test plays.
func dialled(t *testing.T, g *guest, credit uint32) (proxy.Conn, header) {
	t.Helper()
	got := make(chan proxy.Conn, 1)
	go func() {
		c, err := g.d.Dial(context.Background(), 1023)
		if err != nil {
			t.Error("Dial:", err)
		}
		got <- c
	}()
	req, _ := g.await(t, opRequest)
	// The guest's side of every packet from here on.
	me := header{srcPort: 1023, dstPort: req.srcPort, alloc: credit}
	g.send(with(me, opResponse), nil)
	c := <-got
	if c == nil {
		t.FailNow()
	}
	c.SetDeadline(time.Now().Add(time.Minute))
	return c, me
}

func with(h header, op uint16) header { h.op = op; return h }

func TestAConnection(t *testing.T) {
	g := newTestGuest(t)
	c, me := dialled(t, g, 64<<10)
	if _, err := c.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if _, body := g.await(t, opData); string(body) != "question" {
		t.Errorf("the guest read %q; want question", body)
	}
	c.CloseWrite()
	if h, _ := g.await(t, opShutdown); h.flags != shutSend {
		t.Errorf("CloseWrite said flags %d; want %d", h.flags, shutSend)
	}
	g.send(with(me, opData), []byte("answer"))
	end := with(me, opShutdown)
	end.flags = shutSend
	g.send(end, nil)
	got, err := io.ReadAll(c)
	if string(got) != "answer" || err != nil {
		t.Errorf("read %q, %v; want answer", got, err)
	}
	c.Close()
}

func TestNobodyListens(t *testing.T) {
	g := newTestGuest(t)
	failed := make(chan error, 1)
	go func() {
		_, err := g.d.Dial(context.Background(), 9)
		failed <- err
	}()
	req, _ := g.await(t, opRequest)
	g.send(header{srcPort: 9, dstPort: req.srcPort, op: opReset}, nil)
	if err := <-failed; !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Dial of a port that nobody listens on = %v; want ECONNREFUSED", err)
	}
}

func TestTheGuestMayOpenNothing(t *testing.T) {
	g := newTestGuest(t)
	g.send(header{srcPort: 5000, dstPort: 22, op: opRequest, alloc: 1 << 20}, nil)
	if h, _ := g.await(t, opReset); h.dstPort != 5000 || h.srcPort != 22 {
		t.Errorf("the reset goes from %d to %d; want from 22 to 5000", h.srcPort, h.dstPort)
	}
	if n := len(g.d.conns); n != 0 {
		t.Errorf("%d connections; want none", n)
	}
}

func TestCreditIsKept(t *testing.T) {
	g := newTestGuest(t)
	c, me := dialled(t, g, 1000)
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(bytes.Repeat([]byte("x"), 3000))
		wrote <- err
	}()
	total := uint32(0)
	for total < 3000 {
		_, body := g.await(t, opData)
		total += uint32(len(body))
		if total > me.forwarded+1000 {
			t.Fatalf("%d bytes came with credit for %d", total, me.forwarded+1000)
		}
		select {
		case err := <-wrote:
			if total < 3000 {
				t.Fatalf("Write returned %v with %d bytes taken", err, total)
			}
			wrote <- err
		default:
		}
		if total == me.forwarded+1000 { // only then it gets more
			me.forwarded = total
			g.send(with(me, opCreditUpdate), nil)
		}
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

func TestAGuestThatSendsTooMuchLosesItsConnection(t *testing.T) {
	g := newTestGuest(t)
	c, me := dialled(t, g, 1000)
	for range receiveBuffer/4096 + 1 {
		g.send(with(me, opData), make([]byte, 4096))
	}
	g.await(t, opReset)
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read = %v; want ECONNRESET", err)
	}
}

func TestResetsAndDeadlines(t *testing.T) {
	g := newTestGuest(t)
	c, me := dialled(t, g, 0)
	c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Write([]byte("no credit")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write without credit = %v; want the deadline", err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read of nothing = %v; want the deadline", err)
	}
	c.SetDeadline(time.Now().Add(time.Minute))
	g.send(with(me, opReset), nil)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read after a reset = %v; want ECONNRESET", err)
	}
	other, _ := dialled(t, g, 1000)
	g.locked(g.d.resetLocked) // what a reboot of the guest does
	if _, err := other.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read after the guest's reboot = %v; want ECONNRESET", err)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	g := newTestGuest(t)
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() {
		_, err := g.d.Dial(ctx, 1)
		failed <- err
	}()
	g.await(t, opRequest)
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("Dial = %v; want context.Canceled", err)
	}
	g.await(t, opReset)
}

// What the guest writes into its rings is an attacker's: the device may stop hearing the ring, never fail.
func TestBrokenRings(t *testing.T) {
	for name, breakIt := range map[string]func(g *guest){
		"a chain that loops": func(g *guest) {
			d := g.mem[part(txRing, 0):]
			le.PutUint64(d, guestBase+bufferAt)
			le.PutUint32(d[8:], 10)
			le.PutUint16(d[12:], descNext)
			le.PutUint16(d[14:], 0)
		},
		"a buffer outside of memory":          func(g *guest) { le.PutUint64(g.mem[part(txRing, 0):], guestBase+memorySize-4) },
		"a buffer whose end wraps around":     func(g *guest) { le.PutUint64(g.mem[part(txRing, 0):], ^uint64(0)-8) },
		"a head beyond the ring":              func(g *guest) { le.PutUint16(g.mem[part(txRing, 1)+4:], entries+5) },
		"a next beyond the ring":              func(g *guest) { le.PutUint32(g.mem[part(txRing, 0)+12:], descNext|0xffff<<16) },
		"more buffers than the ring holds":    func(g *guest) { le.PutUint32(g.mem[part(txRing, 1):], 999<<16) },
		"a length of four gigabytes":          func(g *guest) { le.PutUint32(g.mem[part(txRing, 0)+8:], ^uint32(0)) },
		"a packet longer than its buffer":     func(g *guest) { le.PutUint32(g.buffer(txRing, 0)[24:], ^uint32(0)) },
		"a buffer too short for a header":     func(g *guest) { le.PutUint32(g.mem[part(txRing, 0)+8:], headerSize-1) },
		"a packet in somebody else's name":    func(g *guest) { le.PutUint64(g.buffer(txRing, 0), 99) },
		"a packet of a kind that is not ours": func(g *guest) { le.PutUint16(g.buffer(txRing, 0)[28:], 77) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newTestGuest(t)
			h := header{srcCID: testCID, dstCID: hostCID, kind: kindStream, srcPort: 1, dstPort: 2, op: opData, size: 4}
			h.put((*[headerSize]byte)(g.buffer(txRing, 0)))
			g.give(txRing, 0, 0, headerSize+4)
			breakIt(g)
			g.d.kicked()
			g.d.kicked()
			g.d.Close()
		})
	}
}

func FuzzRings(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0}, uint32(1<<16), uint32(1<<16))
	f.Add(bytes.Repeat([]byte{0xff}, 64), uint32(16<<16), uint32(3<<16))
	f.Fuzz(func(t *testing.T, fill []byte, txHead, rxHead uint32) {
		if len(fill) == 0 {
			return
		}
		file, mem := newMemory(t)
		// The pattern covers the rings and the first buffers, so that chains lead somewhere.
		for at := 0; at < 3*bufferAt; at += len(fill) {
			copy(mem[at:], fill)
		}
		d := newDevice(t, file, uint64(txHead&1)<<featEventIdx)
		defer d.Close()
		d.mu.Lock()
		c := newConn(d, key{local: 1 << 16, peer: 1023})
		c.state, c.alloc = open, 1<<20
		c.out = make([]byte, 10000)
		d.conns[c.key] = c
		c.enqueueLocked()
		d.mu.Unlock()
		le.PutUint32(mem[part(txRing, 1):], txHead)
		le.PutUint32(mem[part(rxRing, 1):], rxHead)
		d.kicked()
		d.kicked()
	})
}
