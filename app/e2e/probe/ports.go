//go:build linux

package main

import (
	"fmt"
	"net"
)

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

// bind listens on a port, by both protocols and families, and says so.
func bind(port string) {
	for _, network := range []string{"tcp4", "tcp6"} {
		l, err := net.Listen(network, ":"+port)
		if err != nil {
			fail(err.Error())
		}
		l.Close()
	}
	for _, network := range []string{"udp4", "udp6"} {
		c, err := net.ListenPacket(network, ":"+port)
		if err != nil {
			fail(err.Error())
		}
		c.Close()
	}
	fmt.Println("bound", port)
}
