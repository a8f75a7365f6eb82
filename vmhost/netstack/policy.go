package netstack

import "net/netip"

// never are the destinations that are not the rest of the world. By some of them a guest would reach
// the host itself: a connect to 0.0.0.0 is one to the loopback on Linux. Link-local addresses mean the
// guest's link, which has nobody on it; on the host's, clouds hand out credentials (169.254.169.254).
var never = []netip.Prefix{
	Subnet,
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"), // multicast
	netip.MustParsePrefix("240.0.0.0/4"), // reserved, and broadcast
}

// loopbacks are where a port of [Host] is looked for, in this order.
var loopbacks = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// destinations are the host's addresses to try for one of the guest's; none means that it is refused.
func destinations(a netip.Addr) []netip.Addr {
	if a == Host {
		return loopbacks
	}
	if !outside(a) {
		return nil
	}
	return []netip.Addr{a}
}

// outside says whether an address is one of the rest of the world.
func outside(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	for _, p := range never {
		if p.Contains(a) {
			return false
		}
	}
	return true
}
