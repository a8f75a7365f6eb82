//go:build linux

package boot

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
)

// RunDir is where guestd writes what the read-only root links to: resolv.conf, hosts, hostname, and
// the engine's configuration.
const RunDir = "/run/cove"

// networkCard is the guest's only one; containers have devices of their own making.
const networkCard = "eth0"

// Names writes the files that name the guest, and a resolver that holds until the network says another.
func Names(hostname string) error {
	if err := os.MkdirAll(RunDir, 0o755); err != nil {
		return err
	}
	files := map[string]string{
		"hostname": hostname + "\n",
		"hosts":    "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 " + hostname + "\n",
	}
	for name, text := range files {
		if err := os.WriteFile(RunDir+"/"+name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(RunDir+"/resolv.conf", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// Network asks for an address by DHCP (RFC 2131) and sets it, the route and the resolver. A guest
// without a network card has none, and that is no error.
func Network(ctx context.Context) error {
	link, err := netlink.LinkByName(networkCard)
	if err != nil {
		return nil
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("network card up: %w", err)
	}
	client, err := nclient4.New(networkCard, nclient4.WithTimeout(time.Second), nclient4.WithRetry(30))
	if err != nil {
		return fmt.Errorf("dhcp: %w", err)
	}
	defer client.Close()
	lease, err := client.Request(ctx)
	if err != nil {
		return fmt.Errorf("dhcp: %w", err)
	}
	return apply(link, lease.ACK)
}

func apply(link netlink.Link, ack *dhcpv4.DHCPv4) error {
	// The card may say the same by itself (VIRTIO_NET_F_MTU), and then takes no larger one.
	if b := ack.Options.Get(dhcpv4.OptionInterfaceMTU); len(b) == 2 {
		mtu := int(binary.BigEndian.Uint16(b))
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			slog.Warn("set the network card's packet size", "mtu", mtu, "err", err)
		}
	}
	address := &net.IPNet{IP: ack.YourIPAddr, Mask: ack.SubnetMask()}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: address}); err != nil {
		return fmt.Errorf("set address %s: %w", address, err)
	}
	for _, router := range ack.Router() {
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: router}); err != nil {
			return fmt.Errorf("set route by %s: %w", router, err)
		}
	}
	var b strings.Builder
	for _, server := range ack.DNS() {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}
	if search := ack.DomainSearch(); search != nil && len(search.Labels) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search.Labels, " "))
	}
	return os.WriteFile(RunDir+"/resolv.conf", []byte(b.String()), 0o644)
}
