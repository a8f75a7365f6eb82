package share

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The flags of open(2) that mean something to the host. O_APPEND comes with each write; O_DIRECT asks for
// aligned memory, which the guest's need not be for us; O_NOATIME is for owners.
const openFlags = unix.O_ACCMODE | unix.O_TRUNC | unix.O_SYNC | unix.O_DSYNC

// stamp says what the guest's page cache of a file was filled from.
type stamp struct {
	size         uint64
	mtime, ctime unix.StatxTimestamp
}

func stampOf(st *unix.Statx_t) stamp { return stamp{st.Size, st.Mtime, st.Ctime} }

// digest is a stamp in eight bytes, the same in every process and never 0: SplitMix64 over its numbers.
func (s stamp) digest() uint64 {
	h := uint64(0)
	for _, v := range []uint64{s.size, uint64(s.mtime.Sec), uint64(s.ctime.Sec), uint64(s.mtime.Nsec)<<32 | uint64(s.ctime.Nsec)} {
		h = (h ^ v) + 0x9e3779b97f4a7c15
		h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
		h = (h ^ h>>27) * 0x94d049bb133111eb
		h ^= h >> 31
	}
	return h | 1
}

// Open opens a file. The page cache of the guest stays if the file is as it was at the last open. If it is not
// as the guest was told, or was replaced, the guest looks its name up again, and so opens what is there now.
func (f *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	writes := in.Flags&unix.O_ACCMODE != unix.O_RDONLY || in.Flags&unix.O_TRUNC != 0
	replaying := f.replaying(&in.InHeader)
	n, p, err := f.node(in.NodeId, writes && !replaying)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(p)
	if n.kind != unix.S_IFREG {
		return fuse.EINVAL // FIFOs, sockets and devices are the guest kernel's own
	}
	if !replaying && f.isNews(n, p.fd) {
		return fuse.Status(unix.ESTALE)
	}
	if in.Mode&fuse.OPEN_KILL_SUIDGID != 0 && in.Flags&unix.O_TRUNC != 0 {
		if err := f.dropPrivilege(n, p.fd); err != nil {
			return status(err)
		}
	}
	flags := in.Flags
	if replaying {
		flags = unix.O_RDONLY // it closes what it opened for writing, and writes nothing
	}
	if flags&unix.O_TRUNC != 0 {
		defer f.changes(n, p.fd)()
	}
	fd, err := again(p.fd, int(flags&openFlags))
	if err != nil {
		return status(err)
	}
	return f.openOut(n, fd, flags, out)
}

// isNews says whether a file differs from what the guest's kernel was told of it; once for each difference,
// because who opens by another way than a name cannot look again.
func (f *FS) isNews(n *node, fd int) bool {
	st, err := stat(fd)
	if err != nil || n.busy.Load() > 0 {
		return false
	}
	seen, now := n.seen.Load(), stampOf(&st).digest()
	return seen != 0 && seen != now && n.refused.Swap(now) != now
}

func (f *FS) openOut(n *node, fd int, flags uint32, out *fuse.OpenOut) fuse.Status {
	st, err := stat(fd)
	if err != nil {
		unix.Close(fd)
		return status(err)
	}
	h, err := f.addHandle(n, fd, flags)
	if err != nil {
		return status(err)
	}
	out.Fh = h.id
	out.OpenFlags = fuse.FOPEN_NOFLUSH
	if f.nodes.unchanged(n, stampOf(&st)) {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	if h.flags&direct != 0 {
		out.OpenFlags |= fuse.FOPEN_DIRECT_IO
	}
	return fuse.OK
}

func (t *table) unchanged(n *node, s stamp) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	same := n.stamp == s
	n.stamp = s
	return same
}

// Create makes a file and opens it.
func (f *FS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if f.replaying(&in.InHeader) {
		return fuse.EPERM
	}
	dir, p, err := f.in(in.NodeId, name, true)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(p)
	told := f.announce(created(dir, name))
	fd, err := openBeneath(p.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, hostMode(unix.S_IFREG, in.Mode))
	defer told(err == nil)
	if err == unix.EEXIST && in.Flags&unix.O_EXCL == 0 {
		return f.openCreated(dir, p.fd, name, in, out)
	}
	if err != nil {
		return status(err)
	}
	// Its own descriptor may write, whatever the mode; the guest gets the access that it asked for.
	defer unix.Close(fd)
	path, err := again(fd, unix.O_PATH)
	if err != nil {
		return status(err)
	}
	n, err := f.made(dir, p.fd, name, in.Owner, in.Mode, path, &out.EntryOut)
	if err != nil {
		f.remove(dir, p.fd, name, false)
		return status(err)
	}
	f.closes(n)
	return f.openEntered(n, fd, in.Flags&^unix.O_TRUNC, out) // it is empty
}

// openEntered opens a node that is in the answer already; its lookup is taken back when that fails.
func (f *FS) openEntered(n *node, fd int, flags uint32, out *fuse.CreateOut) fuse.Status {
	fd, err := again(fd, int(flags&openFlags))
	code := status(err)
	if err == nil {
		code = f.openOut(n, fd, flags, &out.OpenOut)
	}
	if code != fuse.OK {
		f.nodes.forget(n.id, 1)
	}
	return code
}

// openCreated opens a file that somebody on the host made since the guest looked.
func (f *FS) openCreated(dir *node, dirFD int, name string, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	fd, err := openBeneath(dirFD, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return status(err)
	}
	n, err := f.enter(dir, name, fd, &out.EntryOut)
	if err != nil {
		return status(err)
	}
	p, err := f.nodes.use(n)
	if err == nil && n.kind != unix.S_IFREG {
		f.nodes.done(p)
		err = unix.ESTALE // the guest looks again and finds a link or a folder
	}
	if err != nil {
		f.nodes.forget(n.id, 1)
		return status(err)
	}
	defer f.nodes.done(p)
	defer f.changes(n, p.fd)()
	return f.openEntered(n, p.fd, in.Flags, out)
}

// Tmpfile makes a file without a name, which Link may give it.
func (f *FS) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	if f.replaying(&in.InHeader) {
		return fuse.EPERM
	}
	dir, err := f.folder(in.NodeId, true)
	if err != nil {
		return status(err)
	}
	p, err := f.nodes.use(dir)
	if err != nil {
		return status(err)
	}
	defer f.nodes.done(p)
	fd, err := unix.Open(procPath(p.fd), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, hostMode(unix.S_IFREG, in.Mode))
	if err != nil {
		return status(err)
	}
	st, err := stat(fd)
	if err != nil {
		unix.Close(fd)
		return status(err)
	}
	path, err := again(fd, unix.O_PATH)
	if err != nil {
		unix.Close(fd)
		return status(err)
	}
	n, err := f.nodes.enter(nil, "", path, &st, dir.export)
	if err != nil {
		unix.Close(fd)
		return status(err)
	}
	o := owner{uid: in.Uid, gid: in.Gid, mode: in.Mode & 07777}
	if gid, inherits := f.inherits(dir, p.fd); inherits {
		o.gid = gid
	}
	if err = f.setOwner(n, fd, &st, o); err == nil {
		st, err = f.attr(n, fd, &out.Attr)
	}
	if err != nil {
		unix.Close(fd)
		f.nodes.forget(n.id, 1)
		return status(err)
	}
	f.entryOut(nil, n, &st, &out.EntryOut)
	if code := f.openOut(n, fd, in.Flags, &out.OpenOut); code != fuse.OK {
		f.nodes.forget(n.id, 1)
		return code
	}
	return fuse.OK
}

// Read answers from the file straight into the guest's memory.
func (f *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	h, err := f.file(in.Fh, in.NodeId)
	if err != nil {
		return nil, status(err)
	}
	return &reading{f, h, int64(in.Offset), int(min(in.Size, maxRequest))}, fuse.OK
}

// reading is a read that go-fuse does when it knows where to. It keeps its handle open until then.
type reading struct {
	fs   *FS
	h    *handle
	off  int64
	size int
}

func (r *reading) Size() int { return r.size }
func (r *reading) Done()     { r.fs.handles.done(r.h) }

func (r *reading) Bytes(buf []byte) ([]byte, fuse.Status) {
	n, code := r.Readv([][]byte{buf[:min(len(buf), r.size)]})
	return buf[:n], code
}

func (r *reading) Readv(to [][]byte) (int, fuse.Status) {
	for {
		n, err := unix.Preadv(r.h.fd, to, r.off)
		if err != unix.EINTR {
			return max(n, 0), status(err)
		}
	}
}

// Write is Writev with one piece.
func (f *FS) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return f.Writev(cancel, in, [][]byte{data})
}

// Writev writes from the guest's memory.
func (f *FS) Writev(_ <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	h, err := f.file(in.Fh, in.NodeId)
	if err != nil {
		return 0, status(err)
	}
	defer f.handles.done(h)
	defer f.changes(h.node, h.fd)()
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		if err := f.dropPrivilege(h.node, h.fd); err != nil {
			return 0, status(err)
		}
	}
	flags := 0
	// What a mapping has changed has its place, also in a file that is open for appending.
	if in.Flags&unix.O_APPEND != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0 {
		flags = unix.RWF_APPEND
	}
	for {
		n, err := unix.Pwritev2(h.fd, data, int64(in.Offset), flags)
		if err != unix.EINTR {
			return uint32(max(n, 0)), status(err)
		}
	}
}

func (f *FS) file(id, nodeID uint64) (*handle, error) {
	h, err := f.useHandle(id, nil)
	if err != nil {
		return nil, err
	}
	if h.node.id != nodeID {
		f.handles.done(h)
		return nil, unix.EBADF
	}
	return h, nil
}

// Flush has nothing to do: what was written is with the host's kernel already.
func (f *FS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Release closes a file.
func (f *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { f.release(in.Fh) }

// Fsync brings a file to the host's disk.
func (f *FS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h, err := f.useHandle(in.Fh, nil)
	if err != nil {
		return status(err)
	}
	defer f.handles.done(h)
	if in.FsyncFlags&1 != 0 { // FUSE_FSYNC_FDATASYNC
		return status(unix.Fdatasync(h.fd))
	}
	return status(unix.Fsync(h.fd))
}

// Lseek finds data and holes.
func (f *FS) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	if in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE {
		return fuse.EINVAL
	}
	h, err := f.file(in.Fh, in.NodeId)
	if err != nil {
		return status(err)
	}
	defer f.handles.done(h)
	off, err := unix.Seek(h.fd, int64(in.Offset), int(in.Whence))
	out.Offset = uint64(off)
	return status(err)
}

// Fallocate reserves, frees or zeroes a part of a file.
func (f *FS) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h, err := f.file(in.Fh, in.NodeId)
	if err != nil {
		return status(err)
	}
	defer f.handles.done(h)
	defer f.changes(h.node, h.fd)()
	return status(unix.Fallocate(h.fd, in.Mode, int64(in.Offset), int64(in.Length)))
}

// maxCopy bounds one copy on the host, during which the request waits; the guest asks for the rest.
const maxCopy = 64 << 20

// CopyFileRange copies on the host, where its file system may share the blocks.
func (f *FS) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	if in.Flags != 0 {
		return 0, fuse.EINVAL
	}
	from, err := f.file(in.FhIn, in.NodeId)
	if err != nil {
		return 0, status(err)
	}
	defer f.handles.done(from)
	to, err := f.file(in.FhOut, in.NodeIdOut)
	if err != nil {
		return 0, status(err)
	}
	defer f.handles.done(to)
	defer f.changes(to.node, to.fd)()
	a, b := int64(in.OffIn), int64(in.OffOut)
	n, err := unix.CopyFileRange(from.fd, &a, to.fd, &b, int(min(in.Len, maxCopy)), 0)
	return uint32(max(n, 0)), status(err)
}
