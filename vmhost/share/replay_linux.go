package share

import (
	"context"
	"errors"
	"io"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Replay tells the guest what the host changes, over a connection to protocol.ServiceFileEvents, until that
// ends. One at a time; the shares are watched only meanwhile.
func (f *FS) Replay(ctx context.Context, conn io.ReadWriteCloser) error {
	f.replays.Lock()
	defer f.replays.Unlock()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	in, out := protocol.NewReader(conn), protocol.NewWriter(conn)
	m, err := in.Read()
	if err != nil {
		return err
	}
	if m.FileReplayer == nil || m.FileReplayer.Thread == 0 {
		return errors.New("the guest did not say who replays")
	}
	// Before anything is told, and for longer than it is: a guest that loses the connection, or is put to
	// sleep, ends what it was about to replay, and that must not become a change of the host. The thread of
	// an older replay has ended when a newer one speaks.
	f.replayer.Store(m.FileReplayer.Thread)
	if err := f.watch.start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	answers := make(chan struct{})
	readErr := error(nil)
	go func() {
		defer close(ended)
		for {
			m, err := in.Read()
			if err != nil {
				readErr = err
				return
			}
			if m.FileReplayed != nil {
				select {
				case answers <- struct{}{}:
				case <-ctx.Done():
				}
			}
		}
	}()
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		f.watch.run(f.watch.file)
	}()
	if f.woken.Swap(false) {
		f.watch.rescan()
	}
	defer func() {
		f.watch.stop()
		conn.Close()
		<-watching
		go func() { // it may be about to hand over an answer that nobody waits for
			for {
				select {
				case <-answers:
				case <-ended:
					return
				}
			}
		}()
		<-ended
	}()
	for {
		events, ok := f.watch.take(ended)
		if !ok {
			return readErr
		}
		if err := out.Write(protocol.Message{FileEvents: events}); err != nil {
			return err
		}
		select {
		case <-answers:
			f.watch.replayed()
		case <-ended:
			return readErr
		}
	}
}

// Replaying says whether the guest is told just now.
func (f *FS) Replaying() bool {
	f.watch.mu.Lock()
	defer f.watch.mu.Unlock()
	return f.watch.file != nil
}

// replaying says whether a request comes of a replay. It then changes nothing on the host, whoever sent
// it: a guest that lies about the thread gains nothing.
func (f *FS) replaying(h *fuse.InHeader) bool {
	t := f.replayer.Load()
	return t != 0 && h.Pid == t
}

// replayed returns the event that is being replayed, if it is of one of these operations and at this place.
func (f *FS) replayed(ops string, dir *node, name string) *event {
	f.watch.mu.Lock()
	defer f.watch.mu.Unlock()
	e := f.watch.queue.current
	if e == nil || e.done || e.op != ops || e.from != (place{dir, name}) {
		return nil
	}
	return e
}

// looks says whether the guest's kernel is but to look at what it uses.
func (f *FS) looks() bool {
	f.watch.mu.Lock()
	defer f.watch.mu.Unlock()
	e := f.watch.queue.current
	return e != nil && e.op == protocol.FileLooked
}

// begin makes an event the one that is replayed.
func (w *watcher) begin(seq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue.current = nil
	for _, e := range w.queue.sent {
		if e.seq == seq {
			w.queue.current = e
		}
	}
}

func (w *watcher) finish(e *event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e.done = true
}

// scripted answers a lookup of the replayer as the guest's kernel has to see things before the change.
// asked is false when there is nothing special about it.
func (f *FS) scripted(h *fuse.InHeader, name string, out *fuse.EntryOut) (code fuse.Status, asked bool) {
	f.watch.mu.Lock()
	e := f.watch.queue.current
	if e != nil && e.done {
		e = nil
	}
	f.watch.mu.Unlock()
	if h.NodeId == rootID {
		if name != protocol.ReplayFolder {
			return 0, false
		}
		out.NodeId, out.Generation = replayID, 1
		out.Attr = fuse.Attr{Ino: replayID, Mode: unix.S_IFDIR | 0700, Nlink: 2}
		return fuse.OK, true
	}
	if h.NodeId == replayID {
		if seq, is := seqOf(name); is {
			f.watch.begin(seq)
			return fuse.ENOENT, true
		}
		if name == elsewhere && e != nil && e.op == protocol.FileRenamed && e.from.dir == nil {
			f.subject(e, out)
			return fuse.OK, true
		}
		return fuse.ENOENT, true
	}
	if e == nil {
		return 0, false
	}
	at := place{f.nodes.get(h.NodeId), name}
	switch {
	case e.op == protocol.FileCreated && e.from == at:
		// A folder that the guest found already stays: something may be mounted in it.
		if e.kind == unix.S_IFDIR && f.nodes.child(at.dir, name) != nil {
			return 0, false
		}
		return fuse.ENOENT, true
	case e.op == protocol.FileDeleted && e.from == at,
		e.op == protocol.FileRenamed && e.from == at:
		f.subject(e, out)
		return fuse.OK, true
	case e.op == protocol.FileRenamed && e.to == at:
		if e.over == nil || e.over == e.subject {
			return fuse.ENOENT, true
		}
		f.old(e.over, out)
		return fuse.OK, true
	case e.from == at && f.isOther(e):
		return fuse.ENOENT, true
	}
	return 0, false
}

// isOther says whether something else has the name by now of what an event is about. The guest's kernel is
// not to learn of that before its turn.
func (f *FS) isOther(e *event) bool {
	st, err := f.statName(e.from.dir, e.from.name)
	return err == nil && uint32(st.Mode)&unix.S_IFMT != e.kind
}

// replayID is the id of protocol.ReplayFolder; ids that are given count up from 2.
const replayID = 1<<63 - 1

// subject answers with what an event is about. The guest may not have known it, and the host may not have
// it any more: then something of its kind stands in.
func (f *FS) subject(e *event, out *fuse.EntryOut) {
	if e.subject == nil && e.op == protocol.FileRenamed && e.to.dir != nil {
		if p, err := f.nodes.use(e.to.dir); err == nil {
			var entry fuse.EntryOut
			fd, err := openBeneath(p.fd, e.to.name, unix.O_PATH|unix.O_NOFOLLOW, 0)
			if err == nil {
				if n, err := f.enter(&node{export: e.to.dir.export}, "", fd, &entry); err == nil && n.kind == e.kind {
					e.subject = n
				}
			}
			f.nodes.done(p)
			if e.subject != nil {
				*out = entry
				out.SetEntryTimeout(0)
				return
			}
		}
	}
	if e.subject == nil {
		e.subject = f.nodes.standIn(e.from.dir, e.to.dir, e.kind)
	}
	f.old(e.subject, out)
}

// old answers with a node that the guest had, which need not exist any more.
func (f *FS) old(n *node, out *fuse.EntryOut) {
	f.nodes.revive(n)
	out.NodeId, out.Generation = n.id, 1
	if p, err := f.nodes.use(n); err == nil {
		defer f.nodes.done(p)
		if _, err := f.attr(n, p.fd, &out.Attr); err == nil {
			return
		}
	}
	out.Attr = n.standInAttr()
}

func (n *node) standInAttr() fuse.Attr {
	return fuse.Attr{Ino: n.shown, Mode: n.kind | 0644, Nlink: 1, Blksize: 4096}
}

// standIn makes a node of which there is no file.
func (t *table) standIn(a, b *node, kind uint32) *node {
	if a == nil {
		a = b
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := &node{id: t.next, export: a.export, kind: kind, ghost: true, shown: t.next | 1<<62}
	t.next++
	return n
}

// revive counts a lookup of a node, which may have been forgotten meanwhile.
func (t *table) revive(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.lookups++
	t.byID[n.id] = n
}

// The changes of the replayer. Each happens in the table of names only.

func (f *FS) replayCreate(h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir := f.nodes.get(h.NodeId)
	e := f.replayed(protocol.FileCreated, dir, name)
	if e == nil {
		return fuse.EPERM
	}
	defer f.watch.finish(e)
	if p, err := f.nodes.use(dir); err == nil {
		defer f.nodes.done(p)
		if f.entry(dir, p.fd, name, out) == nil {
			if out.Mode&unix.S_IFMT == e.kind {
				return fuse.OK
			}
			f.nodes.forget(out.NodeId, 1)
		}
	}
	// It is gone again, which is the next event.
	f.old(f.nodes.standIn(dir, nil, e.kind), out)
	out.SetEntryTimeout(0)
	return fuse.OK
}

func (f *FS) replayDelete(h *fuse.InHeader, name string) fuse.Status {
	dir := f.nodes.get(h.NodeId)
	e := f.replayed(protocol.FileDeleted, dir, name)
	if e == nil {
		return fuse.EPERM
	}
	if f.nodes.child(dir, name) == e.subject {
		f.nodes.unname(dir, name)
	}
	f.watch.finish(e)
	return fuse.OK
}

func (f *FS) replayRename(in *fuse.RenameIn, name, newName string) fuse.Status {
	from, to := f.nodes.get(in.NodeId), f.nodes.get(in.Newdir)
	f.watch.mu.Lock()
	e := f.watch.queue.current
	if e == nil || e.done || e.op != protocol.FileRenamed ||
		e.from.dir != nil && e.from != (place{from, name}) || e.to.dir != nil && e.to != (place{to, newName}) {
		e = nil
	}
	f.watch.mu.Unlock()
	if e == nil {
		return fuse.EPERM
	}
	t := &f.nodes
	t.mu.Lock()
	if e.from.dir != nil {
		t.unnameLocked(from, name)
	}
	if e.to.dir != nil && e.subject != nil && !e.subject.ghost {
		t.nameLocked(e.subject, to, newName)
	}
	t.mu.Unlock()
	f.watch.finish(e)
	return fuse.OK
}

// replayChange answers a change of attributes with what they are.
func (f *FS) replayChange(in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := f.nodes.get(in.NodeId)
	if n == nil || n.export == nil {
		return fuse.Status(unix.ESTALE)
	}
	p, err := f.nodes.use(n)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(p)
	st, err := f.attr(n, p.fd, &out.Attr)
	if err != nil {
		return status(err)
	}
	out.SetTimeout(f.trustAttr(n, &st))
	return fuse.OK
}
