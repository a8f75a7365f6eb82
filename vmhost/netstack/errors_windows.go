package netstack

import "golang.org/x/sys/windows"

// Windows' sockets give numbers that package syscall does not call by the names of POSIX.
const (
	errNetUnreachable  = windows.WSAENETUNREACH
	errHostUnreachable = windows.WSAEHOSTUNREACH
	errConnRefused     = windows.WSAECONNREFUSED
)
