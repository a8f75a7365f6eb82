package share

import (
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	maxRequest = 1 << 20 // bytes of one read or write: 256 pages, the most that the kernel takes

	maxNodes   = 1 << 21 // files that the guest's kernel may know at once, a few hundred bytes each
	maxHandles = 1 << 16 // files that the guest may have open at once, also bounded by the process's limit
)

// FS is a file system. It is safe for many goroutines.
type FS struct {
	fuse.RawFileSystem // answers what we do not have with ENOSYS; the guest's kernel then stops asking

	log     *slog.Logger
	server  *fuse.ProtocolServer
	exports []*export
	hidden  []hidden
	groups  []int // of this process: decide what it may do with files of others
	uid     uint32

	nodes    table
	handles  handleTable
	listings listings
	syncing  atomic.Bool

	watch    watcher
	replays  sync.Mutex
	replayer atomic.Uint32 // the guest's thread that replays what the host did, or did so last; 0 for none
	running  sync.RWMutex  // read-locked by each request
	closed   bool          // under running

	agreed   atomic.Pointer[agreement]
	answered atomic.Int64 // when the guest was told last what it may keep; nanoseconds of Unix time
	settling atomic.Bool  // it is not told so now
	woken    atomic.Bool  // what the host did while the guest slept is yet to be told
}

// export is one share as it is served.
type export struct {
	Share
	root *node
	gone bool // of a saved state, and not to be had any more
}

// New opens the shares. A share that is missing or is not a folder is an error that names it.
func New(shares []Share, o Options) (*FS, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	limit := descriptorLimit()
	if o.Descriptors <= 0 {
		o.Descriptors = max(64, limit/4)
	}
	groups, err := os.Getgroups()
	if err != nil {
		return nil, fmt.Errorf("ask for our groups: %w", err)
	}
	f := &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		log:           o.Log,
		groups:        append(groups, os.Getegid()),
		uid:           uint32(os.Geteuid()),
	}
	f.watch.fs = f
	f.nodes.init(o.Descriptors)
	f.handles.init(min(maxHandles, max(64, limit/2)))
	for _, path := range o.Hide {
		f.hide(path)
	}
	for i, s := range shares {
		e := &export{Share: s}
		if err := f.open(e, i); err != nil {
			f.Close()
			return nil, err
		}
		f.exports = append(f.exports, e)
	}
	f.server = fuse.NewProtocolServer(f, MountOptions())
	return f, nil
}

func (f *FS) open(e *export, index int) error {
	fd, err := unix.Open(e.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("share %s: %w", e.Path, err)
	}
	st, err := stat(fd)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("share %s: %w", e.Path, err)
	}
	e.root = f.nodes.addRoot(e, fd, keyOf(&st), st.Ino, index)
	return nil
}

// MountOptions are what we want of the guest's kernel; for those who mount without HandleRequest.
func MountOptions() *fuse.MountOptions {
	return &fuse.MountOptions{
		Name:     "cove",
		MaxWrite: maxRequest,
		// No flock and POSIX locks of ours: they are the guest kernel's own, so that they work between
		// containers, never block a request here, and end with their process.
		EnableLocks: false,
		ExtraCapabilities: fuse.CAP_ASYNC_DIO | fuse.CAP_ATOMIC_O_TRUNC |
			fuse.CAP_DIRECT_IO_ALLOW_MMAP | // see direct
			// We clear setuid and setgid on write, or the kernel would ask for security.capability before
			// each one.
			fuse.CAP_HANDLE_KILLPRIV_V2,
		MaxBackground: 64,
		DisableSplice: true,
		// The guest decides what go-fuse has to complain of, so it may not fill a log.
		Logger: log.New(io.Discard, "", 0),
	}
}

// HandleRequest answers one FUSE request. in and out are byte streams in pieces, as a virtqueue's buffers
// are; they may change under our hands, because the guest has them too. n is how much of out is written,
// 0 for a request that has no answer. An errno is for a request that could not be read at all.
func (f *FS) HandleRequest(in, out [][]byte) (n int, errno syscall.Errno) {
	f.running.RLock()
	defer f.running.RUnlock()
	if f.closed {
		return 0, unix.ENODEV
	}
	// A panic on the guest's bytes would take every container with it; go-fuse's own parsing is outside
	// of the handler that catches ours.
	defer func() {
		if r := recover(); r != nil {
			f.log.Error("share: request dropped", "panic", r)
			n, errno = 0, unix.EIO
		}
	}()
	var first struct {
		fuse.InHeader
		major, minor uint32 // of an INIT
	}
	have := gather(unsafe.Slice((*byte)(unsafe.Pointer(&first)), unsafe.Sizeof(first)), in)
	if have < headerSize {
		return 0, unix.EIO
	}
	h := &first.InHeader
	if h.Opcode == opInit && (first.major != protocolMajor || first.minor < oldestMinor) {
		return f.reply(out, h.Unique, unix.EPROTO), 0
	}
	if h.Opcode == opSyncFS {
		return f.reply(out, h.Unique, f.syncAll()), 0
	}
	if size, known := smallest[h.Opcode]; known && length(in) < size {
		return f.reply(out, h.Unique, unix.EIO), 0
	}
	n, status := f.server.HandleRequest(in, out)
	if h.Opcode == opInit && status.Ok() {
		f.agreed.Store(&agreement{Asked: head(in, length(in)), Answered: head(out, n)})
	}
	return n, syscall.Errno(status)
}

// Close lets go of all descriptors, once the requests that run have ended. Later requests get ENODEV.
func (f *FS) Close() error {
	f.running.Lock()
	defer f.running.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	f.handles.closeAll()
	f.listings.close()
	f.nodes.closeAll()
	return nil
}

func (f *FS) String() string { return "cove" }

// descriptorLimit is how many descriptors the process may have.
func descriptorLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Cur, 1<<20))
}

func (f *FS) inGroup(gid uint32) bool { return slices.Contains(f.groups, int(gid)) }

// status is the guest's view of an error: the host's errno.
func status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var e syscall.Errno
	if errors.As(err, &e) {
		return fuse.Status(e)
	}
	return fuse.EIO
}
