//go:build linux

package vufs

import (
	"bytes"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// echo answers with all that was asked.
func echo(in, out [][]byte) (int, syscall.Errno) {
	all := slices.Concat(in...)
	n := 0
	for _, p := range out {
		n += copy(p, all[n:])
	}
	return n, 0
}

func TestARequest(t *testing.T) {
	for _, row := range []struct {
		says   string
		pieces []piece
	}{
		{"in one piece each way", []piece{in(0, 300), out(4096, 300)}},
		{"in many pieces", []piece{in(0, 40), in(40, 1), in(41, 200), in(241, 59), out(4096, 16), out(4112, 284)}},
		{"with a header in pieces", []piece{in(0, 7), in(7, 293), out(4096, 300)}},
		{"with more room than its answer needs", []piece{in(0, 300), out(4096, 8192)}},
	} {
		for _, through := range []string{"", " through a table"} {
			t.Run(row.says+through, func(t *testing.T) {
				g := boot(t, newDevice(t, echo))
				g.header(0, 3, 77)
				for i := headerSize; i < 300; i++ {
					g.mem[dataAt+i] = byte(i)
				}
				if through == "" {
					g.chain(part(requestRing, 0), 3, row.pieces...)
				} else {
					g.chain(tableAt, 0, row.pieces...)
					g.descriptor(part(requestRing, 0), 3, piece{guestBase + tableAt, uint32(16 * len(row.pieces)), indirect}, -1)
				}
				g.give(requestRing, 3)
				if head, n := g.used(requestRing); head != 3 || n != 300 {
					t.Errorf("buffer %d came back with %d bytes; want 3 with 300", head, n)
				}
				if !bytes.Equal(g.mem[dataAt:][:300], g.mem[dataAt+4096:][:300]) {
					t.Error("the answer is not what was asked")
				}
			})
		}
	}
}

func TestRequestsAreAnsweredAsTheyEnd(t *testing.T) {
	hold := make(chan struct{})
	g := boot(t, newDevice(t, func(in, out [][]byte) (int, syscall.Errno) {
		if slices.Concat(in...)[4] == 1 {
			<-hold
		}
		return echo(in, out)
	}))
	g.header(0, 1, 1)
	g.chain(part(requestRing, 0), 0, in(0, 40), out(4096, 40))
	g.give(requestRing, 0)
	for i := range 40 { // more than the ring has entries
		g.header(100, 2, uint64(i))
		g.chain(part(requestRing, 0), 2, in(100, 40), out(8192, 40))
		g.give(requestRing, 2)
		if head, _ := g.used(requestRing); head != 2 {
			t.Fatalf("buffer %d came back; want the one that does not wait", head)
		}
	}
	close(hold)
	if head, n := g.used(requestRing); head != 0 || n != 40 {
		t.Errorf("buffer %d came back with %d bytes; want 0 with 40", head, n)
	}
}

// A guest that keeps every worker busy still gets rid of what it forgets, and gets the rest in the end.
func TestWorkersAreBounded(t *testing.T) {
	hold := make(chan struct{})
	var mu sync.Mutex
	running, most := 0, 0
	d := newDevice(t, func(in, out [][]byte) (int, syscall.Errno) {
		if slices.Concat(in...)[4] == 2 {
			return 0, 0
		}
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		<-hold
		mu.Lock()
		running--
		mu.Unlock()
		return echo(in, out)
	})
	d.most[requestRing] = 3
	g := boot(t, d)
	g.header(0, 1, 1)
	g.header(100, 2, 2)
	for i := range entries {
		g.chain(part(requestRing, 0), i, in(0, 40))
		g.give(requestRing, i)
	}
	g.chain(part(urgentRing, 0), 0, in(100, 40))
	g.give(urgentRing, 0)
	if _, n := g.used(urgentRing); n != 0 {
		t.Errorf("what is forgotten was answered with %d bytes; want none", n)
	}
	close(hold)
	for range entries {
		g.used(requestRing)
	}
	mu.Lock()
	defer mu.Unlock()
	if most > 3 {
		t.Errorf("%d requests ran at once; want at most 3", most)
	}
}

func TestAnswersInAHandlersPlace(t *testing.T) {
	for _, row := range []struct {
		says    string
		handler handlerFunc
		size    int
		want    syscall.Errno
	}{
		{"a handler that panics", func(_, _ [][]byte) (int, syscall.Errno) { panic("boom") }, 40, syscall.EIO},
		{"a handler that cannot read it", func(_, _ [][]byte) (int, syscall.Errno) { return 0, syscall.EIO }, 40, syscall.EIO},
		{"a handler that claims more than there is room for", func(_, _ [][]byte) (int, syscall.Errno) { return 1 << 20, 0 }, 40, syscall.EIO},
		{"a request shorter than its header", echo, 39, syscall.EIO},
	} {
		t.Run(row.says, func(t *testing.T) {
			g := boot(t, newDevice(t, row.handler))
			g.header(0, 1, 99)
			g.chain(part(requestRing, 0), 0, in(0, row.size), out(4096, 100))
			g.give(requestRing, 0)
			if _, n := g.used(requestRing); n != answerSize {
				t.Errorf("the answer has %d bytes; want %d", n, answerSize)
			}
			unique, errno := g.failure(4096)
			if errno != row.want || row.size >= headerSize && unique != 99 {
				t.Errorf("request %d failed with %v; want 99 with %v", unique, errno, row.want)
			}
		})
	}
}

// What decides cannot be changed by the guest while it is looked at.
func TestTheHeadIsOurs(t *testing.T) {
	asked, changed := make(chan struct{}), make(chan struct{})
	got := make(chan byte, 1)
	g := boot(t, newDevice(t, func(in, out [][]byte) (int, syscall.Errno) {
		close(asked)
		<-changed
		got <- slices.Concat(in...)[4]
		return echo(in, out)
	}))
	g.header(0, 5, 1)
	g.chain(part(requestRing, 0), 0, in(0, 100), out(4096, 100))
	g.give(requestRing, 0)
	<-asked
	g.header(0, 6, 1)
	close(changed)
	if op := <-got; op != 5 {
		t.Errorf("the opcode was %d after the guest changed it; want 5", op)
	}
	g.used(requestRing)
}

// A machine that is paused finds the answers when it goes on.
func TestAStopWaitsForAnswers(t *testing.T) {
	running, hold := make(chan struct{}, 1), make(chan struct{})
	g := boot(t, newDevice(t, func(in, out [][]byte) (int, syscall.Errno) {
		running <- struct{}{}
		<-hold
		return echo(in, out)
	}))
	g.header(0, 1, 7)
	g.chain(part(requestRing, 0), 0, in(0, 40), out(4096, 40))
	g.give(requestRing, 0)
	<-running
	time.AfterFunc(50*time.Millisecond, func() { close(hold) })
	g.stop(requestRing)
	if g.nothing(requestRing) {
		t.Fatal("the ring was stopped and its request not answered")
	}
	if head, n := g.used(requestRing); head != 0 || n != 40 {
		t.Errorf("buffer %d came back with %d bytes; want 0 with 40", head, n)
	}
}

// A request that does not end is told to the guest as interrupted; its late answer is nobody's, and the ring
// works on.
func TestAStopDoesNotWaitForEver(t *testing.T) {
	running, hold := make(chan struct{}, 1), make(chan struct{})
	d := newDevice(t, func(in, out [][]byte) (int, syscall.Errno) {
		if slices.Concat(in...)[4] == 1 {
			running <- struct{}{}
			<-hold
		}
		return echo(in, out)
	})
	d.patience = 20 * time.Millisecond
	g := boot(t, d)
	g.header(0, 1, 7)
	g.chain(part(requestRing, 0), 0, in(0, 40), out(4096, 40))
	g.give(requestRing, 0)
	<-running
	g.stop(requestRing)
	g.used(requestRing)
	if unique, errno := g.failure(4096); unique != 7 || errno != syscall.EINTR {
		t.Errorf("request %d failed with %v; want 7 with EINTR", unique, errno)
	}
	close(hold)
	g.begin(requestRing, int(g.call[requestRing].Fd()))
	g.header(100, 2, 8)
	g.chain(part(requestRing, 0), 2, in(100, 40), out(8192, 40))
	g.give(requestRing, 2)
	if head, n := g.used(requestRing); head != 2 || n != 40 {
		t.Errorf("buffer %d came back with %d bytes; want 2 with 40", head, n)
	}
}

// QEMU may be gone before a request ends: its memory stays until then, and the device serves the next one.
func TestAFrontEndThatGoesMeanwhile(t *testing.T) {
	running, hold, ended := make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	d := newDevice(t, func(in, out [][]byte) (int, syscall.Errno) {
		if slices.Concat(in...)[4] == 1 {
			defer close(ended)
			running <- struct{}{}
			<-hold
		}
		return echo(in, out)
	})
	d.patience = 20 * time.Millisecond
	g := boot(t, d)
	g.header(0, 1, 7)
	g.chain(part(requestRing, 0), 0, in(0, 40), out(4096, 40))
	g.give(requestRing, 0)
	<-running
	g.front.Close()
	if err := <-g.served; err != nil {
		t.Errorf("Serve of a front end that went away = %v; want nil", err)
	}
	g.served <- nil
	answers(t, boot(t, d))
	close(hold) // it writes into the memory of the one that is gone
	<-ended
}

// answers shows that the device works.
func answers(t *testing.T, g *guest) {
	t.Helper()
	g.header(100, 2, 8)
	g.chain(part(requestRing, 0), 2, in(100, 40), out(8192, 40))
	g.give(requestRing, 2)
	if head, n := g.used(requestRing); head != 2 || n != 40 {
		t.Fatalf("buffer %d came back with %d bytes; want 2 with 40", head, n)
	}
}

// A ring that makes no sense is not heard any more, and costs nobody else anything: the handler is not asked,
// and a driver that begins anew is served.
func TestARingOfNonsense(t *testing.T) {
	ring := part(requestRing, 0)
	table := func(size uint32) piece { return piece{guestBase + tableAt, size, indirect} }
	for _, row := range []struct {
		says string
		do   func(g *guest)
	}{
		{"a readable piece after a writable one", func(g *guest) { g.chain(ring, 0, in(0, 40), out(4096, 40), in(0, 40)) }},
		{"a chain that loops", func(g *guest) { g.descriptor(ring, 0, in(0, 40), 1); g.descriptor(ring, 1, in(0, 40), 0) }},
		{"a chain that leaves the ring", func(g *guest) { g.descriptor(ring, 0, in(0, 40), entries) }},
		{"a piece outside of memory", func(g *guest) { g.chain(ring, 0, piece{guestBase + memorySize - 4, 40, 0}) }},
		{"a piece whose end wraps around", func(g *guest) { g.chain(ring, 0, piece{^uint64(0) - 8, 40, 0}) }},
		{"a piece of four gigabytes", func(g *guest) { g.chain(ring, 0, piece{guestBase, 1<<32 - 1, 0}) }},
		{"more than a request can have", func(g *guest) {
			g.chain(ring, 0, in(0, 1<<20), in(0, 1<<20), out(0, 40))
		}},
		{"more room than an answer can have", func(g *guest) { g.chain(ring, 0, in(0, 40), out(0, 1<<20), out(0, 1<<20)) }},
		{"a table outside of memory", func(g *guest) { g.chain(ring, 0, piece{guestBase + memorySize - 16, 32, indirect}) }},
		{"a table of no entries", func(g *guest) { g.chain(ring, 0, table(0)) }},
		{"a table of half an entry", func(g *guest) { g.chain(ring, 0, table(24)) }},
		{"a table of a million entries", func(g *guest) { g.chain(ring, 0, table(16<<20)) }},
		{"a table in a table", func(g *guest) { g.chain(tableAt, 0, table(16)); g.chain(ring, 0, table(16)) }},
		{"a table with something after it", func(g *guest) { g.chain(tableAt, 0, in(0, 40)); g.descriptor(ring, 0, table(16), 1) }},
		{"a table that loops", func(g *guest) { g.descriptor(tableAt, 0, in(0, 40), 0); g.chain(ring, 0, table(64)) }},
		{"a table that leaves itself", func(g *guest) { g.descriptor(tableAt, 0, in(0, 40), 9); g.chain(ring, 0, table(64)) }},
	} {
		t.Run(row.says, func(t *testing.T) {
			d := newDevice(t, func(in, out [][]byte) (int, syscall.Errno) {
				if slices.Concat(in...)[4] != 2 {
					t.Error("the handler was asked")
				}
				return echo(in, out)
			})
			g := boot(t, d)
			row.do(g)
			g.give(requestRing, 0)
			g.say(set, words(requestRing, 1)) // the device looks at the ring before it answers
			if !g.nothing(requestRing) {
				t.Error("the device gave a buffer back")
			}
			g.stop(requestRing)
			g.avail[requestRing], g.seen[requestRing] = 0, 0
			clear(g.mem[part(requestRing, 1):part(requestRing, 3)])
			g.begin(requestRing, int(g.call[requestRing].Fd()))
			answers(t, g)
		})
	}
}

// FuzzRings has the guest's memory be anything: the device may stop hearing a ring, never fail, and never
// hand out more than a request can have.
func FuzzRings(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0}, uint32(1))
	f.Add(bytes.Repeat([]byte{0, 0, 5, 0, 0, 0, 0, 0, 40, 0, 0, 0, 4, 0, 0, 0}, 4), uint32(9))
	f.Add(bytes.Repeat([]byte{0xff}, 64), uint32(16))
	f.Fuzz(func(t *testing.T, fill []byte, index uint32) {
		if len(fill) == 0 {
			return
		}
		g := boot(t, newDevice(t, func(in, out [][]byte) (int, syscall.Errno) {
			for _, way := range [][][]byte{in, out} {
				n := 0
				for _, p := range way {
					n += len(p)
				}
				if n > maxBuffer {
					t.Errorf("%d bytes in a request; want at most %d", n, maxBuffer)
				}
			}
			return echo(in, out)
		}))
		for at := 0; at < dataAt; at += len(fill) {
			copy(g.mem[at:dataAt], fill)
		}
		for ring := range rings {
			le.PutUint32(g.mem[part(ring, 1):], index<<16)
			g.say(set, words(uint32(ring), 1))
			g.d.half.Kicked(ring)
		}
	})
}
