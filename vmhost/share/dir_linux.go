package share

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// listing is where an open folder is read. Its cookies are the host's, so they stay good while entries come
// and go.
type listing struct {
	mu   sync.Mutex
	buf  []byte // entries that are read and not given yet, as getdents64 wrote them
	next uint64 // the cookie before the first of buf
	all  []byte
}

const listBuffer = 32 << 10

// OpenDir opens a folder.
func (f *FS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId == rootID {
		return fuse.OK // of handle 0
	}
	n, err := f.folder(in.NodeId, false)
	if err != nil {
		return status(err)
	}
	p, err := f.nodes.use(n)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(p)
	fd, err := again(p.fd, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return status(err)
	}
	h, err := f.addHandle(n, fd, in.Flags)
	if err != nil {
		return status(err)
	}
	out.Fh = h.id
	return fuse.OK
}

// ReleaseDir closes a folder.
func (f *FS) ReleaseDir(in *fuse.ReleaseIn) { f.release(in.Fh) }

// FsyncDir brings a folder's entries to the host's disk.
func (f *FS) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if in.NodeId == rootID {
		return fuse.OK
	}
	return f.Fsync(cancel, in)
}

// ReadDir lists names.
func (f *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if in.NodeId == rootID {
		return f.listShares(in.Offset, func(e fuse.DirEntry, _ *node) bool { return out.AddDirEntry(e) })
	}
	return f.readDir(in, func(_ *handle, e fuse.DirEntry) bool { return out.AddDirEntry(e) })
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
	return f.readDir(in, func(h *handle, e fuse.DirEntry) bool {
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
		if err := f.entry(h.node, h.fd, e.Name, &entry); err == nil {
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

func (f *FS) readDir(in *fuse.ReadIn, add func(*handle, fuse.DirEntry) bool) fuse.Status {
	h, err := f.handles.use(in.Fh, nil)
	if err != nil {
		return status(err)
	}
	defer f.handles.done(h)
	if h.list == nil || h.node.id != in.NodeId {
		return fuse.Status(unix.EBADF)
	}
	l := h.list
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next != in.Offset || in.Offset == 0 {
		if _, err := unix.Seek(h.fd, int64(in.Offset), unix.SEEK_SET); err != nil {
			return status(err)
		}
		l.next, l.buf = in.Offset, nil
	}
	prefix := h.node.shown &^ (1<<48 - 1)
	for {
		if len(l.buf) == 0 {
			if l.all == nil {
				l.all = make([]byte, listBuffer)
			}
			n, err := unix.Getdents(h.fd, l.all)
			if err != nil {
				return status(err)
			}
			if n == 0 {
				l.all = nil
				return fuse.OK
			}
			l.buf = l.all[:n]
		}
		e, size := parseEntry(l.buf)
		e.Ino ^= prefix
		if !f.hides(h.node, e.Name) && !add(h, e) {
			return fuse.OK
		}
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
