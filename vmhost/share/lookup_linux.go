package share

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// folder returns a node that is a folder in a share. write is for those who change it.
func (f *FS) folder(id uint64, write bool) (*node, error) {
	n := f.nodes.get(id)
	switch {
	case n == nil:
		return nil, unix.ESTALE
	case n.kind != unix.S_IFDIR:
		return nil, unix.ENOTDIR
	case n.export == nil && write:
		return nil, unix.EPERM // the folder of shares is the settings'
	case n.export == nil:
		return nil, unix.ENOENT
	case write && n.export.ReadOnly:
		return nil, unix.EROFS
	}
	return n, nil
}

// in returns a folder, open, for an operation on one of its names.
func (f *FS) in(id uint64, name string, write bool) (*node, *pathFD, error) {
	if err := checkName(name); err != nil {
		return nil, nil, err
	}
	n, err := f.folder(id, write)
	if err != nil {
		return nil, nil, err
	}
	if f.hides(n, name) {
		if write {
			return nil, nil, unix.EACCES
		}
		return nil, nil, unix.ENOENT
	}
	p, err := f.nodes.use(n)
	return n, p, err
}

// Lookup makes a name known. That there is none is known to the guest's kernel for a while as well.
func (f *FS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if f.replaying(h) {
		if code, asked := f.scripted(h, name, out); asked {
			return code
		}
	}
	if h.NodeId == rootID {
		return f.lookupShare(name, out)
	}
	dir, p, err := f.in(h.NodeId, name, false)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(p)
	err = f.entry(dir, p.fd, name, out)
	if err == unix.ENOENT && (f.replaying(h) || f.watch.leaving(dir, name) || f.nodes.child(dir, name) != nil) {
		// Not for the kernel to keep: that it is gone may be about to be replayed, for which it must ask.
		f.nodes.unname(dir, name)
		return fuse.ENOENT
	}
	if f.replaying(h) {
		out.SetEntryTimeout(0) // the next event may be about what was here before
	}
	if err == unix.ENOENT {
		f.nodes.unname(dir, name)
		out.NodeId = 0
		valid, _ := f.trust(dir, nil, nil)
		out.SetEntryTimeout(valid)
		return fuse.OK
	}
	return status(err)
}

func (f *FS) lookupShare(name string, out *fuse.EntryOut) fuse.Status {
	f.nodes.mu.Lock()
	n := f.nodes.byID[rootID].children[name]
	if n != nil {
		n.lookups++
	}
	f.nodes.mu.Unlock()
	if n == nil {
		return fuse.ENOENT
	}
	p, err := f.nodes.use(n)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(p)
	st, changed, err := f.look(n, p.fd, &out.Attr)
	if err != nil {
		f.nodes.forget(n.id, 1)
		return status(err)
	}
	f.entryOut(nil, n, &st, out)
	if changed {
		out.SetAttrTimeout(0)
	}
	return fuse.OK
}

// entry looks a name up in an open folder and fills the answer.
func (f *FS) entry(dir *node, dirFD int, name string, out *fuse.EntryOut) error {
	fd, err := openBeneath(dirFD, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	_, err = f.enter(dir, name, fd, out)
	return err
}

// enter makes the file that fd is known, takes fd over, and fills the answer.
func (f *FS) enter(dir *node, name string, fd int, out *fuse.EntryOut) (*node, error) {
	st, err := stat(fd)
	if err == nil && f.hidesFile(keyOf(&st)) {
		err = unix.ENOENT
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	n, err := f.nodes.enter(dir, name, fd, &st, dir.export)
	if err != nil {
		return nil, err
	}
	changed := false
	p, err := f.nodes.use(n)
	if err == nil {
		defer f.nodes.done(p)
		if n.kind == unix.S_IFDIR {
			f.watch.add(n, p.fd) // before it is looked at
		}
		st, changed, err = f.look(n, p.fd, &out.Attr)
	}
	if err != nil {
		f.nodes.forget(n.id, 1)
		return nil, err
	}
	f.entryOut(dir, n, &st, out)
	if changed {
		out.SetAttrTimeout(0)
	}
	return n, nil
}

func (f *FS) entryOut(dir, n *node, st *unix.Statx_t, out *fuse.EntryOut) {
	out.NodeId = n.id
	out.Generation = 1 // ids are never given twice
	name, attr := f.trust(dir, n, st)
	out.SetEntryTimeout(name)
	out.SetAttrTimeout(attr)
}

// Forget takes back what Lookup and its like gave.
func (f *FS) Forget(id, count uint64) {
	if n := f.nodes.forget(id, count); n != nil && n.kind == unix.S_IFDIR {
		f.watch.remove(n)
	}
}

// Readlink gives a link as it is: it is followed in the guest, where its target may be something else.
func (f *FS) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n, p, err := f.node(h.NodeId, false)
	if err != nil {
		return nil, status(err)
	}
	defer f.nodes.done(p)
	if n.kind != unix.S_IFLNK {
		return nil, fuse.EINVAL
	}
	buf := make([]byte, unix.PathMax)
	size, err := unix.Readlinkat(p.fd, "", buf)
	if err != nil {
		return nil, status(err)
	}
	return buf[:size], fuse.OK
}

// node returns a node of a share, open. write is for those who change it.
func (f *FS) node(id uint64, write bool) (*node, *pathFD, error) {
	n := f.nodes.get(id)
	switch {
	case n == nil:
		return nil, nil, unix.ESTALE
	case n.export == nil:
		return nil, nil, unix.EPERM
	case write && n.export.ReadOnly:
		return nil, nil, unix.EROFS
	}
	p, err := f.nodes.use(n)
	return n, p, err
}

// StatFs is the host's file system below a file; of the folder of shares, that of the first.
func (f *FS) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	id := h.NodeId
	if id == rootID {
		if len(f.exports) == 0 {
			return fuse.OK
		}
		id = f.exports[0].root.id
	}
	_, p, err := f.node(id, false)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(p)
	var st unix.Statfs_t
	if err := unix.Fstatfs(p.fd, &st); err != nil {
		return status(err)
	}
	*out = fuse.StatfsOut{Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
		Bsize: uint32(st.Bsize), NameLen: uint32(st.Namelen), Frsize: uint32(st.Frsize)}
	return fuse.OK
}
