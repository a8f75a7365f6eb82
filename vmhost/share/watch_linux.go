package share

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	watched = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
		unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_CLOSE_WRITE | unix.IN_ONLYDIR | unix.IN_EXCL_UNLINK

	// maxWatches bounds the folders that are watched, a kilobyte of the host's kernel each; the system's
	// own limit is for all programs of the user.
	maxWatches = 16 << 10

	// pairWait is how long the second half of a rename may be behind the first: the kernel queues them
	// together, a read may end between them.
	pairWait = 20 * time.Millisecond
)

// watcher sees what the host does in the folders that the guest's kernel knows, and leaves out what the
// guest itself has just done.
type watcher struct {
	fs   *FS
	file *os.File // of inotify; nil while nobody replays

	mu      sync.Mutex
	folders map[int32][]*node // by watch; several where one share is inside another
	full    bool              // the limit was met, and said
	own     ownChanges
	queue   queue
}

// start begins to watch all folders that the guest knows.
func (w *watcher) start() error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch the shares: %w", err)
	}
	w.mu.Lock()
	w.file = os.NewFile(uintptr(fd), "inotify")
	w.folders = map[int32][]*node{}
	w.own.clear()
	w.queue.clear()
	w.mu.Unlock()
	for _, n := range w.fs.nodes.folders() {
		if p, err := w.fs.nodes.use(n); err == nil {
			w.add(n, p.fd)
			w.fs.nodes.done(p)
		}
	}
	return nil
}

func (w *watcher) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return
	}
	w.file.Close()
	w.file = nil
	for _, nodes := range w.folders {
		for _, n := range nodes {
			n.watch = 0
		}
	}
	clear(w.folders)
	w.own.clear()
	w.queue.clear()
}

// add watches a folder.
func (w *watcher) add(n *node, fd int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil || n.watch != 0 {
		return
	}
	err := error(unix.ENOSPC)
	var id int
	if len(w.folders) < maxWatches {
		err = w.withInotify(func(inotify int) (err error) {
			id, err = unix.InotifyAddWatch(inotify, procPath(fd), watched)
			return err
		})
	}
	if err != nil {
		if !w.full {
			w.full = true
			w.fs.log.Warn("share: not every folder is watched for changes", "watched", len(w.folders), "err", err)
		}
		return
	}
	n.watch = int32(id)
	w.folders[n.watch] = append(w.folders[n.watch], n)
}

// remove stops watching a folder that the guest has forgotten.
func (w *watcher) remove(n *node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil || n.watch == 0 {
		return
	}
	left := slices.DeleteFunc(w.folders[n.watch], func(o *node) bool { return o == n })
	if len(left) > 0 {
		w.folders[n.watch] = left
	} else {
		delete(w.folders, n.watch)
		w.withInotify(func(inotify int) error {
			_, err := unix.InotifyRmWatch(inotify, uint32(n.watch))
			return err
		})
	}
	n.watch = 0
}

// withInotify calls with the descriptor, which stays open meanwhile.
func (w *watcher) withInotify(do func(fd int) error) error {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = do(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// change is one event of inotify.
type change struct {
	watch  int32
	mask   uint32
	cookie uint32
	name   string
}

// run reads changes until the watcher is stopped.
func (w *watcher) run(f *os.File) {
	buf := make([]byte, 64<<10)
	var first *change // of a rename
	for {
		f.SetReadDeadline(time.Time{})
		if first != nil {
			f.SetReadDeadline(time.Now().Add(pairWait))
		}
		n, err := f.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.movedAway(first)
			first = nil
			continue
		}
		if err != nil {
			return
		}
		for _, c := range parseChanges(buf[:n]) {
			if first != nil && c.mask&unix.IN_MOVED_TO != 0 && c.cookie == first.cookie {
				w.moved(first, &c)
				first = nil
				continue
			}
			if first != nil {
				w.movedAway(first)
				first = nil
			}
			if c.mask&unix.IN_MOVED_FROM != 0 {
				first = &c
				continue
			}
			w.see(&c)
		}
	}
}

// parseChanges reads struct inotify_event, which comes from the host's kernel.
func parseChanges(b []byte) (all []change) {
	for len(b) >= unix.SizeofInotifyEvent {
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		name, _, _ := bytes.Cut(b[unix.SizeofInotifyEvent:size], []byte{0})
		all = append(all, change{
			watch:  int32(binary.NativeEndian.Uint32(b)),
			mask:   binary.NativeEndian.Uint32(b[4:]),
			cookie: binary.NativeEndian.Uint32(b[8:]),
			name:   string(name),
		})
		b = b[size:]
	}
	return all
}

// at returns the nodes of a watch.
func (w *watcher) at(id int32) []*node {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.folders[id])
}

// see takes one change that is no half of a rename.
func (w *watcher) see(c *change) {
	if c.mask&unix.IN_Q_OVERFLOW != 0 {
		w.lost()
		return
	}
	if c.mask&unix.IN_IGNORED != 0 {
		w.mu.Lock()
		for _, n := range w.folders[c.watch] {
			n.watch = 0
		}
		delete(w.folders, c.watch)
		w.mu.Unlock()
		return
	}
	for _, dir := range w.at(c.watch) {
		switch {
		case c.mask&(unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVED_TO) != 0:
			if !w.isOwn(dir, c.name, c.mask&unix.IN_ALL_EVENTS) {
				w.entered(dir, c.name, c.mask)
			}
		case c.name != "" || dir == dir.export.root:
			w.content(dir, c.name, c.mask)
		}
	}
}

// moved takes both halves of a rename.
func (w *watcher) moved(from, to *change) {
	for _, dir := range w.at(from.watch) {
		own := w.isOwn(dir, from.name, unix.IN_MOVED_FROM)
		paired := false
		for _, d := range w.at(to.watch) {
			if d.export == dir.export {
				paired = true
				if !w.isOwn(d, to.name, unix.IN_MOVED_TO) && !own {
					w.renamed(dir, from.name, d, to.name, from.mask)
				}
			}
		}
		if !paired && !own {
			w.renamed(dir, from.name, nil, "", from.mask)
		}
	}
	for _, d := range w.at(to.watch) {
		if !slices.ContainsFunc(w.at(from.watch), func(o *node) bool { return o.export == d.export }) && !w.isOwn(d, to.name, unix.IN_MOVED_TO) {
			w.renamed(nil, "", d, to.name, to.mask)
		}
	}
}

// movedAway takes the first half of a rename whose second is in no folder that we watch.
func (w *watcher) movedAway(c *change) {
	for _, dir := range w.at(c.watch) {
		if !w.isOwn(dir, c.name, unix.IN_MOVED_FROM) {
			w.renamed(dir, c.name, nil, "", c.mask)
		}
	}
}
