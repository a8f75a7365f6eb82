//go:build !linux

package ports

import "net"

// wantDestination is for Linux; elsewhere the system picks the address that a reply leaves from.
func wantDestination(*net.UDPConn) bool { return false }

func replyFrom([]byte) []byte { return nil }
