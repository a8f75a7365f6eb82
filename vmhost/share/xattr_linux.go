package share

import (
	"bytes"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Extended attributes: those of users pass, except ours. The others are not offered: capabilities would be
// the host's to grant, POSIX ACLs name users that the host does not have.

// maxXattrList is XATTR_LIST_MAX of linux/limits.h.
const maxXattrList = 64 << 10

func ours(name string) bool { return strings.HasPrefix(name, ourXattrs) }

func passes(name string) bool { return strings.HasPrefix(name, "user.") && !ours(name) }

// GetXAttr reads an attribute.
func (f *FS) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, to []byte) (uint32, fuse.Status) {
	if strings.HasPrefix(name, "system.") {
		return 0, fuse.ENOTSUP
	}
	n, p, err := f.node(h.NodeId, false)
	if err != nil || !passes(name) || !keepsXattr(n.kind) {
		if err == nil {
			f.nodes.done(p)
		}
		return 0, fuse.ENODATA
	}
	defer f.nodes.done(p)
	size, err := unix.Getxattr(procPath(p.fd), name, to)
	return uint32(max(size, 0)), status(err)
}

// ListXAttr lists them.
func (f *FS) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, to []byte) (uint32, fuse.Status) {
	n, p, err := f.node(h.NodeId, false)
	if err == unix.EPERM {
		return 0, fuse.OK // the folder of shares
	}
	if err != nil {
		return 0, status(err)
	}
	defer f.nodes.done(p)
	if !keepsXattr(n.kind) {
		return 0, fuse.OK
	}
	buf := make([]byte, maxXattrList)
	size, err := unix.Listxattr(procPath(p.fd), buf)
	if err == unix.ENOTSUP {
		return 0, fuse.OK
	}
	if err != nil {
		return 0, status(err)
	}
	var names []byte
	for name := range bytes.SplitAfterSeq(buf[:size], []byte{0}) {
		if passes(strings.TrimSuffix(string(name), "\x00")) {
			names = append(names, name...)
		}
	}
	if len(to) < len(names) {
		return uint32(len(names)), fuse.ERANGE
	}
	return uint32(copy(to, names)), fuse.OK
}

// SetXAttr sets one.
func (f *FS) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	return f.changeXattr(&in.InHeader, name, func(path string) error {
		return unix.Setxattr(path, name, data, int(in.Flags))
	})
}

// RemoveXAttr removes one.
func (f *FS) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.changeXattr(h, name, func(path string) error { return unix.Removexattr(path, name) })
}

func (f *FS) changeXattr(h *fuse.InHeader, name string, change func(path string) error) fuse.Status {
	if f.replaying(h) {
		return fuse.EPERM
	}
	n, p, err := f.node(h.NodeId, true)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(p)
	switch {
	case !passes(name):
		return fuse.ENOTSUP
	case !keepsXattr(n.kind):
		return fuse.EPERM
	}
	defer f.changes(n, p.fd)()
	return status(change(procPath(p.fd)))
}
