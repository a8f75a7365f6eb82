package share

import (
	"time"

	"golang.org/x/sys/unix"
)

// What the guest does on the host comes back as changes on the host. It is told apart in two ways: for
// names, by what is announced before it is done, one announcement for one change; for contents and
// attributes, whose changes the kernel merges, by whether the file is still as the guest left it.

type place struct {
	dir  *node
	name string
}

type announcement struct {
	place
	mask uint32 // IN_CREATE, IN_DELETE, IN_MOVED_FROM or IN_MOVED_TO
	seen bool   // its change was read
	at   time.Time
}

// ownChanges are announcements. All under watcher.mu.
type ownChanges struct {
	coming map[place][]*announcement
	doing  map[place]int // operations that run on a name
}

// staleOwn is when an announcement whose change never came (the host's queue overflowed) is dropped.
const staleOwn = 10 * time.Second

func (o *ownChanges) clear() {
	o.coming, o.doing = map[place][]*announcement{}, map[place]int{}
}

// announce says that the guest is about to change names. The function that it returns is told how that
// went; a change that was not the guest's after all is then the host's.
func (f *FS) announce(changes ...announcement) func(done bool) {
	w := &f.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return func(bool) {}
	}
	var mine []*announcement
	for _, a := range changes {
		if a.dir.watch == 0 {
			continue
		}
		a.at = time.Now()
		w.own.coming[a.place] = append(w.own.coming[a.place], &a)
		w.own.doing[a.place]++
		mine = append(mine, &a)
	}
	return func(done bool) {
		w.mu.Lock()
		var hosts []*announcement
		for _, a := range mine {
			if w.own.doing[a.place]--; w.own.doing[a.place] <= 0 {
				delete(w.own.doing, a.place)
			}
			if !done && a.seen {
				hosts = append(hosts, a)
			}
			if !done && !a.seen {
				w.own.dropLocked(a)
			}
		}
		w.mu.Unlock()
		for _, a := range hosts {
			w.entered(a.dir, a.name, a.mask)
		}
	}
}

func (o *ownChanges) dropLocked(a *announcement) {
	left := o.coming[a.place][:0]
	for _, b := range o.coming[a.place] {
		if a != b {
			left = append(left, b)
		}
	}
	if o.coming[a.place] = left; len(left) == 0 {
		delete(o.coming, a.place)
	}
}

// isOwn says whether a change of a name was announced, and takes the announcement.
func (w *watcher) isOwn(dir *node, name string, mask uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.own.coming[place{dir, name}] {
		if a.mask&mask == 0 {
			continue
		}
		w.own.dropLocked(a)
		if time.Since(a.at) > staleOwn {
			continue
		}
		a.seen = true
		return true
	}
	return false
}

// busy says whether the guest does something with a name just now.
func (w *watcher) busy(dir *node, name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.own.doing[place{dir, name}] > 0
}

// changes begins an operation of the guest on a file's content or attributes; the function ends it, and
// notes how the guest left the file.
func (f *FS) changes(n *node, fd int) func() {
	n.busy.Add(1)
	n.turn.Add(1)
	return func() {
		if st, err := stat(fd); err == nil {
			f.nodes.mu.Lock()
			n.left = stampOf(&st)
			f.nodes.mu.Unlock()
			n.seen.Store(stampOf(&st).digest())
		}
		n.busy.Add(-1)
	}
}

// closes notes that a descriptor that could write was closed for the guest.
func (f *FS) closes(n *node) {
	f.nodes.mu.Lock()
	defer f.nodes.mu.Unlock()
	n.closed, n.closedAt = n.closed+1, time.Now()
}

// ownClose says whether a close was the guest's.
func (t *table) ownClose(n *node) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.closed == 0 {
		return false
	}
	// The kernel merges equal changes, so that the count may be too high: it is not kept for long.
	if time.Since(n.closedAt) > time.Second {
		n.closed = 0
		return false
	}
	n.closed--
	return true
}

func created(dir *node, name string) announcement {
	return announcement{place: place{dir, name}, mask: unix.IN_CREATE}
}

func deleted(dir *node, name string) announcement {
	return announcement{place: place{dir, name}, mask: unix.IN_DELETE}
}

func movedFrom(dir *node, name string) announcement {
	return announcement{place: place{dir, name}, mask: unix.IN_MOVED_FROM}
}

func movedTo(dir *node, name string) announcement {
	return announcement{place: place{dir, name}, mask: unix.IN_MOVED_TO}
}
