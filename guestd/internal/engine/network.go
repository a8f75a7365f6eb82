//go:build linux

package engine

import (
	"strconv"

	"github.com/covedesk/cove/guestd/protocol"
)

// reach gives the engine's networks the packet size of the guest's own, and host-gateway the address
// where the host is. A network keeps the size with which it was made.
func reach(all map[string]any, network *protocol.Network) {
	if network == nil {
		return
	}
	all["mtu"] = network.MTU
	all["host-gateway-ips"] = []string{network.HostAddress}
	drivers, _ := all["default-network-opts"].(map[string]any)
	if drivers == nil {
		drivers = map[string]any{}
		all["default-network-opts"] = drivers
	}
	bridge, _ := drivers["bridge"].(map[string]string)
	if bridge == nil {
		bridge = map[string]string{}
		drivers["bridge"] = bridge
	}
	bridge["com.docker.network.driver.mtu"] = strconv.Itoa(network.MTU)
}
