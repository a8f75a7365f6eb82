package share

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// made finishes a file that was just created: it gets the owner who asked for it. undo takes it away again
// when that fails.
func (f *FS) made(dir *node, dirFD int, name string, by fuse.Owner, mode uint32, fd int, out *fuse.EntryOut) (*node, error) {
	st, err := stat(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	n, err := f.nodes.enter(dir, name, fd, &st, dir.export)
	if err != nil {
		return nil, err
	}
	p, err := f.nodes.use(n)
	if err == nil {
		defer f.nodes.done(p)
		o := owner{uid: by.Uid, gid: by.Gid, mode: mode & 07777}
		if gid, inherits := f.inherits(dir, dirFD); inherits {
			o.gid = gid
			if n.kind == unix.S_IFDIR {
				o.mode |= setGID
			}
		}
		if n.kind == unix.S_IFDIR {
			f.watch.add(n, p.fd)
		}
		defer f.changes(n, p.fd)()
		if err = f.setOwner(n, p.fd, &st, o); err == nil {
			st, err = f.attr(n, p.fd, &out.Attr)
		}
	}
	if err != nil {
		f.nodes.forget(n.id, 1)
		return nil, err
	}
	f.entryOut(dir, n, &st, out)
	return n, nil
}

// inherits: what is made in a setgid folder has its group.
func (f *FS) inherits(dir *node, dirFD int) (gid uint32, yes bool) {
	st, err := stat(dirFD)
	if err != nil {
		return 0, false
	}
	o, _ := f.owner(dir, dirFD, &st)
	return o.gid, o.mode&setGID != 0
}

// Mkdir makes a folder.
func (f *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.create(&in.InHeader, name, unix.S_IFDIR, in.Mode, out, func(dir int) error {
		return unix.Mkdirat(dir, name, hostMode(unix.S_IFDIR, in.Mode))
	})
}

// Mknod makes a regular file, a FIFO or a socket. A device of the host is nothing for a guest.
func (f *FS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	kind := in.Mode & unix.S_IFMT
	switch kind {
	case 0:
		kind = unix.S_IFREG
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return fuse.EPERM
	}
	return f.create(&in.InHeader, name, kind, in.Mode, out, func(dir int) error {
		return unix.Mknodat(dir, name, kind|hostMode(kind, in.Mode), 0)
	})
}

// Symlink makes a link. Its target is text, and is judged by who follows it.
func (f *FS) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return f.create(h, name, unix.S_IFLNK, 0777, out, func(dir int) error {
		return unix.Symlinkat(target, dir, name)
	})
}

// create makes what has no open file, and removes it again when it cannot get its owner.
func (f *FS) create(h *fuse.InHeader, name string, kind, mode uint32, out *fuse.EntryOut, mk func(dir int) error) fuse.Status {
	if f.replaying(h) {
		return f.replayCreate(h, name, out)
	}
	dir, p, err := f.in(h.NodeId, name, true)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(p)
	told := f.announce(created(dir, name))
	err = mk(p.fd)
	defer told(err == nil)
	if err != nil {
		return status(err)
	}
	fd, err := openBeneath(p.fd, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return status(err)
	}
	if st, err := stat(fd); err != nil || uint32(st.Mode)&unix.S_IFMT != kind {
		unix.Close(fd) // somebody on the host has put something else in its place
		return fuse.Status(unix.ESTALE)
	}
	if _, err := f.made(dir, p.fd, name, h.Owner, mode, fd, out); err != nil {
		f.remove(dir, p.fd, name, kind == unix.S_IFDIR)
		return status(err)
	}
	return fuse.OK
}

// Link gives a file one more name.
func (f *FS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if f.replaying(&in.InHeader) {
		return fuse.EPERM
	}
	dir, p, err := f.in(in.NodeId, name, true)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(p)
	n, file, err := f.node(in.Oldnodeid, false)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(file)
	if n.export != dir.export {
		return fuse.EXDEV
	}
	if n.kind == unix.S_IFDIR {
		return fuse.EPERM
	}
	// The name in /proc is the descriptor itself; following it ends there, also when it is a link.
	defer f.changes(n, file.fd)()
	told := f.announce(created(dir, name))
	err = unix.Linkat(unix.AT_FDCWD, procPath(file.fd), p.fd, name, unix.AT_SYMLINK_FOLLOW)
	defer told(err == nil)
	if err != nil {
		return status(err)
	}
	return status(f.entry(dir, p.fd, name, out))
}

// Unlink removes a name of a file. Who has it open keeps it.
func (f *FS) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.unlink(h, name, false)
}

// Rmdir removes an empty folder.
func (f *FS) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.unlink(h, name, true)
}

func (f *FS) unlink(h *fuse.InHeader, name string, folder bool) fuse.Status {
	if f.replaying(h) {
		return f.replayDelete(h, name)
	}
	dir, p, err := f.in(h.NodeId, name, true)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(p)
	return status(f.remove(dir, p.fd, name, folder))
}

func (f *FS) remove(dir *node, dirFD int, name string, folder bool) error {
	flags := 0
	if folder {
		flags = unix.AT_REMOVEDIR
	}
	told := f.announce(deleted(dir, name))
	err := unix.Unlinkat(dirFD, name, flags)
	told(err == nil)
	if err == nil || err == unix.ENOENT {
		f.nodes.unname(dir, name)
	}
	return err
}

// Rename moves a name, within its share.
func (f *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, name, newName string) fuse.Status {
	if f.replaying(&in.InHeader) {
		return f.replayRename(in, name, newName)
	}
	if in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return fuse.EINVAL
	}
	from, old, err := f.in(in.NodeId, name, true)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(old)
	to, dir, err := f.in(in.Newdir, newName, true)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(dir)
	if from.export != to.export {
		return fuse.EXDEV
	}
	exchange := in.Flags&unix.RENAME_EXCHANGE != 0
	moves := []announcement{movedFrom(from, name), movedTo(to, newName)}
	if exchange {
		moves = append(moves, movedFrom(to, newName), movedTo(from, name))
	}
	if from == to && name == newName {
		moves = nil // the host's kernel does nothing
	}
	if n := f.nodes.child(from, name); n != nil {
		if file, err := f.nodes.use(n); err == nil {
			defer f.nodes.done(file)
			defer f.changes(n, file.fd)()
		}
	}
	told := f.announce(moves...)
	err = unix.Renameat2(old.fd, name, dir.fd, newName, uint(in.Flags))
	defer told(err == nil)
	if err != nil {
		return status(err)
	}
	f.nodes.renamed(from, name, to, newName, exchange)
	return fuse.OK
}
