//go:build linux

package vuvsock

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy/proxytest"
)

func TestContract(t *testing.T) {
	for _, row := range []struct {
		says     string
		eventIdx bool
		alloc    uint32
	}{
		{"a guest that is told of every buffer", false, driverAlloc},
		{"a guest that is told of those it asked for", true, driverAlloc},
		{"a guest with little room for each connection", true, 3000},
	} {
		t.Run(row.says, func(t *testing.T) {
			d := newQuietDevice(t)
			proxytest.Run(t, opener(d, bootWith(t, d, row.eventIdx, row.alloc)))
		})
	}
}

// echoes shows that a connection works.
func echoes(t *testing.T, d *Device, g *driver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, peer, err := opener(d, g)(ctx)
	if err != nil {
		t.Fatal("open:", err)
	}
	defer c.Close()
	defer peer.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	go func() { io.Copy(peer, struct{ io.Reader }{peer}); peer.CloseWrite() }()
	go func() { c.Write([]byte("echo")); c.CloseWrite() }()
	if got, err := io.ReadAll(c); string(got) != "echo" || err != nil {
		t.Fatalf("read %q, %v; want echo", got, err)
	}
}

// reads gives what ends a Read that waits.
func reads(c net.Conn) chan error {
	ended := make(chan error, 1)
	go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
	return ended
}

func TestADriverThatBeginsAnew(t *testing.T) {
	d := newQuietDevice(t)
	g := boot(t, d, true)
	c, peer, err := opener(d, g)(context.Background())
	must(t, err)
	defer peer.Close() // and not when the collector finds it
	c.SetDeadline(time.Now().Add(time.Minute))
	ended := reads(c)
	g.reset()
	g.begin()
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read when the guest's driver begins anew = %v; want ECONNRESET", err)
	}
	echoes(t, d, g)
}

// A full disk pauses the machine, and nobody's connection may end for it.
func TestAMachineThatIsPaused(t *testing.T) {
	d := newQuietDevice(t)
	g := boot(t, d, true)
	c, peer, err := opener(d, g)(context.Background())
	must(t, err)
	defer peer.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	peer.SetDeadline(time.Now().Add(time.Minute))
	for range 3 {
		bases := g.pause()
		wrote := make(chan error, 1)
		go func() { _, err := c.Write(make([]byte, 4<<20)); wrote <- err }() // more than anybody buffers
		dialled := make(chan error, 1)
		go func() {
			c, peer, err := opener(d, g)(context.Background())
			if err == nil {
				c.Close()
				peer.Close()
			}
			dialled <- err
		}()
		waits := func() bool { // both, for the machine
			d.mu.Lock()
			defer d.mu.Unlock()
			return len(d.writers) > 0 && len(d.replies) > 0
		}
		for end := time.Now().Add(time.Minute); !waits() && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		g.goOn(bases)
		if n, err := io.ReadFull(peer, make([]byte, 4<<20)); err != nil {
			t.Fatalf("of what was written while the machine was paused, %d bytes came, and %v", n, err)
		}
		if err := <-wrote; err != nil {
			t.Errorf("Write while the machine is paused = %v; want it to wait", err)
		}
		if err := <-dialled; err != nil {
			t.Errorf("Dial while the machine is paused = %v; want it to wait", err)
		}
	}
	// A device that was taken from the guest is another matter.
	g.pause()
	ended := reads(c)
	d.Reset()
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read when the device was taken from the guest = %v; want ECONNRESET", err)
	}
	g.halt()
	g.begin()
	echoes(t, d, g)
}

func TestAFrontEndThatGoesAndComes(t *testing.T) {
	d := newQuietDevice(t)
	for range 3 {
		g := boot(t, d, true)
		echoes(t, d, g)
		c, peer, err := opener(d, g)(context.Background())
		must(t, err)
		defer peer.Close() // and not when the collector finds it
		c.SetDeadline(time.Now().Add(time.Minute))
		ended := reads(c)
		g.front.Close()
		if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Read when QEMU went away = %v; want ECONNRESET", err)
		}
		if err := <-g.served; err != nil {
			t.Errorf("Serve of a front end that went away = %v; want nil", err)
		}
		g.served <- nil // for its cleanup
		d.mu.Lock()
		if d.half.Mem != nil || len(d.conns) != 0 {
			t.Errorf("memory %v and %d connections are left of a front end that went away", d.half.Mem, len(d.conns))
		}
		d.mu.Unlock()
	}
}

func TestCloseEndsTheServing(t *testing.T) {
	d := newQuietDevice(t)
	g := boot(t, d, true)
	c, peer, err := opener(d, g)(context.Background())
	must(t, err)
	defer peer.Close() // and not when the collector finds it
	c.SetDeadline(time.Now().Add(time.Minute))
	ended := reads(c)
	d.Close()
	if err := <-ended; err == nil {
		t.Error("Read on a closed device = nil; want an error")
	}
	if err := <-g.served; err != nil {
		t.Errorf("Serve of a closed device = %v; want nil", err)
	}
	g.served <- nil
	if _, err := d.Dial(context.Background(), driverPort); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial of a closed device = %v; want net.ErrClosed", err)
	}
}

// A guest that takes nothing is dialled again and again: what waits for it does not grow.
func TestDialsThatGiveUpLeaveNothing(t *testing.T) {
	d := newQuietDevice(t)
	for range 100 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		if _, err := d.Dial(ctx, driverPort); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Dial of a guest that is not there = %v; want context.DeadlineExceeded", err)
		}
		cancel()
	}
	if n, m := len(d.replies), len(d.conns); n != 0 || m != 0 {
		t.Errorf("%d packets and %d connections wait; want none", n, m)
	}
}

// What a front end says that makes no sense ends it with a word, and the next one is served.
func TestAFrontEndOfNonsense(t *testing.T) {
	region := func(v ...uint64) []byte { return append(words(1, 0), longs(v...)...) }
	for _, row := range []struct {
		says string
		do   func(g *driver) (request uint32, body []byte, fds []int)
	}{
		{"a ring of no entries", func(g *driver) (uint32, []byte, []int) { return reqSetVringNum, words(0, 0), nil }},
		{"a ring of 65536 entries", func(g *driver) (uint32, []byte, []int) { return reqSetVringNum, words(0, 65536), nil }},
		{"a ring of four billion entries", func(g *driver) (uint32, []byte, []int) { return reqSetVringNum, words(0, 1<<32-1), nil }},
		{"a ring of 100 entries", func(g *driver) (uint32, []byte, []int) { return reqSetVringNum, words(0, 100), nil }},
		{"a ring that is not there", func(g *driver) (uint32, []byte, []int) { return reqSetVringNum, words(7, 128), nil }},
		{"a kick of a ring that is not there", func(g *driver) (uint32, []byte, []int) { return reqSetVringKick, longs(7), []int{g.kick[0]} }},
		{"a ring outside of memory", func(g *driver) (uint32, []byte, []int) { return reqSetVringAddr, g.ringAddress(0, driverMem), nil }},
		{"a ring whose end is outside of memory", func(g *driver) (uint32, []byte, []int) {
			return reqSetVringAddr, g.ringAddress(0, driverMem-0x2010), nil
		}},
		{"a ring at an odd address", func(g *driver) (uint32, []byte, []int) { return reqSetVringAddr, g.ringAddress(0, 1), nil }},
		{"a ring whose address wraps around", func(g *driver) (uint32, []byte, []int) {
			return reqSetVringAddr, append(words(0, 0), longs(^uint64(0)-8, ^uint64(0)-8, ^uint64(0)-8, 0)...), nil
		}},
		{"a short ring address", func(g *driver) (uint32, []byte, []int) { return reqSetVringAddr, words(0, 0), nil }},
		{"memory beyond the end of its file", func(g *driver) (uint32, []byte, []int) {
			return reqSetMemTable, region(driverGPA, 2*driverMem, driverUser, driverSkip), []int{g.file}
		}},
		{"memory that wraps around", func(g *driver) (uint32, []byte, []int) {
			return reqSetMemTable, region(^uint64(0)-10, driverMem, driverUser, driverSkip), []int{g.file}
		}},
		{"memory of no bytes", func(g *driver) (uint32, []byte, []int) {
			return reqSetMemTable, region(driverGPA, 0, driverUser, 0), []int{g.file}
		}},
		{"memory of all there is", func(g *driver) (uint32, []byte, []int) {
			return reqSetMemTable, region(0, ^uint64(0), 0, ^uint64(0)), []int{g.file}
		}},
		{"memory without a file", func(g *driver) (uint32, []byte, []int) {
			return reqSetMemTable, region(driverGPA, driverMem, driverUser, driverSkip), nil
		}},
		{"four billion regions", func(g *driver) (uint32, []byte, []int) { return reqSetMemTable, words(1<<32-1, 0), []int{g.file} }},
		{"a message of a megabyte", func(g *driver) (uint32, []byte, []int) { return reqSetConfig, make([]byte, 1<<20), nil }},
		{"features in three bytes", func(g *driver) (uint32, []byte, []int) { return reqSetFeatures, make([]byte, 3), nil }},
		{"configuration beyond its end", func(g *driver) (uint32, []byte, []int) {
			return reqGetConfig, append(words(4, 8, 0), make([]byte, 8)...), nil
		}},
		{"configuration of four gigabytes", func(g *driver) (uint32, []byte, []int) { return reqGetConfig, words(0, 1<<32-1, 0), nil }},
	} {
		t.Run(row.says, func(t *testing.T) {
			d := newQuietDevice(t)
			g := boot(t, d, false)
			request, body, fds := row.do(g)
			g.sayRaw(request, 0, body, fds...) // may fail: the device is free to hang up
			if err := <-g.served; err == nil {
				t.Errorf("Serve = nil; want an error that names request %d", request)
			}
			g.served <- nil
			echoes(t, d, boot(t, d, true))
		})
	}
}

// Odd, but no fault: the device goes on.
func TestAFrontEndOfOddities(t *testing.T) {
	d := newQuietDevice(t)
	g := boot(t, d, false)
	g.say(99, 0, []byte("a request of a later time"))
	if answer := g.say(98, flagNeedReply, nil); le.Uint64(answer) == 0 {
		t.Error("a request that we do not know was answered with yes")
	}
	g.say(reqSetVringCall, 0, longs(rxRing|noDescriptor))
	g.say(reqSetVringNum, 0, words(txRing, maxRingSize)) // with the addresses of a smaller one
	g.say(reqGetVringBase, 0, words(rxRing, 0))
	g.say(reqGetVringBase, 0, words(txRing, 0))
	g.halt()
	g.begin()
	echoes(t, d, g)
}

// A ring made larger after its place was told must not be read beyond that place.
func TestARingThatGrowsInPlace(t *testing.T) {
	d := newQuietDevice(t)
	g := boot(t, d, false)
	g.say(reqSetVringBase, flagNeedReply, words(txRing, 20000))
	g.say(reqSetVringNum, flagNeedReply, words(txRing, maxRingSize))
	g.avail(txRing, &g.txAvail, 30000)
	le.PutUint16(g.mem[driverPart(txRing, 1)+2:], 20001)
	g.say(reqSetVringEnable, flagNeedReply, words(txRing, 1))
}

// What the guest's kernel says that makes no sense costs at most the connection it was said on.
func TestAGuestOfNonsense(t *testing.T) {
	for _, row := range []struct {
		says string
		h    header
		body int
	}{
		{"credit of four gigabytes", header{op: opCreditUpdate, alloc: 1<<32 - 1}, 0},
		{"credit for bytes that were never sent", header{op: opCreditUpdate, alloc: 100, forwarded: 1 << 31}, 0},
		{"credit taken back", header{op: opCreditUpdate}, 0},
		{"a second response", header{op: opResponse, alloc: driverAlloc}, 0},
		{"a request on a connection that is open", header{op: opRequest, alloc: driverAlloc}, 0},
		{"an operation that there is not", header{op: 200, alloc: driverAlloc}, 0},
		{"no operation", header{op: 0, alloc: driverAlloc}, 0},
		{"a shutdown of nothing", header{op: opShutdown, alloc: driverAlloc}, 0},
		{"a shutdown with all flags", header{op: opShutdown, flags: 1<<32 - 1, alloc: driverAlloc}, 0},
		{"bytes after its end", header{op: opData, flags: 1<<32 - 1, alloc: driverAlloc}, 4096},
		{"a reset with bytes", header{op: opReset, alloc: driverAlloc}, 100},
	} {
		t.Run(row.says, func(t *testing.T) {
			d := newQuietDevice(t)
			g := boot(t, d, true)
			c, peer, err := opener(d, g)(context.Background())
			must(t, err)
			defer peer.Close()
			g.lies.Store(true)
			h := row.h
			h.srcPort, h.dstPort = driverPort, c.LocalAddr().(Addr).Port
			if row.says == "bytes after its end" {
				end := h
				end.op, end.flags = opShutdown, shutSend
				g.send(end, nil)
			}
			for range 3 {
				g.send(h, make([]byte, row.body))
			}
			echoes(t, d, g) // after it: packets are heard in order
			c.SetDeadline(time.Now().Add(20 * time.Millisecond))
			c.Write(make([]byte, 1<<20)) // whatever comes of it
			c.Read(make([]byte, 1))
			c.Close()
			echoes(t, d, g)
		})
	}
}

func TestAResetAfterAnOrderlyEndIsAnEnd(t *testing.T) {
	g := newTestGuest(t)
	c, me := dialled(t, g, 1000)
	g.send(with(me, opData), []byte("all of it"))
	end := with(me, opShutdown)
	end.flags = shutSend
	g.send(end, nil)
	g.send(with(me, opReset), nil)
	if got, err := io.ReadAll(c); string(got) != "all of it" || err != nil {
		t.Errorf("read %q, %v; want all of it and no error", got, err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Write after the reset = %v; want ECONNRESET", err)
	}
}

// FuzzPackets plays a guest that says anything on a connection, between what the host does with it.
func FuzzPackets(f *testing.F) {
	f.Add([]byte{opData, 0, 9, opShutdown, shutSend, 0, opReset, 0, 0})
	f.Add([]byte{opCreditUpdate, 0xff, 0xff, 0x80, 1, 1, opShutdown, 3, 0, opData, 0, 200})
	f.Fuzz(func(t *testing.T, script []byte) {
		g := newTestGuest(t)
		defer g.d.Close()
		c := newConn(g.d, key{local: 1 << 16, peer: driverPort})
		g.locked(func() { c.state = open; g.d.conns[c.key] = c })
		script = script[:min(len(script), 3*60)] // a step may wait a millisecond
		past := time.Unix(1, 0)
		for ; len(script) >= 3; script = script[3:] {
			op, flags, n := script[0], script[1], script[2]
			switch {
			case op&0x80 != 0: // the host's turn
				c.SetDeadline(past)
				switch op & 7 {
				case 0:
					c.SetWriteDeadline(time.Now().Add(time.Millisecond))
					c.Write(make([]byte, int(n)*100))
				case 1:
					c.SetReadDeadline(time.Now().Add(time.Millisecond))
					c.Read(make([]byte, int(n)*1000+1))
				case 2:
					c.CloseWrite()
				case 3:
					c.CloseRead()
				case 4:
					c.Close()
				}
			default:
				alloc := uint32(flags) << (n & 24)
				h := header{srcPort: driverPort, dstPort: 1 << 16, op: uint16(op), flags: uint32(flags), alloc: alloc, forwarded: uint32(n)}
				if op&0x40 != 0 {
					h.dstPort += uint32(n) // of no connection, mostly
				}
				g.send(h, make([]byte, int(n)*16))
			}
			g.locked(func() {
				if held := len(c.in) - c.inOff; held > receiveBuffer {
					t.Errorf("%d bytes are held; want at most %d", held, receiveBuffer)
				}
				if n := len(g.d.replies); n > maxReplies+8 {
					t.Errorf("%d packets wait; want at most %d", n, maxReplies)
				}
				if n := len(g.d.conns); n > 1 {
					t.Errorf("%d connections; the guest opened one", n)
				}
			})
		}
	})
}

// A ring that makes no sense is not heard any more; a driver that begins anew is.
func TestARingOfNonsense(t *testing.T) {
	at := driverBufferAt(txRing, 0)
	for _, row := range []struct {
		says string
		do   func(g *driver)
	}{
		{"a chain that loops", func(g *driver) {
			g.descriptor(txRing, 0, driverGPA+at, 10, descNext, 1)
			g.descriptor(txRing, 1, driverGPA+at, 10, descNext, 0)
			g.avail(txRing, &g.txAvail, 0)
		}},
		{"a chain that leaves the ring", func(g *driver) {
			g.descriptor(txRing, 0, driverGPA+at, 10, descNext, 0xffff)
			g.avail(txRing, &g.txAvail, 0)
		}},
		{"a head that is not in the ring", func(g *driver) { g.avail(txRing, &g.txAvail, driverRing) }},
		{"a buffer before memory", func(g *driver) {
			g.descriptor(txRing, 0, driverGPA-1, headerSize, 0, 0)
			g.avail(txRing, &g.txAvail, 0)
		}},
		{"a buffer that ends after memory", func(g *driver) {
			g.descriptor(txRing, 0, driverGPA+driverMem-headerSize+1, headerSize, 0, 0)
			g.avail(txRing, &g.txAvail, 0)
		}},
		{"a buffer that wraps around", func(g *driver) {
			g.descriptor(txRing, 0, ^uint64(0)-7, 1<<32-1, 0, 0)
			g.avail(txRing, &g.txAvail, 0)
		}},
		{"more buffers than the ring holds", func(g *driver) {
			g.txAvail += driverRing + 1
			g.avail(txRing, &g.txAvail, 0)
		}},
		{"a receive buffer for the device to read", func(g *driver) {
			for i := range uint16(driverRing) {
				g.descriptor(rxRing, i, driverGPA+driverBufferAt(rxRing, i), driverBuffer, 0, 0)
			}
			g.avail(txRing, &g.txAvail, 0) // descriptor 0 is of no bytes: too short
		}},
		{"a receive buffer outside of memory", func(g *driver) {
			for i := range uint16(driverRing) {
				g.descriptor(rxRing, i, ^uint64(0), driverBuffer, descWrite, 0)
			}
		}},
	} {
		t.Run(row.says, func(t *testing.T) {
			d := newQuietDevice(t)
			g := boot(t, d, false)
			c, peer, err := opener(d, g)(context.Background())
			must(t, err)
			defer peer.Close() // and not when the collector finds it
			c.SetDeadline(time.Now().Add(time.Minute))
			g.txMu.Lock()
			before := g.txAvail
			row.do(g)
			g.tell(txRing, before, g.txAvail)
			g.txMu.Unlock()
			ended := reads(c)
			wrote := make(chan error, 1)
			go func() { _, err := c.Write(make([]byte, 8<<20)); wrote <- err }() // into whatever is left
			g.say(reqSetVringEnable, flagNeedReply, words(rxRing, 1))            // the device still answers its front end
			g.reset()
			g.begin()
			if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("Read when the guest's driver begins anew = %v; want ECONNRESET", err)
			}
			if err := <-wrote; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("Write when the guest's driver begins anew = %v; want ECONNRESET", err)
			}
			echoes(t, d, g)
		})
	}
}
