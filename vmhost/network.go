package vmhost

import "net"

// Network is what a machine's network card is plugged into. A machine whose Spec has none has no card,
// except with vz, which gives it the framework's own NAT.
type Network interface {
	// MTU is the largest IP packet that the network takes, in bytes. A driver that can give its card
	// this size does.
	MTU() int

	// Attach carries frames between a card and the network until the connection ends, and closes it.
	// The frames are a guest's: anything at all. One card at a time.
	Attach(conn net.Conn, framing Framing) error
}

// CardLimiter is a driver whose cards take no packets larger than CardLimit, in bytes.
type CardLimiter interface{ CardLimit() int }

// Framing is how Ethernet frames stand in a connection.
type Framing string

// The framings of the drivers.
const (
	FrameStream   Framing = "stream"   // a byte stream: the length of each frame before it, 4 bytes, big endian
	FrameDatagram Framing = "datagram" // each frame is a datagram
)
