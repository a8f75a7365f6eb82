//go:build e2e && linux

package e2e

import (
	"net"
	"strings"
	"testing"
)

// hostAddress is an address of this machine that is not loopback.
func hostAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, is := a.(*net.IPNet); is && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Skip("this machine has loopback addresses only")
	return ""
}

// allAddresses are where ports are published, of custom networks too.
func allAddresses() atStart {
	return atStart{
		says: "ports are published on all addresses",
		keys: []string{"publish-address"},
		set:  func(t *testing.T) { output(t, cove("config", "set", "publish-address", "all")) },
		seen: publishedOnAll,
	}
}

func publishedOnAll(t *testing.T) {
	outside := hostAddress(t)
	output(t, docker("network", "create", "all-net"))
	t.Cleanup(func() { docker("network", "rm", "all-net").Run() })
	for _, network := range []string{"bridge", "all-net"} {
		id := published(t, "echo", "--network", network, "-p", "7")
		at := hostPort(t, id, "tcp")
		contains(t, "docker port in "+network, at, "0.0.0.0:", "[::]:")
		_, port, _ := strings.Cut(strings.Fields(at)[0], ":")
		for _, host := range []string{outside, "127.0.0.1", "::1"} {
			answers(t, "tcp", net.JoinHostPort(host, port))
		}
	}
}
