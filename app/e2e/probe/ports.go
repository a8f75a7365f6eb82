//go:build linux

package main

import "net"

// echoUDP sends every datagram back that comes to a port, for ever.
func echoUDP(port string) {
	c, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		fail(err.Error())
	}
	buf := make([]byte, 65535)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			fail(err.Error())
		}
		c.WriteTo(buf[:n], from)
	}
}
