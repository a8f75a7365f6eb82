package vhostuser

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// State is what a device has of its own and its guest relies on. It goes through the front end into the file
// of the machine that is saved, and comes back from there before the guest runs again: the guest's memory
// and the state cannot be of two different saves.
type State interface {
	// Save writes it. The rings are stopped, and all that was taken from them is answered.
	Save(w io.Writer) error
	// Load takes what Save wrote.
	Load(r io.Reader) error
}

// Directions of SET_DEVICE_STATE_FD, and its one phase.
const (
	stateSave, stateLoad = 0, 1
	phaseStopped         = 0

	noReplyFD = 1 << 8 // in its answer: the descriptor that came is used
	refused   = 1
)

// move is the state on its way through a pipe of the front end's.
type move struct {
	pipe *os.File
	err  error
	done chan struct{}
}

// moveLocked begins to move the state, which the front end asks about afterwards.
func (s *session) moveLocked(m *message) ([]byte, error) {
	d := s.d
	if len(m.body) < 8 {
		return nil, errShort
	}
	direction, phase, fd := le.Uint32(m.body), le.Uint32(m.body[4:]), m.takeFD(0)
	if fd < 0 {
		return nil, errors.New("no descriptor for the state")
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that closing it ends who waits for it
		unix.Close(fd)
		return nil, err
	}
	pipe := os.NewFile(uintptr(fd), "state")
	busy := direction > stateLoad || phase != phaseStopped || s.move.moves()
	for i := range d.Rings {
		busy = busy || d.Rings[i].enabled
	}
	if busy {
		pipe.Close()
		return number(refused | noReplyFD), nil
	}
	mv := &move{pipe: pipe, done: make(chan struct{})}
	s.move = mv
	s.wg.Go(func() {
		defer close(mv.done)
		if direction == stateSave {
			mv.err = d.State.Save(pipe)
		} else {
			mv.err = d.State.Load(pipe)
		}
		pipe.Close()
	})
	return number(noReplyFD), nil
}

// moves says whether it is under way.
func (m *move) moves() bool {
	if m == nil {
		return false
	}
	select {
	case <-m.done:
		return false
	default:
		return true
	}
}

// result waits for the end, and is 0 for a good one.
func (m *move) result() uint64 {
	if m == nil {
		return refused
	}
	<-m.done
	if m.err != nil {
		return refused
	}
	return 0
}

// stop ends what waits for a front end that is gone.
func (m *move) stop() {
	if m != nil {
		m.pipe.Close()
	}
}
