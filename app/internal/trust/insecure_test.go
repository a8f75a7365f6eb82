package trust

import (
	"net/netip"
	"testing"
)

func TestWhoIsInsecure(t *testing.T) {
	lookup := func(name string) []netip.Addr {
		if name == "lan" {
			return []netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("::ffff:10.1.2.3")}
		}
		return nil
	}
	for _, c := range []struct {
		in   Insecure
		host string
		want bool
	}{
		{Insecure{"r:1"}, "r:1", true},
		{Insecure{"r:1"}, "r:2", false},
		{Insecure{"r"}, "r:1", false},
		{Insecure{"10.0.0.0/8"}, "10.1.1.1:5000", true},
		{Insecure{"10.0.0.0/8"}, "11.1.1.1:5000", false},
		{Insecure{"x", "10.0.0.0/8"}, "lan:5000", true},
		{Insecure{"192.168.0.0/16", "fd00::/8"}, "lan", true},
		{Insecure{"fd00::/8"}, "[fd00::2]:5000", true},
		{Insecure{"10.0.0.0/8"}, "elsewhere:5000", false},
		{nil, "lan", false},
	} {
		if got := c.in.Has(c.host, lookup); got != c.want {
			t.Errorf("%q.Has(%q) = %v; want %v", c.in, c.host, got, c.want)
		}
	}
	if (Insecure{"10.0.0.0/8"}).Has("lan", nil) {
		t.Error("a name has an address where nobody is asked")
	}
}
