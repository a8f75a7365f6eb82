package share

import (
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// What go-fuse does not do for us: the request that it lacks, and telling requests that are too short
// before it writes a line to the process's log for each.

const (
	headerSize = int(unsafe.Sizeof(fuse.InHeader{}))

	opInit   = 26
	opSyncFS = 50 // FUSE_SYNCFS: sync(2) in the guest

	maxAgreed = 256 // bytes of INIT or its answer; they have 104 and 80

	protocolMajor, oldestMinor = 7, 31 // of FUSE; Linux 5.4, the first with virtiofs, has 7.31
)

// smallest is how long a request of an opcode has to be (linux/fuse.h). Those with a name are a byte longer
// still, which go-fuse handles.
var smallest = map[uint32]int{
	2:  int(unsafe.Sizeof(fuse.ForgetIn{})),
	3:  int(unsafe.Sizeof(fuse.GetAttrIn{})),
	4:  int(unsafe.Sizeof(fuse.SetAttrIn{})),
	8:  int(unsafe.Sizeof(fuse.MknodIn{})),
	9:  int(unsafe.Sizeof(fuse.MkdirIn{})),
	12: headerSize + 8,
	13: int(unsafe.Sizeof(fuse.LinkIn{})),
	14: int(unsafe.Sizeof(fuse.OpenIn{})),
	15: int(unsafe.Sizeof(fuse.ReadIn{})),
	16: int(unsafe.Sizeof(fuse.WriteIn{})),
	18: int(unsafe.Sizeof(fuse.ReleaseIn{})),
	20: int(unsafe.Sizeof(fuse.FsyncIn{})),
	21: headerSize + 8,
	22: int(unsafe.Sizeof(fuse.GetXAttrIn{})),
	23: int(unsafe.Sizeof(fuse.GetXAttrIn{})),
	25: int(unsafe.Sizeof(fuse.FlushIn{})),
	26: headerSize + 16,
	27: int(unsafe.Sizeof(fuse.OpenIn{})),
	28: int(unsafe.Sizeof(fuse.ReadIn{})),
	29: int(unsafe.Sizeof(fuse.ReleaseIn{})),
	30: int(unsafe.Sizeof(fuse.FsyncIn{})),
	31: int(unsafe.Sizeof(fuse.LkIn{})),
	32: int(unsafe.Sizeof(fuse.LkIn{})),
	33: int(unsafe.Sizeof(fuse.LkIn{})),
	34: int(unsafe.Sizeof(fuse.AccessIn{})),
	35: int(unsafe.Sizeof(fuse.CreateIn{})),
	36: int(unsafe.Sizeof(fuse.InterruptIn{})),
	37: headerSize + 16,
	39: int(unsafe.Sizeof(fuse.IoctlIn{})),
	40: headerSize + 24,
	41: int(unsafe.Sizeof(fuse.NotifyRetrieveIn{})),
	42: headerSize + 8,
	43: int(unsafe.Sizeof(fuse.FallocateIn{})),
	44: int(unsafe.Sizeof(fuse.ReadIn{})),
	45: int(unsafe.Sizeof(fuse.RenameIn{})),
	46: int(unsafe.Sizeof(fuse.LseekIn{})),
	47: int(unsafe.Sizeof(fuse.CopyFileRangeIn{})),
	52: int(unsafe.Sizeof(fuse.StatxIn{})),
	51: int(unsafe.Sizeof(fuse.CreateIn{})),
	53: int(unsafe.Sizeof(fuse.CopyFileRangeIn{})),
}

// reply writes an answer that is a header and nothing else.
func (f *FS) reply(out [][]byte, unique uint64, errno syscall.Errno) int {
	h := fuse.OutHeader{Length: uint32(unsafe.Sizeof(fuse.OutHeader{})), Status: -int32(errno), Unique: unique}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&h)), unsafe.Sizeof(h))
	if length(out) < len(b) {
		return 0
	}
	n := 0
	for _, piece := range out {
		n += copy(piece, b[n:])
	}
	return n
}

// syncAll is sync(2): what the guest wrote reaches the host's disks. One at a time, because it writes back
// all of the host's file system and any container can call it; who comes meanwhile has it answered.
func (f *FS) syncAll() syscall.Errno {
	if !f.syncing.CompareAndSwap(false, true) {
		return 0
	}
	defer f.syncing.Store(false)
	done := map[uint64]bool{}
	for _, e := range f.exports {
		if e.ReadOnly || e.gone || done[e.root.key.dev] {
			continue
		}
		done[e.root.key.dev] = true
		fd, err := unix.Open(e.Path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // the share is gone from the host, and nothing of it is to be written
		}
		err = unix.Syncfs(fd)
		unix.Close(fd)
		if errno, is := err.(syscall.Errno); is && errno != 0 {
			return errno
		}
	}
	return 0
}

// head is a copy of the first n bytes, at most maxAgreed.
func head(pieces [][]byte, n int) []byte {
	b := make([]byte, min(n, maxAgreed))
	return b[:gather(b, pieces)]
}

func gather(dst []byte, pieces [][]byte) int {
	n := 0
	for _, p := range pieces {
		n += copy(dst[n:], p)
		if n == len(dst) {
			break
		}
	}
	return n
}

func length(pieces [][]byte) (n int) {
	for _, p := range pieces {
		n += len(p)
	}
	return n
}
