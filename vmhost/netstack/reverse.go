package netstack

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// fromReverse is the address that a name below in-addr.arpa or ip6.arpa means; empty if it is not a whole one.
func fromReverse(name string) string {
	name = strings.ToLower(dns.Fqdn(name))
	labels := dns.SplitDomainName(name)
	if len(labels) < 2 {
		return ""
	}
	labels = labels[:len(labels)-2]
	var b strings.Builder
	for i := len(labels) - 1; i >= 0; i-- {
		b.WriteString(labels[i])
		switch {
		case i == 0:
		case strings.HasSuffix(name, ".in-addr.arpa."):
			b.WriteByte('.')
		case (len(labels)-i)%4 == 0:
			b.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(b.String())
	if err != nil || reverse(a) != name {
		return ""
	}
	return a.String()
}
