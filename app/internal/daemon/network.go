package daemon

import (
	"fmt"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/netstack"
)

// network makes the network of a machine that is about to start.
func (d *Daemon) network() (*netstack.Network, error) {
	mtu := netstack.LargeMTU
	if limited, is := d.driver.(vmhost.CardLimiter); is {
		mtu = min(mtu, limited.CardLimit())
	}
	n, err := netstack.New(netstack.Config{MTU: mtu, Log: d.log})
	if err != nil {
		return nil, fmt.Errorf("start the network: %w", err)
	}
	return n, nil
}

// announce is what the guest is told of its network.
func announce(n *netstack.Network) *protocol.Network {
	return &protocol.Network{MTU: n.MTU(), HostAddress: netstack.Host.String()}
}
