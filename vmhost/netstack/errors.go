package netstack

import (
	"errors"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// unreachable gives the ICMP code of a host's error that says that there is no way to somewhere.
func unreachable(err error) (header.ICMPv4Code, bool) {
	switch {
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, errNetUnreachable), errors.Is(err, syscall.ENETDOWN):
		return header.ICMPv4NetUnreachable, true
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, errHostUnreachable), errors.Is(err, syscall.EHOSTDOWN):
		return header.ICMPv4HostUnreachable, true
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return header.ICMPv4HostProhibited, true
	}
	return 0, false
}

func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, errConnRefused)
}

// transient says whether a datagram was lost, and the next one may not be.
func transient(err error) bool {
	return errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.EAGAIN)
}
