package ports

import (
	"encoding/binary"
	"net"

	"golang.org/x/sys/unix"
)

// wantDestination asks the kernel to say where each datagram was sent to (ip(7) IP_PKTINFO, ipv6(7)
// IPV6_RECVPKTINFO), and says whether it will.
func wantDestination(socket *net.UDPConn) bool {
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	four := socket.LocalAddr().(*net.UDPAddr).IP.To4() != nil
	cerr := raw.Control(func(fd uintptr) {
		if four {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	})
	return cerr == nil && err == nil
}

// replyFrom turns what came with a datagram into what makes the reply leave from where it was sent to.
// The device is left for the routes to choose, but for an address that means nothing without it.
func replyFrom(oob []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			info := &unix.Inet4Pktinfo{Spec_dst: [4]byte(m.Data[4:8])}
			return unix.PktInfo4(info)
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			info := &unix.Inet6Pktinfo{Addr: [16]byte(m.Data[:16])}
			if ip := net.IP(m.Data[:16]); ip.IsLinkLocalUnicast() {
				info.Ifindex = binary.NativeEndian.Uint32(m.Data[16:20])
			}
			return unix.PktInfo6(info)
		}
	}
	return nil
}

// wantOverflow asks the kernel to say how many datagrams it had no room for (socket(7) SO_RXQ_OVFL).
func wantOverflow(socket *net.UDPConn) {
	if raw, err := socket.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1) })
	}
}

// overflow is how many the kernel had no room for since the socket was made, modulo 2³², if it says so: it
// does after the first.
func overflow(oob []byte) (uint32, bool) {
	for len(oob) >= unix.SizeofCmsghdr {
		head, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		if head.Level == unix.SOL_SOCKET && head.Type == unix.SO_RXQ_OVFL && len(data) >= 4 {
			return binary.NativeEndian.Uint32(data), true
		}
		oob = rest
	}
	return 0, false
}
