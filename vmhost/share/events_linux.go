package share

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"golang.org/x/sys/unix"
)

// event is a change of the host that the guest is to replay.
type event struct {
	seq      uint64
	op       string
	kind     uint32
	from, to place // to of a rename only; a nil dir is a place outside of what the guest knows
	subject  *node // what it is about, where the guest knows it
	over     *node // what a rename replaced, where the guest knows it
	at       time.Time
	done     bool // the guest's kernel has taken it; under watcher.mu
}

// content is a change of what a file has or is, which may be told once for many.
type content struct {
	op   string
	kind uint32
	place
}

func (e *event) content() content { return content{e.op, e.kind, e.from} }

// maxEvents bounds what waits to be replayed. Beyond it, the rest is found by looking at every folder.
const maxEvents = 8192

// queue is what waits to be replayed, and what is being replayed. All under watcher.mu.
type queue struct {
	next    uint64
	waiting []*event
	sent    []*event
	current *event           // of sent
	going   map[place]int    // names that the host removed and the guest's kernel may still have
	written map[content]bool // contents that wait, to have each once
	ready   chan struct{}    // has one element when there is something
	again   bool             // too much was changed: look at every folder
	forget  bool             // the guest is to be told to forget
	unheard bool             // what was told last was not answered yet
	stale   bool             // changes have waited for too long, and the guest was told to forget
	paced   map[content]*pace
	pacer   *time.Timer
}

func (q *queue) clear() {
	if q.pacer != nil {
		q.pacer.Stop()
	}
	*q = queue{next: q.next, going: map[place]int{}, written: map[content]bool{}, paced: map[content]*pace{}, ready: make(chan struct{}, 1)}
}

func (w *watcher) queueUp(e event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := &w.queue
	if w.file == nil || e.from.dir != nil && w.fs.hides(e.from.dir, e.from.name) || e.to.dir != nil && w.fs.hides(e.to.dir, e.to.name) {
		return
	}
	if len(q.waiting) >= maxEvents {
		q.again = true
		return
	}
	switch e.op {
	case protocol.FileLooked:
		if q.written[e.content()] {
			return
		}
		q.written[e.content()] = true
	case protocol.FileModified, protocol.FileWritten, protocol.FileAttributes:
		if q.written[e.content()] || w.holdsLocked(&e) {
			return
		}
		q.written[e.content()] = true
	case protocol.FileDeleted, protocol.FileRenamed:
		q.going[e.from]++
	}
	q.addLocked(&e)
	if e.op == protocol.FileRenamed && e.to.dir != nil && e.subject != nil && e.kind == unix.S_IFREG {
		// What is yet to be told of its content is not found by its old name.
		q.addLocked(&event{op: protocol.FileLooked, kind: e.kind, from: e.to})
	}
}

func (q *queue) addLocked(e *event) {
	q.next++
	e.seq, e.at = q.next, time.Now()
	q.waiting = append(q.waiting, e)
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// pace is how often one kind of change of one file is told. The first is told at once, and what comes soon
// after it together, after a pause that grows as long as there is more: a log that the host writes all the
// time would otherwise keep the guest busy.
type pace struct {
	until time.Time
	pause time.Duration
	held  *event
}

const (
	firstPause = 50 * time.Millisecond
	maxPause   = 800 * time.Millisecond
)

// holdsLocked says whether a change is told later.
func (w *watcher) holdsLocked(e *event) bool {
	q := &w.queue
	if p := q.paced[e.content()]; p != nil {
		p.held = e
		return true
	}
	q.paced[e.content()] = &pace{until: time.Now().Add(firstPause), pause: firstPause}
	if q.pacer == nil {
		q.pacer = time.AfterFunc(firstPause, func() { w.tellHeld(false) })
	}
	return false
}

// tellHeld tells what was held for long enough, or all.
func (w *watcher) tellHeld(all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	q, now := &w.queue, time.Now()
	for c, p := range q.paced {
		switch {
		case now.Before(p.until) && !(all && p.held != nil):
		case p.held == nil:
			delete(q.paced, c)
		default:
			if !q.written[c] {
				q.written[c] = true
				q.addLocked(p.held)
			}
			p.pause = min(2*p.pause, maxPause)
			p.held, p.until = nil, now.Add(p.pause)
		}
	}
	if q.pacer != nil {
		q.pacer.Stop()
	}
	if q.pacer = nil; len(q.paced) > 0 {
		q.pacer = time.AfterFunc(firstPause, func() { w.tellHeld(false) })
	}
}

// entered takes a name that came, went, or came from a place that nobody watches.
func (w *watcher) entered(dir *node, name string, mask uint32) {
	known := w.fs.nodes.child(dir, name)
	switch {
	case mask&unix.IN_CREATE != 0:
		w.queueUp(event{op: protocol.FileCreated, kind: w.kindAt(dir, name, mask), from: place{dir, name}})
	case mask&unix.IN_DELETE != 0:
		known = fits(known, mask)
		w.queueUp(event{op: protocol.FileDeleted, kind: kindOf(known, mask), from: place{dir, name}, subject: known})
	case mask&unix.IN_MOVED_TO != 0:
		w.renamed(nil, "", dir, name, mask)
	case mask&unix.IN_MOVED_FROM != 0:
		w.renamed(dir, name, nil, "", mask)
	}
}

// fits drops a node that cannot be what a change is about: its name is another file's by now.
func fits(n *node, mask uint32) *node {
	if n != nil && (n.kind == unix.S_IFDIR) != (mask&unix.IN_ISDIR != 0) {
		return nil
	}
	return n
}

// kindAt is what a change at a name is about; what is there now may be something else already.
func (w *watcher) kindAt(dir *node, name string, mask uint32) uint32 {
	if st, err := w.fs.statName(dir, name); err == nil {
		if kind := uint32(st.Mode) & unix.S_IFMT; (kind == unix.S_IFDIR) == (mask&unix.IN_ISDIR != 0) {
			return kind
		}
	}
	return kindOf(nil, mask)
}

func kindOf(n *node, mask uint32) uint32 {
	switch {
	case n != nil:
		return n.kind
	case mask&unix.IN_ISDIR != 0:
		return unix.S_IFDIR
	}
	return unix.S_IFREG
}

// renamed takes a rename; one of the places may be unknown.
func (w *watcher) renamed(from *node, name string, to *node, newName string, mask uint32) {
	e := event{op: protocol.FileRenamed, from: place{from, name}, to: place{to, newName}}
	if from != nil {
		e.subject = fits(w.fs.nodes.child(from, name), mask)
	}
	if to != nil {
		e.over = w.fs.nodes.child(to, newName)
	}
	e.kind = kindOf(e.subject, mask)
	if to != nil && e.subject == nil {
		e.kind = w.kindAt(to, newName, mask)
	}
	w.queueUp(e)
}

// content takes a change of a file's content or attributes, unless the file is as the guest left it.
func (w *watcher) content(dir *node, name string, mask uint32) {
	if mask&unix.IN_CLOSE_WRITE != 0 {
		if known := w.about(dir, name); known != nil && w.fs.nodes.ownClose(known) {
			return
		}
	}
	st, own := w.isAsLeft(dir, name)
	isDir := uint32(st.Mode)&unix.S_IFMT == unix.S_IFDIR
	if own || name != "" && isDir != (mask&unix.IN_ISDIR != 0) {
		return // or the name is something else's by now
	}
	e := event{kind: uint32(st.Mode) & unix.S_IFMT, from: place{dir, name}}
	for _, m := range []struct {
		mask uint32
		op   string
	}{{unix.IN_MODIFY, protocol.FileModified}, {unix.IN_ATTRIB, protocol.FileAttributes}, {unix.IN_CLOSE_WRITE, protocol.FileWritten}} {
		if mask&m.mask != 0 {
			e.op = m.op
			w.queueUp(e)
		}
	}
}

func (w *watcher) about(dir *node, name string) *node {
	if name == "" {
		return dir
	}
	return w.fs.nodes.child(dir, name)
}

// isAsLeft says whether a file is as the guest left it at its last change, or is being changed by it, or is
// gone. Otherwise the host has changed it.
func (w *watcher) isAsLeft(dir *node, name string) (unix.Statx_t, bool) {
	for {
		known := w.about(dir, name)
		turn, left := uint32(0), stamp{}
		if known != nil {
			turn, left = known.turn.Load(), w.fs.nodes.left(known)
		}
		if w.busy(dir, name) || known != nil && known.busy.Load() > 0 {
			return unix.Statx_t{}, true
		}
		st, err := w.fs.statName(dir, name)
		switch {
		case err != nil || w.busy(dir, name):
			return st, true
		case known != w.about(dir, name) || known != nil && known.turn.Load() != turn:
			continue // the guest changed it while we looked
		case known == nil:
			return st, false
		}
		return st, left == stampOf(&st)
	}
}

// rescan stands in for changes that were lost: of each folder, what the guest knows is compared with what
// is there.
func (w *watcher) rescan() {
	w.mu.Lock()
	w.own.clear()
	w.mu.Unlock()
	for _, dir := range w.fs.nodes.folders() {
		if dir.export.gone {
			continue
		}
		for name, n := range w.fs.nodes.childrenOf(dir) {
			st, err := w.fs.statName(dir, name)
			isDir := uint32(0)
			if n.kind == unix.S_IFDIR {
				isDir = unix.IN_ISDIR
			}
			switch {
			case err != nil:
				w.entered(dir, name, unix.IN_DELETE|isDir)
			case keyOf(&st) != n.key:
				w.entered(dir, name, unix.IN_DELETE|isDir)
				isDir = 0
				if uint32(st.Mode)&unix.S_IFMT == unix.S_IFDIR {
					isDir = unix.IN_ISDIR
				}
				w.entered(dir, name, unix.IN_CREATE|isDir)
			case n.kind != unix.S_IFDIR && !n.isAsSeen(&st):
				w.content(dir, name, unix.IN_MODIFY|unix.IN_CLOSE_WRITE)
			}
		}
		// Names that the guest has not looked up cannot be told; its watchers hear that the folder changed.
		if link := w.fs.nodes.nameOf(dir); link.parent != nil && link.parent.export != nil {
			if st, err := w.fs.statName(dir, ""); err == nil && !dir.isAsSeen(&st) {
				w.queueUp(event{op: protocol.FileAttributes, kind: unix.S_IFDIR, from: place{link.parent, link.name}})
			}
		}
	}
}

// lost is for changes that nobody told us.
func (w *watcher) lost() {
	w.fs.log.Warn("share: too many changes at once; every known folder is looked at")
	w.rescan()
}

// isAsSeen says whether a file is as the guest was told, or left it.
func (n *node) isAsSeen(st *unix.Statx_t) bool { return n.seen.Load() == stampOf(st).digest() }

// take waits for events and returns those to send. Paths are as the guest's kernel has them once it has
// replayed what was sent before, so after the rename of a folder a new batch begins.
//
// What comes too late is told all the same, but the guest is first to forget what it has.
func (w *watcher) take(end <-chan struct{}) (*protocol.FileEvents, bool) {
	for {
		w.mu.Lock()
		q := &w.queue
		late := q.again || q.late(lateAfter)
		forget := late && !q.stale || q.forget
		q.stale, q.forget, q.unheard = late, false, true
		again := q.again && len(q.waiting) == 0
		if again {
			q.again = false
		}
		n := min(len(q.waiting), protocol.MaxFileEvents)
		for i, e := range q.waiting[:n] {
			if e.op == protocol.FileRenamed && e.kind == unix.S_IFDIR {
				n = i + 1
				break
			}
		}
		q.sent, q.waiting = q.waiting[:n:n], slices.Clone(q.waiting[n:])
		for _, e := range q.sent {
			delete(q.written, e.content())
		}
		if len(q.waiting) > 0 {
			select {
			case q.ready <- struct{}{}:
			default:
			}
		}
		sent, ready := q.sent, q.ready
		w.mu.Unlock()
		if again {
			w.lost()
		}
		if wire := w.fs.wire(sent); len(wire) > 0 || forget {
			return &protocol.FileEvents{Forget: forget, Events: wire}, true
		} else if again {
			continue
		} else if n > 0 {
			w.replayed()
			continue
		}
		w.heard()
		select {
		case <-ready:
		case <-end:
			return nil, false
		}
	}
}

// replayed ends what was sent.
func (w *watcher) replayed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.queue.sent {
		w.queue.goneLocked(e)
	}
	w.queue.sent, w.queue.current, w.queue.unheard = nil, nil, false
}

// heard says that there was nothing to tell.
func (w *watcher) heard() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue.unheard = false
}

func (q *queue) goneLocked(e *event) {
	if e.op != protocol.FileDeleted && e.op != protocol.FileRenamed {
		return
	}
	if q.going[e.from]--; q.going[e.from] <= 0 {
		delete(q.going, e.from)
	}
}

// leaving says whether the guest's kernel has yet to hear that a name is gone. It is then not told so by
// a lookup, or it would have nothing to remove when it hears it.
func (w *watcher) leaving(dir *node, name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queue.going[place{dir, name}] > 0
}

// wire turns events into messages. One whose folder the guest does not know any more is left out.
func (f *FS) wire(events []*event) (all []protocol.FileEvent) {
	for _, e := range events {
		m := protocol.FileEvent{Seq: e.seq, Op: e.op, Kind: e.kind, Name: []byte(e.from.name), ToName: []byte(e.to.name)}
		ok := true
		if e.from.dir != nil {
			m.Dir, ok = f.nodes.path(e.from.dir)
		} else {
			m.Name = []byte(elsewhere)
		}
		if e.op == protocol.FileRenamed && ok {
			if e.to.dir != nil {
				m.ToDir, ok = f.nodes.path(e.to.dir)
			} else {
				m.ToName = []byte(elsewhere)
			}
		}
		if ok {
			all = append(all, m)
		}
	}
	return all
}

// elsewhere is the name, in ReplayFolder, of what is moved out of the guest's sight or comes from there.
const elsewhere = "elsewhere"

// path is where the guest's kernel has a folder, below the root of the shares.
func (t *table) path(n *node) ([]byte, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := ""
	for range maxDepth {
		if n.id == rootID {
			return []byte(p), true
		}
		if len(n.links) == 0 || len(p) > protocol.MaxFileEventPath {
			return nil, false
		}
		p = path.Join(n.links[0].name, p)
		n = n.links[0].parent
	}
	return nil, false
}

func (f *FS) statName(dir *node, name string) (st unix.Statx_t, err error) {
	p, err := f.nodes.use(dir)
	if err != nil {
		return st, err
	}
	defer f.nodes.done(p)
	if name == "" {
		return stat(p.fd)
	}
	err = unix.Statx(p.fd, name, unix.AT_SYMLINK_NOFOLLOW, statMask, &st)
	return st, err
}

func (t *table) child(dir *node, name string) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return dir.children[name]
}

func (t *table) childrenOf(dir *node) map[string]*node {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[string]*node, len(dir.children))
	for name, n := range dir.children {
		all[name] = n
	}
	return all
}

func (t *table) nameOf(n *node) link {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(n.links) == 0 {
		return link{}
	}
	return n.links[len(n.links)-1]
}

func (t *table) left(n *node) stamp {
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.left
}

// folders are the folders of shares that the guest knows, those in others mostly before them.
func (t *table) folders() (all []*node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.byID {
		if n.kind == unix.S_IFDIR && n.export != nil && !n.ghost {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(a, b *node) int { return cmp.Compare(b.id, a.id) })
	return all
}

func seqOf(name string) (uint64, bool) {
	n, err := strconv.ParseUint(name, 10, 64)
	return n, err == nil
}
