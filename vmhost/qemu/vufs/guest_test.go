//go:build linux

package vufs

import (
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a front end and a guest's driver know of vhost-user and virtio, written down a second time: the
// device is not to be judged by its own numbers.
const (
	setFeatures, setMemTable                                 = 2, 5
	setNum, setAddr, setBase, getBase, setKick, setCall, set = 8, 9, 10, 11, 12, 13, 18

	next, write, indirect = 1, 2, 4

	entries    = 16
	guestBase  = 0x10000
	userBase   = 0x7f0000000000
	memorySize = 4 << 20
	dataAt     = 0x40000 // where buffers are; below are rings and tables
	tableAt    = 0x20000
)

func part(ring, which int) uint64 { return uint64(ring*3+which) * 0x1000 }

// guest is a guest's driver with its QEMU.
type guest struct {
	t      testing.TB
	d      *Device
	front  *net.UnixConn
	served chan error
	file   int
	mem    []byte
	kick   [rings]int
	call   [rings]*os.File
	avail  [rings]uint16
	seen   [rings]uint16
}

type handlerFunc func(in, out [][]byte) (int, syscall.Errno)

func (f handlerFunc) HandleRequest(in, out [][]byte) (int, syscall.Errno) { return f(in, out) }

func newDevice(t testing.TB, h handlerFunc) *Device {
	d := New(h, slog.New(slog.DiscardHandler))
	t.Cleanup(d.Close)
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func socket(t testing.TB, fd int) *net.UnixConn {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	must(t, err)
	return c.(*net.UnixConn)
}

// boot connects a new guest to the device.
func boot(t testing.TB, d *Device) *guest {
	t.Helper()
	g := &guest{t: t, d: d, served: make(chan error, 1)}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	g.front = socket(t, pair[0])
	back := socket(t, pair[1])
	g.front.SetDeadline(time.Now().Add(2 * time.Minute))
	go func() { g.served <- d.Serve(back) }()
	g.file, err = unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	must(t, err)
	must(t, unix.Ftruncate(g.file, memorySize))
	g.mem, err = unix.Mmap(g.file, 0, memorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	t.Cleanup(func() {
		g.front.Close()
		<-g.served
		unix.Munmap(g.mem)
		unix.Close(g.file)
		for i := range rings {
			unix.Close(g.kick[i])
			g.call[i].Close()
		}
	})
	g.say(setFeatures, longs(1<<32|1<<30|1<<28|1<<29))
	g.say(setMemTable, append(words(1, 0), longs(guestBase, memorySize, userBase, 0)...), g.file)
	for i := range rings {
		g.kick[i], err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		must(t, err)
		call, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		must(t, err)
		g.call[i] = os.NewFile(uintptr(call), "call")
		g.begin(i, call)
	}
	return g
}

// begin sets a ring up, where it left off.
func (g *guest) begin(ring, call int) {
	g.t.Helper()
	n := uint32(ring)
	g.say(setNum, words(n, entries))
	g.say(setBase, words(n, uint32(g.seen[ring])))
	g.say(setAddr, append(words(n, 0), longs(userBase+part(ring, 0), userBase+part(ring, 2), userBase+part(ring, 1), 0)...))
	g.say(setKick, longs(uint64(ring)), g.kick[ring])
	g.say(setCall, longs(uint64(ring)), call)
	g.say(set, words(n, 1))
}

func words(v ...uint32) (b []byte) {
	for _, w := range v {
		b = le.AppendUint32(b, w)
	}
	return b
}

func longs(v ...uint64) (b []byte) {
	for _, w := range v {
		b = le.AppendUint64(b, w)
	}
	return b
}

// say tells the device a request and waits until it is done.
func (g *guest) say(request uint32, body []byte, fds ...int) []byte {
	g.t.Helper()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err := g.front.WriteMsgUnix(append(words(request, 1|8, uint32(len(body))), body...), oob, nil)
	must(g.t, err)
	head := make([]byte, 12)
	_, err = io.ReadFull(g.front, head)
	must(g.t, err)
	answer := make([]byte, le.Uint32(head[8:]))
	_, err = io.ReadFull(g.front, answer)
	must(g.t, err)
	return answer
}

// stop is what QEMU does when the machine is paused or the driver goes.
func (g *guest) stop(ring int) { g.t.Helper(); g.say(getBase, words(uint32(ring), 0)) }

// piece is one descriptor: where it points, and its flags beside next.
type piece struct {
	at    uint64 // of the guest's
	size  uint32
	flags uint16
}

func in(at, size int) piece  { return piece{uint64(guestBase + dataAt + at), uint32(size), 0} }
func out(at, size int) piece { return piece{uint64(guestBase + dataAt + at), uint32(size), write} }

func (g *guest) descriptor(table uint64, i int, p piece, follow int) {
	d := g.mem[table+uint64(i)*16:]
	le.PutUint64(d, p.at)
	le.PutUint32(d[8:], p.size)
	le.PutUint16(d[12:], p.flags)
	if follow >= 0 {
		le.PutUint16(d[12:], p.flags|next)
		le.PutUint16(d[14:], uint16(follow))
	}
}

// chain writes descriptors from the first on.
func (g *guest) chain(table uint64, first int, pieces ...piece) {
	for i, p := range pieces {
		follow := first + i + 1
		if i == len(pieces)-1 {
			follow = -1
		}
		g.descriptor(table, first+i, p, follow)
	}
}

// give puts a chain's head into the ring and tells the device.
func (g *guest) give(ring, head int) {
	a := g.mem[part(ring, 1):]
	le.PutUint16(a[4+2*(g.avail[ring]%entries):], uint16(head))
	g.avail[ring]++
	atomic.StoreUint32((*uint32)(unsafe.Pointer(unsafe.SliceData(a))), uint32(g.avail[ring])<<16)
	unix.Write(g.kick[ring], longs(1))
}

// header writes a FUSE header into the buffers' space.
func (g *guest) header(at int, opcode uint32, unique uint64) {
	b := g.mem[dataAt+at:]
	le.PutUint32(b, headerSize)
	le.PutUint32(b[4:], opcode)
	le.PutUint64(b[8:], unique)
}

// used gives the next buffer that the device has given back; it waits for it.
func (g *guest) used(ring int) (head int, n uint32) {
	g.t.Helper()
	g.call[ring].SetReadDeadline(time.Now().Add(time.Minute))
	u := g.mem[part(ring, 2):]
	for {
		// The event index: tell at the next one.
		le.PutUint16(g.mem[part(ring, 1)+4+2*entries:], g.seen[ring])
		if uint16(atomic.LoadUint32((*uint32)(unsafe.Pointer(unsafe.SliceData(u))))>>16) != g.seen[ring] {
			e := u[4+8*int(g.seen[ring]%entries):]
			g.seen[ring]++
			return int(le.Uint32(e)), le.Uint32(e[4:])
		}
		if _, err := g.call[ring].Read(make([]byte, 8)); err != nil {
			g.t.Fatalf("ring %d: no answer came: %v", ring, err)
		}
	}
}

// nothing says that no answer is there.
func (g *guest) nothing(ring int) bool {
	u := g.mem[part(ring, 2):]
	return uint16(atomic.LoadUint32((*uint32)(unsafe.Pointer(unsafe.SliceData(u))))>>16) == g.seen[ring]
}

// failure is the errno of an answer that lies at a place.
func (g *guest) failure(at int) (unique uint64, errno syscall.Errno) {
	b := g.mem[dataAt+at:]
	return le.Uint64(b[8:]), syscall.Errno(-int32(le.Uint32(b[4:])))
}
