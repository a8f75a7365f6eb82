package trust

import (
	"net"
	"net/netip"
	"slices"
)

// Insecure are registries whose certificate is not checked, and which may speak http: host, host:port, or
// networks.
type Insecure []string

// Has says whether a registry is one of them, by its name, or by an address in a network. lookup gives the
// addresses of a name, and is asked only where there is a network; nil: names have none.
func (in Insecure) Has(host string, lookup func(name string) []netip.Addr) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	var addresses []netip.Addr
	if ip, err := netip.ParseAddr(name); err == nil {
		addresses, lookup = []netip.Addr{ip}, nil
	}
	return slices.ContainsFunc(in, func(one string) bool {
		network, err := netip.ParsePrefix(one)
		if err != nil {
			return one == host
		}
		if lookup != nil {
			addresses, lookup = lookup(name), nil
		}
		return slices.ContainsFunc(addresses, func(a netip.Addr) bool { return network.Contains(a.Unmap()) })
	})
}
