package share

import (
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// ownerXattr keeps on the host what the guest was told of a file's owner. The guest neither sees it nor
// sets it.
const (
	ownerXattr = "user.cove.owner"
	ourXattrs  = "user.cove."
)

// owner is what the guest gave a file: the server cannot chown, and must be able to open a file whose mode
// says that nobody can.
type owner struct {
	uid, gid uint32
	mode     uint32 // permission bits with setuid, setgid, sticky
	// host is the host's mode when this was written. Where it differs now, somebody on the host has
	// changed it since, and that counts.
	host uint32
}

// encode writes "1 UID GID MODE HOSTMODE", the modes octal. The first number is the version.
func (o owner) encode() []byte {
	b := make([]byte, 0, 40)
	b = append(b, "1 "...)
	b = strconv.AppendUint(b, uint64(o.uid), 10)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(o.gid), 10)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(o.mode), 8)
	b = append(b, ' ')
	return strconv.AppendUint(b, uint64(o.host), 8)
}

// decodeOwner reads what encode wrote. Anybody on the host may have written anything.
func decodeOwner(b []byte) (o owner, ok bool) {
	f := strings.Split(string(b), " ")
	if len(f) != 5 || f[0] != "1" {
		return o, false
	}
	for i, field := range []struct {
		base int
		to   *uint32
	}{{10, &o.uid}, {10, &o.gid}, {8, &o.mode}, {8, &o.host}} {
		v, err := strconv.ParseUint(f[i+1], field.base, 32)
		if err != nil {
			return o, false
		}
		*field.to = uint32(v)
	}
	return o, o.mode <= 07777 && o.host <= 07777
}

// hostMode is the mode on the host of a file whose mode in the guest is mode: our own process can always
// use it, and it is never setuid, setgid or sticky there.
func hostMode(kind, mode uint32) uint32 {
	if kind == unix.S_IFDIR {
		return mode&0777 | 0700
	}
	return mode&0777 | 0600
}

// keepsXattr: Linux has user.* attributes on regular files and folders only.
func keepsXattr(kind uint32) bool { return kind == unix.S_IFREG || kind == unix.S_IFDIR }

// owner says whose a file is for the guest. given is false when nobody in the guest said so yet.
func (f *FS) owner(n *node, fd int, st *unix.Statx_t) (o owner, given bool) {
	now := uint32(st.Mode) & 07777
	if keepsXattr(n.kind) {
		var buf [64]byte
		if size, err := unix.Getxattr(procPath(fd), ownerXattr, buf[:]); err == nil {
			if o, given = decodeOwner(buf[:size]); given {
				if now != o.host {
					o.mode, o.host = now, now
				}
				return o, true
			}
		}
	}
	f.nodes.mu.Lock()
	kept := n.memory
	f.nodes.mu.Unlock()
	if kept != nil {
		if o = *kept; now != o.host && n.kind != unix.S_IFLNK {
			o.mode, o.host = now, now
		}
		return o, true
	}
	return owner{uid: st.Uid, gid: st.Gid, mode: now, host: now}, false
}

// widen gives everybody what we ourselves may do with a file: a container's user is not the host's, and is
// to work in the folder nevertheless.
func (f *FS) widen(st *unix.Statx_t) uint32 {
	mode := uint32(st.Mode) & 07777
	ours := mode & 7
	switch {
	case f.uid == 0 || st.Uid == f.uid:
		ours = mode >> 6 & 7
	case f.inGroup(st.Gid):
		ours = mode >> 3 & 7
	}
	return mode | ours<<3 | ours
}

// setOwner keeps an owner, and sets the host's mode to fit. st is as the file is now.
func (f *FS) setOwner(n *node, fd int, st *unix.Statx_t, o owner) error {
	if n.kind == unix.S_IFLNK {
		o.host = uint32(st.Mode) & 07777
		f.nodes.remember(n, o)
		return nil
	}
	o.host = hostMode(n.kind, o.mode)
	if o.host != uint32(st.Mode)&07777 {
		if err := unix.Fchmodat(unix.AT_FDCWD, procPath(fd), o.host, 0); err != nil {
			return err
		}
		st.Mode = st.Mode&unix.S_IFMT | uint16(o.host)
	}
	if keepsXattr(n.kind) {
		switch err := unix.Setxattr(procPath(fd), ownerXattr, o.encode(), 0); err {
		case nil:
			return nil
		case unix.ENOTSUP:
		default:
			return err
		}
	}
	f.nodes.remember(n, o)
	return nil
}

func (t *table) remember(n *node, o owner) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.memory = &o
}

// attr fills in what the guest sees of a file.
func (f *FS) attr(n *node, fd int, out *fuse.Attr) (unix.Statx_t, error) {
	st, err := stat(fd)
	if err != nil {
		return st, err
	}
	n.seen.Store(stampOf(&st).digest())
	o, given := f.owner(n, fd, &st)
	fill(out, n, &st, o)
	if n.kind == unix.S_IFDIR && unsettled(st.Mtime) {
		out.Mtimensec ^= 1
	}
	if !given && n.kind != unix.S_IFLNK {
		out.Mode = n.kind | f.widen(&st)
	}
	return st, nil
}

func fill(out *fuse.Attr, n *node, st *unix.Statx_t, o owner) {
	*out = fuse.Attr{
		Ino:       n.shown,
		Size:      st.Size,
		Blocks:    st.Blocks,
		Atime:     uint64(st.Atime.Sec),
		Mtime:     uint64(st.Mtime.Sec),
		Ctime:     uint64(st.Ctime.Sec),
		Atimensec: st.Atime.Nsec,
		Mtimensec: st.Mtime.Nsec,
		Ctimensec: st.Ctime.Nsec,
		Mode:      n.kind | o.mode,
		Nlink:     st.Nlink,
		Owner:     fuse.Owner{Uid: o.uid, Gid: o.gid},
		Rdev:      uint32(unix.Mkdev(st.Rdev_major, st.Rdev_minor)),
		Blksize:   st.Blksize,
	}
}
