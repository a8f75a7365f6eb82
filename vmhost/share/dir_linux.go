package share

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// listing is a folder that is being read. Its cookies are the host's, so they stay good while entries come
// and go.
type listing struct {
	of   *node
	fd   int
	buf  []byte // entries that are read and not given yet, as getdents64 wrote them
	next uint64 // the cookie before the first of buf
	all  []byte
}

// listings are those that were read in part: the guest does not open folders, so each request says where
// to go on. One that is not there any more is opened anew and goes on at the cookie.
type listings struct {
	mu     sync.Mutex
	kept   []*listing // the newest last
	sweep  *time.Timer
	closed bool
}

const (
	listBuffer  = 32 << 10
	maxListings = 32
	// idleListing is how long a folder stays open that is not read on: a disk below it is to be unmounted.
	idleListing = time.Second
)

// take gives the listing of a folder that is to go on at a cookie, if it is kept.
func (t *listings) take(n *node, offset uint64) *listing {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, l := range t.kept {
		if l.of == n && l.next == offset {
			t.kept = slices.Delete(t.kept, i, i+1)
			return l
		}
	}
	return nil
}

func (t *listings) keep(l *listing) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		unix.Close(l.fd)
		return
	}
	if len(t.kept) >= maxListings {
		unix.Close(t.kept[0].fd)
		t.kept = slices.Delete(t.kept, 0, 1)
	}
	t.kept = append(t.kept, l)
	if t.sweep == nil {
		t.sweep = time.AfterFunc(idleListing, t.closeAll)
	} else {
		t.sweep.Reset(idleListing)
	}
}

func (t *listings) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.kept {
		unix.Close(l.fd)
	}
	t.kept = nil
}

func (t *listings) close() {
	t.closeAll()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.sweep != nil {
		t.sweep.Stop()
	}
}

// OpenDir has the guest's kernel never ask again: it reads folders by their ids, and keeps what it has read
// until the folder changes. That saves two requests of three for a small folder.
func (f *FS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// FsyncDir brings a folder's entries to the host's disk.
func (f *FS) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if in.NodeId == rootID {
		return fuse.OK
	}
	l, err := f.openListing(in.NodeId)
	if err != nil {
		return status(err)
	}
	defer unix.Close(l.fd)
	return status(unix.Fsync(l.fd))
}

func (f *FS) openListing(id uint64) (*listing, error) {
	n, err := f.folder(id, false)
	if err != nil {
		return nil, err
	}
	p, err := f.nodes.use(n)
	if err != nil {
		return nil, err
	}
	defer f.nodes.done(p)
	fd, err := again(p.fd, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return &listing{of: n, fd: fd}, nil
}

// ReadDir lists names.
func (f *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if in.NodeId == rootID {
		return f.listShares(in.Offset, func(e fuse.DirEntry, _ *node) bool { return out.AddDirEntry(e) })
	}
	return f.readDir(in, func(_ *listing, e fuse.DirEntry) bool { return out.AddDirEntry(e) })
}

// ReadDirPlus lists names and makes them known, which saves a request for each.
func (f *FS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if in.NodeId == rootID {
		return f.listShares(in.Offset, func(e fuse.DirEntry, n *node) bool {
			entry := out.AddDirLookupEntry(e)
			if entry != nil {
				f.lookupShare(e.Name, entry)
			}
			return entry != nil
		})
	}
	return f.readDir(in, func(l *listing, e fuse.DirEntry) bool {
		to := out.AddDirLookupEntry(e)
		if to == nil {
			return false
		}
		if e.Name == "." || e.Name == ".." {
			return true // the kernel knows them
		}
		// Filled on our side first: a file that goes away meanwhile is left without an id, which the
		// kernel takes for "ask again".
		var entry fuse.EntryOut
		if err := f.entry(l.of, l.fd, e.Name, &entry); err == nil {
			*to = entry
			out.FixMode(entry.Mode)
		}
		return true
	})
}

func (f *FS) listShares(offset uint64, add func(fuse.DirEntry, *node) bool) fuse.Status {
	for i := offset; i < uint64(len(f.exports)); i++ {
		n := f.exports[i].root
		if !add(fuse.DirEntry{Name: strconv.FormatUint(i, 10), Ino: n.shown, Mode: unix.S_IFDIR, Off: i + 1}, n) {
			break
		}
	}
	return fuse.OK
}

func (f *FS) readDir(in *fuse.ReadIn, add func(*listing, fuse.DirEntry) bool) fuse.Status {
	n, err := f.folder(in.NodeId, false)
	if err != nil {
		return status(err)
	}
	l := f.listings.take(n, in.Offset)
	if l == nil || in.Offset == 0 {
		if l, err = f.openListing(in.NodeId); err != nil {
			return status(err)
		}
		if in.Offset != 0 {
			if _, err := unix.Seek(l.fd, int64(in.Offset), unix.SEEK_SET); err != nil {
				unix.Close(l.fd)
				return status(err)
			}
			l.next = in.Offset
		}
	}
	more, err := f.list(l, add)
	if err != nil || !more {
		unix.Close(l.fd)
		return status(err)
	}
	f.listings.keep(l)
	return fuse.OK
}

// list gives entries until there is no room for one; more is false at the folder's end.
func (f *FS) list(l *listing, add func(*listing, fuse.DirEntry) bool) (more bool, err error) {
	prefix := l.of.shown &^ (1<<48 - 1)
	for given := false; ; {
		if len(l.buf) == 0 {
			if l.all == nil {
				l.all = make([]byte, listBuffer)
			}
			n, err := unix.Getdents(l.fd, l.all)
			if n == 0 || err != nil {
				// The guest asks once more, for the end.
				return given && err == nil, err
			}
			l.buf = l.all[:n]
		}
		e, size := parseEntry(l.buf)
		e.Ino ^= prefix
		if !f.hides(l.of, e.Name) && !add(l, e) {
			return true, nil
		}
		given = true
		l.next, l.buf = e.Off, l.buf[size:]
	}
}

// parseEntry reads a linux_dirent64, which comes from the host's kernel.
func parseEntry(b []byte) (fuse.DirEntry, int) {
	size := int(binary.NativeEndian.Uint16(b[16:]))
	name := b[19:size]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return fuse.DirEntry{
		Ino:  binary.NativeEndian.Uint64(b),
		Off:  binary.NativeEndian.Uint64(b[8:]),
		Mode: uint32(b[18]) << 12,
		Name: string(name),
	}, size
}
