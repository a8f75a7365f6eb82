//go:build linux

package ports

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/covedesk/cove/guestd/protocol"
	"golang.org/x/sys/unix"
)

// bindPatience bounds how long a bind waits for the host: less than the engine's own patience with the
// start of a container's port, so that the engine tells the user.
const bindPatience = 12 * time.Second

// maxBinding bounds the binds that are looked at beside each other.
const maxBinding = 64

// notification and response are struct seccomp_notif and seccomp_notif_resp (linux/seccomp.h).
type notification struct {
	id        uint64
	pid       uint32 // of the thread
	flags     uint32
	number    int32
	arch      uint32
	ip        uint64
	arguments [6]uint64
}

type response struct {
	id    uint64
	value int64
	errno int32 // negative
	flags uint32
}

// watcher answers the binds of one run of the engine.
type watcher struct {
	book     *Book
	engine   int // its process id
	listener *os.File
}

// run answers until the engine and all that it started have ended.
func (w *watcher) run() {
	defer w.listener.Close()
	fd := int(w.listener.Fd())
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, maxBinding)
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err == unix.EINTR {
			continue
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			return // POLLHUP: nobody has the filter any more
		}
		var n notification // the kernel wants it zeroed
		if err := ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); err != nil {
			if err == unix.ENOENT || err == unix.EINTR {
				continue // its thread was killed meanwhile
			}
			slog.Error("seccomp", "err", err)
			return
		}
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			r := response{id: n.id}
			if errno := w.decide(fd, n); errno != 0 {
				r.errno = -int32(errno)
			} else {
				r.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
			}
			if err := ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)); err != nil && err != unix.ENOENT {
				slog.Error("seccomp", "err", err)
			}
		})
	}
}

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// decide gives the errno of a bind, or 0 for the kernel to go on with it. Only the engine's own published
// ports are the host's business.
func (w *watcher) decide(fd int, n notification) unix.Errno {
	if threadGroup(n.pid) != w.engine {
		return 0 // what the engine started, such as a build
	}
	socket, err := w.socketOf(n)
	if err != nil {
		return 0
	}
	defer unix.Close(socket)
	if !publishes(socket) {
		return 0
	}
	network, at, err := bindOf(socket, n)
	if err != nil || at.Port() == 0 {
		return 0
	}
	var st unix.Stat_t
	if unix.Fstat(socket, &st) != nil {
		return 0
	}
	// The thread may have gone and its number be another's: only now is what was read its own.
	if ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&n.id)) != nil {
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), bindPatience)
	defer cancel()
	lease, err := w.book.Bind(ctx, protocol.Bind{Protocol: network, Address: at.String()})
	if err != nil {
		slog.Info("port refused", "protocol", network, "address", at, "err", err)
		return errnoOf(err)
	}
	go w.reclaim(lease, st.Ino)
	return 0
}

// socketOf gets a descriptor of the socket that is to be bound.
func (w *watcher) socketOf(n notification) (int, error) {
	pidfd, err := unix.PidfdOpen(w.engine, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd)
	return unix.PidfdGetfd(pidfd, int(int32(n.arguments[0])), 0)
}

// publishes knows the sockets of the engine's port allocator by their filter, which drops all until the
// port leads somewhere (osallocator_linux.go, setSocketFilter). The engine binds others too: its DNS
// servers in containers' networks, swarm's own ports.
func publishes(socket int) bool {
	var filter [2]unix.SockFilter
	size := uint32(len(filter)) // in instructions, of which there must be this one
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(socket), unix.SOL_SOCKET, unix.SO_GET_FILTER, uintptr(unsafe.Pointer(&filter[0])), uintptr(unsafe.Pointer(&size)), 0)
	return errno == 0 && size == 1 && filter[0] == unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
}

// bindOf reads what is to be bound from the thread's memory.
func bindOf(socket int, n notification) (string, netip.AddrPort, error) {
	kind, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return "", netip.AddrPort{}, err
	}
	network := map[int]string{unix.SOCK_STREAM: "tcp", unix.SOCK_DGRAM: "udp"}[kind]
	if network == "" {
		return "", netip.AddrPort{}, errors.New("neither TCP nor UDP")
	}
	raw := make([]byte, min(n.arguments[2], unix.SizeofSockaddrInet6))
	local := []unix.Iovec{{Base: &raw[0], Len: uint64(len(raw))}}
	remote := []unix.RemoteIovec{{Base: uintptr(n.arguments[1]), Len: len(raw)}}
	got, err := unix.ProcessVMReadv(int(n.pid), local, remote, 0)
	if err != nil || got != len(raw) {
		return "", netip.AddrPort{}, fmt.Errorf("read the address: %w", err)
	}
	port := binary.BigEndian.Uint16(raw[2:])
	switch family := binary.NativeEndian.Uint16(raw); {
	case family == unix.AF_INET:
		return network, netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), port), nil
	case family == unix.AF_INET6 && len(raw) == unix.SizeofSockaddrInet6:
		return network, netip.AddrPortFrom(netip.AddrFrom16([16]byte(raw[8:24])), port), nil
	}
	return "", netip.AddrPort{}, errors.New("another family")
}

// errnoOf is the host's refusal as the engine would have it from its own kernel.
func errnoOf(err error) unix.Errno {
	var refused *protocol.AskError
	if !errors.As(err, &refused) {
		return unix.ETIMEDOUT // the host is away
	}
	switch refused.Kind {
	case protocol.AskInUse:
		return unix.EADDRINUSE
	case protocol.AskNoAddress:
		return unix.EADDRNOTAVAIL
	case protocol.AskDenied:
		return unix.EACCES
	case protocol.AskNotOffered:
		return unix.EOPNOTSUPP
	}
	return unix.EIO
}

// reclaimEvery is how often an address that no proxy has claimed yet is looked after.
const reclaimEvery = 100 * time.Millisecond

// reclaim lets go of an address whose socket the engine has closed before a proxy claimed it: the start
// of its container failed.
func (w *watcher) reclaim(l *Lease, inode uint64) {
	name := fmt.Sprintf("socket:[%d]", inode)
	for l.Current() {
		if !hasOpen(w.engine, name) {
			l.Release()
			return
		}
		time.Sleep(reclaimEvery)
	}
}

// hasOpen says whether a process has a descriptor of this name (proc(5), /proc/pid/fd).
func hasOpen(pid int, name string) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if to, err := os.Readlink(dir + "/" + e.Name()); err == nil && to == name {
			return true
		}
	}
	return false
}

// threadGroup is the process of a thread, or 0.
func threadGroup(tid uint32) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var id int
		if n, _ := fmt.Sscanf(line, "Tgid:\t%d", &id); n == 1 {
			return id
		}
	}
	return 0
}
