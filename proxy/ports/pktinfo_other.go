//go:build !linux

package ports

import "net"

// wantDestination is for Linux; elsewhere the system picks the address that a reply leaves from.
func wantDestination(*net.UDPConn) bool { return false }

func replyFrom([]byte) []byte { return nil }

// wantOverflow is for Linux.
func wantOverflow(*net.UDPConn) {}

func overflow([]byte) (uint32, bool) { return 0, false }
