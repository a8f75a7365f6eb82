//go:build linux

package ports

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LaunchWord is guestd's word for Launch.
const LaunchWord = "launch"

// Launch becomes the program with its bind(2) held: a seccomp filter asks for every bind of an IPv4 or
// IPv6 address, and the listener of those asks is handed to the first process by its socket
// (seccomp_unotify(2)). The filter is for one system call of two address lengths, so that what the engine
// starts itself (BuildKit's containers inherit it) hardly notices. It returns only on failure.
func Launch(args []string) error {
	if len(args) == 0 {
		return errors.New("launch what?")
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: Socket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("reach guestd: %w", err)
	}
	// The filter is the thread's, and so must be the exec.
	runtime.LockOSThread()
	listener, err := holdBind()
	if err != nil {
		return fmt.Errorf("hold bind: %w", err)
	}
	line, err := json.Marshal(request{Watch: true})
	if err != nil {
		return err
	}
	if _, _, err := conn.WriteMsgUnix(append(line, '\n'), unix.UnixRights(listener), nil); err != nil {
		return fmt.Errorf("hand guestd the listener: %w", err)
	}
	if err := readAnswer(conn); err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", args[0], syscall.Exec(args[0], args, os.Environ()))
}

// holdBind installs the filter on this thread and returns its listener.
func holdBind() (int, error) {
	const (
		dataNumber = 0  // struct seccomp_data: nr
		dataArch   = 4  // arch
		dataLength = 32 // args[2]: of the address; the low half, which comes first
	)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: dataArch},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: auditArch, Jf: 6},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: dataNumber},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_BIND, Jf: 4},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: dataLength},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SizeofSockaddrInet4, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SizeofSockaddrInet6, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
