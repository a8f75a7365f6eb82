package share

import (
	"context"
	"errors"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// settleMargin is how much longer what the guest was told may live: its kernel counts from when it reads
// the answer, on a processor that may be waiting for its turn.
const settleMargin = 200 * time.Millisecond

// Settle is for before a save, while the guest runs. From its call on the guest's kernel is told nothing
// that it may keep without asking, and Settle returns when nothing that it was told before holds any longer:
// when it wakes it asks anew for all that it uses. With an error, and for a guest that is not saved after
// all, undo is to be called.
//
// A guest that is told of changes forgets what it does not use and is asked to look at the rest, which takes
// milliseconds. One that is not is waited for, a second or two; the context may end that. Without Settle,
// what the host changed while the guest slept may be seen as late as trustFor after the wake.
func (f *FS) Settle(ctx context.Context) (undo func(), err error) {
	undo = func() { f.settling.Store(false) }
	f.settling.Store(true)
	told := f.Replaying()
	if told {
		f.watch.askToForget()
		told = f.watch.flush(ctx) == nil && f.lookAtAll(ctx) == nil
	}
	until := f.nodes.keptUntil()
	if last := time.Unix(0, f.answered.Load()).Add(cacheFor); !told && last.After(until) {
		until = last
	}
	select {
	case <-ctx.Done():
		return undo, context.Cause(ctx)
	case <-time.After(time.Until(until.Add(settleMargin))):
		return undo, nil
	}
}

// lookAtAll has the guest's kernel ask for all of which it may still keep something.
func (f *FS) lookAtAll(ctx context.Context) error {
	all := f.nodes.keeping()
	for len(all) > 0 {
		some := all[:min(len(all), maxEvents/2)]
		all = all[len(some):]
		for _, n := range some {
			at := place{n, ""} // a share
			if l := f.nodes.nameOf(n); l.parent == nil {
				continue
			} else if l.parent.export != nil {
				at = place{l.parent, l.name}
			}
			f.watch.queueUp(event{op: protocol.FileLooked, kind: n.kind, from: at})
		}
		if err := f.watch.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) askToForget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue.forget = true
	select {
	case w.queue.ready <- struct{}{}:
	default:
	}
}

// flush waits until the guest has heard all that there is to tell.
func (w *watcher) flush(ctx context.Context) error {
	w.tellHeld(true)
	for {
		w.mu.Lock()
		q := &w.queue
		ends, empty := w.file == nil, !q.forget && !q.again && !q.unheard && len(q.waiting) == 0
		w.mu.Unlock()
		if ends {
			return errors.New("the guest is not told of changes any more")
		}
		if empty {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// keeping are the nodes of which the guest's kernel may answer by itself.
func (t *table) keeping() (all []*node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now().UnixNano()
	for _, n := range t.byID {
		if n.until.Load() > now && n.export != nil && !n.ghost {
			all = append(all, n)
		}
	}
	return all
}

// keptUntil is when the last of them ends.
func (t *table) keptUntil() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := int64(0)
	for _, n := range t.byID {
		last = max(last, n.until.Load())
	}
	return time.Unix(0, last)
}

// mayKeep is how long the guest's kernel may keep what it is about to be told, and notes that it is told.
func (f *FS) mayKeep(at time.Duration) time.Duration {
	f.answered.Store(time.Now().UnixNano())
	if f.settling.Load() {
		return 0
	}
	return at
}

// look is attr for an answer that the guest's kernel keeps. changed says that it is not to be kept.
func (f *FS) look(n *node, fd int, out *fuse.Attr) (st unix.Statx_t, changed bool, err error) {
	was := uint64(0)
	if n.slept.Load() && n.slept.Swap(false) {
		was = n.seen.Load()
	}
	if st, err = f.attr(n, fd, out); err == nil && was != 0 && was != n.seen.Load() {
		// A time that differs from the one that the kernel has makes it drop the file's pages, also when
		// size and time were set to what they had been. It is told once, and is asked for again.
		out.Mtimensec ^= 1
		return st, true, nil
	}
	return st, false, err
}
