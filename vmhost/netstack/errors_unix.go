//go:build unix

package netstack

import "syscall"

// What Windows has numbers of its own for.
const (
	errNetUnreachable  = syscall.ENETUNREACH
	errHostUnreachable = syscall.EHOSTUNREACH
	errConnRefused     = syscall.ECONNREFUSED
)
