//go:build linux

package vufs

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const getFeatures, setLogBase, getProtocol, setDeviceState, checkDeviceState = 1, 6, 15, 42, 43

// keeper is a handler with state.
type keeper struct {
	handlerFunc
	state []byte
	err   error
}

func (k *keeper) Save(w io.Writer) error {
	if k.err != nil {
		return k.err
	}
	_, err := w.Write(k.state)
	return err
}

func (k *keeper) Load(r io.Reader) (err error) {
	if k.err != nil {
		return k.err
	}
	k.state, err = io.ReadAll(r)
	return err
}

func kept(t *testing.T, k *keeper) *Device {
	if k.handlerFunc == nil {
		k.handlerFunc = echo
	}
	d := New(k, slog.New(slog.DiscardHandler))
	t.Cleanup(d.Close)
	return d
}

// transfer is what QEMU does with a state: it says which way, moves the bytes, and asks how that went.
func (g *guest) transfer(direction uint32, state []byte) (accepted, good bool, got []byte) {
	g.t.Helper()
	r, w, err := os.Pipe()
	must(g.t, err)
	theirs, ours := r, w
	if direction == 0 {
		theirs, ours = w, r
	}
	answer := le.Uint64(g.say(setDeviceState, words(direction, 0), int(theirs.Fd())))
	theirs.Close()
	if answer&0xff != 0 {
		ours.Close()
		return false, false, nil
	}
	if answer != 0x100 {
		g.t.Fatalf("the device answered %#x; want no descriptor of its own", answer)
	}
	if direction == 0 {
		got, err = io.ReadAll(ours)
		must(g.t, err)
	} else {
		ours.Write(state)
	}
	ours.Close()
	return true, le.Uint64(g.say(checkDeviceState, nil)) == 0, got
}

func TestTheStateGoesWithTheMachine(t *testing.T) {
	state := bytes.Repeat([]byte("state "), 1<<20) // more than any pipe holds
	g := boot(t, kept(t, &keeper{state: state}))
	if f, p := le.Uint64(g.say(getFeatures, nil)), le.Uint64(g.say(getProtocol, nil)); f&(1<<26) == 0 || p&(1<<1|1<<19) != 1<<1|1<<19 {
		t.Errorf("features %#x, %#x; QEMU saves none without LOG_ALL, LOG_SHMFD and DEVICE_STATE", f, p)
	}
	if accepted, _, _ := g.transfer(0, nil); accepted {
		t.Error("saved while the rings run")
	}
	for i := range rings {
		g.stop(i)
	}
	_, good, got := g.transfer(0, nil)
	if !good || !bytes.Equal(got, state) {
		t.Fatalf("saved %d bytes, %v; want %d", len(got), good, len(state))
	}

	fresh := &keeper{}
	h := boot(t, kept(t, fresh))
	for i := range rings {
		h.stop(i)
	}
	if _, good, _ := h.transfer(1, got); !good || !bytes.Equal(fresh.state, state) {
		t.Errorf("loaded %d bytes, %v; want %d", len(fresh.state), good, len(state))
	}
	for i := range rings {
		h.begin(i, int(h.call[i].Fd()))
	}
	answers(t, h)
}

func TestAStateThatCannotBeMoved(t *testing.T) {
	for direction := range uint32(2) {
		g := boot(t, kept(t, &keeper{err: errors.New("no")}))
		for i := range rings {
			g.stop(i)
		}
		if le.Uint64(g.say(checkDeviceState, nil)) == 0 {
			t.Error("a state that was never moved is said to be good")
		}
		if _, good, _ := g.transfer(direction, []byte("state")); good {
			t.Errorf("direction %d: an error of the handler's was not told", direction)
		}
		for i := range rings {
			g.begin(i, int(g.call[i].Fd()))
		}
		answers(t, g) // the machine goes on
	}
	g := boot(t, kept(t, &keeper{}))
	for i := range rings {
		g.stop(i)
	}
	if accepted, _, _ := g.transfer(7, nil); accepted {
		t.Error("a direction that there is not was accepted")
	}
}

// A front end that goes away in the middle leaves nothing behind.
func TestAFrontEndThatGoesWhileTheStateMoves(t *testing.T) {
	g := boot(t, kept(t, &keeper{}))
	for i := range rings {
		g.stop(i)
	}
	r, w, err := os.Pipe()
	must(t, err)
	defer w.Close()
	g.say(setDeviceState, words(1, 0), int(r.Fd()))
	r.Close()
	g.front.Close() // the pipe is open, and nothing comes
	if err := <-g.served; err != nil {
		t.Errorf("Serve = %v; want nil", err)
	}
	g.served <- nil
}

// A handler without state has none of it: QEMU then says that the machine cannot be saved.
func TestADeviceWithoutState(t *testing.T) {
	g := boot(t, newDevice(t, echo))
	if f, p := le.Uint64(g.say(getFeatures, nil)), le.Uint64(g.say(getProtocol, nil)); f&(1<<26) != 0 || p&(1<<19) != 0 {
		t.Errorf("features %#x, %#x; want no way to save", f, p)
	}
}

// A machine that is copied while it runs has its pages noted: what answers were written to, and the used ring.
func TestWrittenPagesAreNoted(t *testing.T) {
	g := boot(t, kept(t, &keeper{handlerFunc: func(in, out [][]byte) (int, syscall.Errno) {
		echo(in, out)
		return 40, 0 // less than there is room for
	}}))
	file, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
	must(t, err)
	defer unix.Close(file)
	must(t, unix.Ftruncate(file, 8192))
	log, err := unix.Mmap(file, 0, 8192, unix.PROT_READ, unix.MAP_SHARED)
	must(t, err)
	defer unix.Munmap(log)
	noted := func() (pages []int) {
		for i := range len(log) * 8 {
			if log[i/8]&(1<<(i%8)) != 0 {
				pages = append(pages, i)
			}
		}
		return pages
	}
	g.say(setLogBase, longs(4096, 0), file)
	answers(t, g)
	if p := noted(); len(p) != 0 {
		t.Errorf("pages %v noted before that was wanted", p)
	}
	g.say(setFeatures, longs(1<<32|1<<30|1<<28|1<<29|1<<26))
	g.say(setAddr, append(words(requestRing, 1), longs(userBase+part(requestRing, 0), userBase+part(requestRing, 2), userBase+part(requestRing, 1), 0x6000)...))
	g.header(0, 2, 1)
	g.chain(part(requestRing, 0), 2, in(0, 40), out(8192-20, 30), out(16384, 4000))
	g.give(requestRing, 2)
	g.used(requestRing)
	page := func(at int) int { return (guestBase + dataAt + at) / 4096 }
	want := []int{6, page(8192 - 20), page(8192), page(16384)}
	if got := noted(); len(got) != len(want) || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] || got[3] != want[3] {
		t.Errorf("pages %v noted; want %v", got, want)
	}
}
