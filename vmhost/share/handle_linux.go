package share

import (
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// handle is a file that the guest has open.
type handle struct {
	id    uint64
	node  *node
	fd    int
	flags uint32 // as the guest opened it: enough to open it again from a saved state

	asleep atomic.Bool // of a saved state, and not open yet
	waking sync.Mutex

	uses   int // under handleTable.mu
	closed bool
}

// direct, in a handle's flags, has the guest's kernel pass reads and writes on and keep nothing of them. A file
// that is open for writing alone is so: what is written goes to the host at once anyway, and a kernel that
// keeps it first asks whether the file has capabilities to lose. As long as one is, so is whoever opens the
// same file, because direct writes and kept pages do not know of each other.
const direct = 1 << 31

// again opens what an open file is as a path.
func (h *handle) again() (int, error) { return again(h.fd, unix.O_PATH) }

type handleTable struct {
	mu   sync.Mutex
	next uint64
	byID map[uint64]*handle
	max  int
}

func (t *handleTable) init(limit int) { t.next, t.byID, t.max = 1, map[uint64]*handle{}, limit }

// add makes a handle of a descriptor, which it takes over.
func (f *FS) addHandle(n *node, fd int, flags uint32) (*handle, error) {
	t := &f.handles
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.byID) >= t.max {
		unix.Close(fd)
		return nil, unix.ENFILE
	}
	h := &handle{id: t.next, node: n, fd: fd, flags: flags}
	t.next++
	t.byID[h.id] = h
	f.nodes.openedAnew(h)
	return h, nil
}

// useHandle returns a handle of this node until done: a descriptor that is in use is not closed under whoever
// reads from it, because its number would soon be another file's.
func (f *FS) useHandle(id uint64, n *node) (*handle, error) {
	t := &f.handles
	t.mu.Lock()
	h := t.byID[id]
	if h == nil || n != nil && h.node != n {
		t.mu.Unlock()
		return nil, unix.EBADF
	}
	h.uses++
	t.mu.Unlock()
	if h.asleep.Load() {
		if err := f.wake(h); err != nil {
			t.done(h)
			return nil, err
		}
	}
	return h, nil
}

func (t *handleTable) done(h *handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h.uses--
	if h.closed && h.uses == 0 {
		h.close()
	}
}

// close lets go of the descriptor, if there is one.
func (h *handle) close() {
	if h.fd >= 0 {
		unix.Close(h.fd)
	}
}

// release closes a handle when nobody uses it any longer.
func (f *FS) release(id uint64) {
	t := &f.handles
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.byID[id]
	if h == nil {
		return
	}
	delete(t.byID, id)
	f.nodes.released(h)
	if h.flags&unix.O_ACCMODE != unix.O_RDONLY {
		f.closes(h.node)
	}
	h.closed = true
	if h.uses == 0 {
		h.close()
	}
}

func (t *handleTable) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.byID {
		h.close()
	}
	clear(t.byID)
}

// openedAnew tells a node of a handle, and decides whether it is direct.
func (t *table) openedAnew(h *handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if others := h.node.open; len(others) > 0 {
		h.flags |= others[0].flags & direct
	} else if h.flags&unix.O_ACCMODE == unix.O_WRONLY {
		h.flags |= direct
	}
	h.node.open = append(h.node.open, h)
}

// opened and released tell a node of its handles: a deleted file that is open has no other way to it.

func (t *table) opened(h *handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h.node.open = append(h.node.open, h)
}

func (t *table) released(h *handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h.node.open = slices.DeleteFunc(h.node.open, func(o *handle) bool { return o == h })
}
