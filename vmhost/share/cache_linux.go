package share

import (
	"time"

	"golang.org/x/sys/unix"
)

// How long the guest's kernel may answer from its caches without asking.
const (
	// cacheFor is without events: what the host changes is seen after this at the latest.
	cacheFor = time.Second
	// trustFor is where the guest is told what the host changes. It bounds what no event tells: a file
	// that the host changes by mmap while the guest has it open. When events are late or end, the guest
	// is told to forget what it has; see lateAfter.
	trustFor = 30 * time.Second
	// lateAfter is how long a change may wait before the guest forgets.
	lateAfter = time.Second
	// behindAfter is how long one may wait before the guest is trusted with no more.
	behindAfter = lateAfter / 4
)

// trust is how long a name in a folder, and what is known of the file, stay good. A nil dir is for a file
// without a name, a nil n for a name without a file.
func (f *FS) trust(dir, n *node, st *unix.Statx_t) (name, attr time.Duration) {
	name, attr = f.trusted(dir, n, st)
	if n != nil {
		n.until.Store(time.Now().Add(attr).UnixNano())
	}
	// Asked after the note, which Settle reads after it has said that nothing is to be kept.
	if f.mayKeep(attr) == 0 {
		if n != nil {
			n.until.Store(0)
		}
		return 0, 0
	}
	return name, attr
}

// A file with other names may be changed where nobody looks.
func (f *FS) trusted(dir, n *node, st *unix.Statx_t) (name, attr time.Duration) {
	if dir == nil || !f.watch.tells(dir) {
		return cacheFor, cacheFor
	}
	if n == nil || n.kind != unix.S_IFDIR && st.Nlink > 1 || n.kind == unix.S_IFDIR && !f.watch.tells(n) {
		return trustFor, cacheFor
	}
	return trustFor, trustFor
}

// trustAttr is trust of a file by its id alone.
func (f *FS) trustAttr(n *node, st *unix.Statx_t) time.Duration {
	_, attr := f.trust(f.nodes.nameOf(n).parent, n, st)
	return attr
}

// tells says whether the guest hears of every change in a folder, and soon.
func (w *watcher) tells(dir *node) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.file != nil && dir.watch != 0 && dir.local && !w.queue.late(behindAfter)
}

// late says whether something has waited so long.
func (q *queue) late(after time.Duration) bool {
	oldest := q.sent
	if len(oldest) == 0 {
		oldest = q.waiting
	}
	return len(oldest) > 0 && time.Since(oldest[0].at) > after
}

// isLocal says whether all changes of a file system are made by this machine's kernel, which tells of them.
func isLocal(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return false
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC,
		unix.OVERLAYFS_SUPER_MAGIC, unix.MSDOS_SUPER_MAGIC, unix.EXFAT_SUPER_MAGIC, zfsMagic, bcachefsMagic:
		return true
	}
	return false
}

// Not in linux/magic.h.
const (
	zfsMagic      = 0x2fc12fc1
	bcachefsMagic = 0xca451a4e
)

// A folder that changes twice within a tick of the host's clock has one time for both. The guest keeps what
// it has read of a folder for as long as that time is the same; so one that is younger than a tick is
// shown a nanosecond off, and when it is asked for again the right one shows that it may have changed.
func unsettled(mtime unix.StatxTimestamp) bool {
	tick := 20 * time.Millisecond
	if mtime.Nsec == 0 {
		tick = 2 * time.Second // FAT
	}
	age := time.Since(time.Unix(mtime.Sec, int64(mtime.Nsec)))
	return age < tick && age > -tick
}
