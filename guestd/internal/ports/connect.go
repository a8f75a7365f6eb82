//go:build linux

package ports

import (
	"net"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/ports"
	"github.com/covedesk/cove/proxy/transport"
)

// connectPatience bounds a connection to a container: it is one hop away, and its kernel answers.
const connectPatience = 10 * time.Second

// Connect serves protocol.ServiceConnect: it connects the host to an address of the guest's network.
func Connect(conn proxy.Conn) {
	network, address := protocol.ParseConnect(transport.Argument(conn))
	switch network {
	case "tcp", "udp":
	default:
		transport.Refuse(conn, "connections are tcp or udp")
		return
	}
	to, err := net.DialTimeout(network, address, connectPatience)
	if err != nil {
		transport.Refuse(conn, err.Error())
		return
	}
	if transport.Accept(conn) != nil {
		to.Close()
		return
	}
	if network == "udp" {
		ports.RelayDatagrams(ports.Datagrams(conn), to)
		return
	}
	proxy.Join(conn, to.(*net.TCPConn), nil)
}
