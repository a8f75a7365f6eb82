package share

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	setUID, setGID, groupExec = 04000, 02000, 010
)

// GetAttr is stat(2).
func (f *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId == rootID {
		f.rootAttr(&out.Attr)
		out.SetTimeout(f.mayKeep(cacheFor))
		return fuse.OK
	}
	if in.NodeId == replayID && f.replaying(&in.InHeader) {
		out.Attr = fuse.Attr{Ino: replayID, Mode: unix.S_IFDIR | 0700, Nlink: 2}
		return fuse.OK
	}
	n, p, err := f.node(in.NodeId, false)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(p)
	if f.replaying(&in.InHeader) && !f.looks() {
		// A time that differs from the one that the kernel has makes it drop the file's pages, also when
		// the host's clock did not tick between two changes. The right one follows with the replay.
		_, err = f.attr(n, p.fd, &out.Attr)
		out.Mtimensec ^= 1
		return status(err)
	}
	st, changed, err := f.look(n, p.fd, &out.Attr)
	if err == nil && !changed {
		out.SetTimeout(f.trustAttr(n, &st))
	}
	return status(err)
}

func (f *FS) rootAttr(a *fuse.Attr) {
	*a = fuse.Attr{Ino: rootID, Mode: unix.S_IFDIR | 0555, Nlink: uint32(2 + len(f.exports)), Blksize: 4096}
}

// SetAttr is chown, chmod, truncate and utimens, in this order where several come at once.
func (f *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if f.replaying(&in.InHeader) {
		return f.replayChange(in, out)
	}
	n, p, err := f.node(in.NodeId, true)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(p)
	defer f.changes(n, p.fd)()
	if in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID|fuse.FATTR_MODE) != 0 {
		if err := f.chown(n, p.fd, in); err != nil {
			return status(err)
		}
	}
	if size, set := in.GetSize(); set {
		if err := f.truncate(n, p.fd, in, int64(size)); err != nil {
			return status(err)
		}
	}
	if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) != 0 {
		ts := []unix.Timespec{
			timespec(in.Valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec),
			timespec(in.Valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec),
		}
		if err := unix.UtimesNanoAt(p.fd, "", ts, unix.AT_EMPTY_PATH); err != nil {
			return status(err)
		}
	}
	st, err := f.attr(n, p.fd, &out.Attr)
	if err != nil {
		return status(err)
	}
	out.SetTimeout(f.trustAttr(n, &st))
	return fuse.OK
}

// chown changes owner and mode as the guest sees them. Whether it may, the guest's kernel has decided.
func (f *FS) chown(n *node, fd int, in *fuse.SetAttrIn) error {
	st, err := stat(fd)
	if err != nil {
		return err
	}
	// The host's own mode, not the widened one, is what remains when the file gets an owner.
	o, _ := f.owner(n, fd, &st)
	uid, setsUID := in.GetUID()
	gid, setsGID := in.GetGID()
	if setsUID {
		o.uid = uid
	}
	if setsGID {
		o.gid = gid
	}
	if (setsUID || setsGID) && n.kind != unix.S_IFDIR {
		o.mode = withoutPrivilege(o.mode)
	}
	if mode, set := in.GetMode(); set && n.kind != unix.S_IFLNK {
		o.mode = mode
	}
	return f.setOwner(n, fd, &st, o)
}

// withoutPrivilege is what chown and writing leave of a mode. Setgid without the group's x means mandatory
// locking and stays.
func withoutPrivilege(mode uint32) uint32 {
	mode &^= setUID
	if mode&groupExec != 0 {
		mode &^= setGID
	}
	return mode
}

// dropPrivilege clears setuid and setgid when somebody writes who may not keep them.
func (f *FS) dropPrivilege(n *node, fd int) error {
	st, err := stat(fd)
	if err != nil {
		return err
	}
	o, given := f.owner(n, fd, &st)
	if mode := withoutPrivilege(o.mode); given && mode != o.mode {
		o.mode = mode
		return f.setOwner(n, fd, &st, o)
	}
	return nil
}

func (f *FS) truncate(n *node, fd int, in *fuse.SetAttrIn, size int64) error {
	if n.kind != unix.S_IFREG {
		return unix.EINVAL
	}
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
		if err := f.dropPrivilege(n, fd); err != nil {
			return err
		}
	}
	if id, set := in.GetFh(); set {
		h, err := f.useHandle(id, n)
		if err != nil {
			return err
		}
		defer f.handles.done(h)
		return unix.Ftruncate(h.fd, size)
	}
	return unix.Truncate(procPath(fd), size)
}

func timespec(valid uint32, set, now uint32, sec uint64, nsec uint32) unix.Timespec {
	switch {
	case valid&set == 0:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case valid&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
}
