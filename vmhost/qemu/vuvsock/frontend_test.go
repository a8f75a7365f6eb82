//go:build linux

package vuvsock

import (
	"io"
	"net"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a front end and a guest's driver know of vhost-user and virtio, written down a second time: the
// device is not to be judged by its own numbers.
const (
	reqGetFeatures         = 1
	reqSetFeatures         = 2
	reqSetOwner            = 3
	reqSetMemTable         = 5
	reqSetVringNum         = 8
	reqSetVringAddr        = 9
	reqSetVringBase        = 10
	reqGetVringBase        = 11
	reqSetVringKick        = 12
	reqSetVringCall        = 13
	reqGetProtocolFeatures = 15
	reqSetProtocolFeatures = 16
	reqGetQueueNum         = 17
	reqSetVringEnable      = 18
	reqGetConfig           = 24
	reqSetConfig           = 25

	messageHeader = 12
	flagVersion   = 1
	flagReply     = 1 << 2
	flagNeedReply = 1 << 3
	noDescriptor  = 1 << 8

	maxRingSize  = 32768
	descNext     = 1
	descWrite    = 2
	descSize     = 16
	featEventIdx = 29
)

// word is the flags and index word at the head of a ring's avail or used.
func word(b []byte) *uint32 { return (*uint32)(unsafe.Pointer(unsafe.SliceData(b))) }

// plugIn gives the device the memory of the tests' simple guest, with both rings enabled. Nothing kicks
// them: the test calls kicked.
func plugIn(t testing.TB, d *Device, file int, features uint64) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	front, back := unixConn(t, pair[0]), unixConn(t, pair[1])
	served := make(chan struct{})
	go func() { defer close(served); d.Serve(back) }()
	t.Cleanup(func() { front.Close(); <-served })
	tell(t, front, reqSetFeatures, longs(1<<32|1<<30|features))
	tell(t, front, reqSetMemTable, append(words(1, 0), longs(guestBase, memorySize, userBase, 0)...), file)
	for i := range 2 {
		tell(t, front, reqSetVringNum, words(uint32(i), entries))
		tell(t, front, reqSetVringAddr, append(words(uint32(i), 0), longs(userBase+part(i, 0), userBase+part(i, 2), userBase+part(i, 1), 0)...))
	}
	for i := range 2 {
		tell(t, front, reqSetVringEnable, words(uint32(i), 1))
	}
}

// tell says a request and waits until it is done.
func tell(t testing.TB, front *net.UnixConn, request uint32, body []byte, fds ...int) {
	t.Helper()
	b := append(words(request, flagVersion|flagNeedReply, uint32(len(body))), body...)
	_, _, err := front.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	must(t, err)
	_, err = io.ReadFull(front, make([]byte, messageHeader+8))
	must(t, err)
}

// kicked is the guest's word that there are buffers in its transmit ring.
func (d *Device) kicked() { d.half.Kicked(txRing) }
