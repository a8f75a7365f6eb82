//go:build e2e && linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Addresses of the network: docs/network.md.
const (
	gatewayAddress = "192.168.127.1"
	guestAddress   = "192.168.127.2"
	hostAlias      = "192.168.127.254"
)

// inContainer runs something in a container and gives what it printed.
func inContainer(t *testing.T, options string, words ...string) string {
	t.Helper()
	args := append([]string{"run", "--rm"}, strings.Fields(options)...)
	return output(t, docker(append(append(args, image), words...)...))
}

// customNetwork makes a network for the length of a test.
func customNetwork(t *testing.T) string {
	t.Helper()
	const name = "cove-net-test"
	output(t, docker("network", "create", name))
	t.Cleanup(func() { output(t, docker("network", "rm", name)) })
	return name
}

// echoTCP serves on the host's loopback for the length of a test, and gives its port.
func echoTCP(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func echoUDP(t *testing.T) int {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 65535)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(b[:n], from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).Port
}

func TestContainersReachTheHost(t *testing.T) {
	tcp, udp := echoTCP(t), echoUDP(t)
	custom := customNetwork(t)
	for _, row := range []struct{ says, options, name string }{
		{"from the default bridge", "", "host.docker.internal"},
		{"from a custom network", "--network " + custom, "host.docker.internal"},
		{"from the host network", "--network host", "host.docker.internal"},
		{"by host-gateway", "--add-host the-host:host-gateway", "the-host"},
	} {
		t.Run(row.says, func(t *testing.T) {
			script := fmt.Sprintf("probe ask %[1]s:%[2]d TCP; probe ask-udp %[1]s:%[3]d UDP", row.name, tcp, udp)
			if got := inContainer(t, row.options, "sh", "-c", script); got != "TCP\nUDP\n" {
				t.Errorf("the host said %q; want what was sent to it by TCP and by UDP", got)
			}
		})
	}
}

func TestNamesInContainers(t *testing.T) {
	rows := []struct{ name, kind, want string }{
		{"host.docker.internal", "A", "NOERROR A " + hostAlias},
		{"gateway.docker.internal", "A", "NOERROR A " + gatewayAddress},
		{"host.docker.internal", "AAAA", "NOERROR"},
		{"nobody.docker.internal", "A", "NXDOMAIN"},
		{"254.127.168.192.in-addr.arpa", "PTR", "NOERROR PTR host.docker.internal."},
	}
	// This host's own name, if its hosts file has it, as any distribution's does.
	if hostname, err := os.Hostname(); err == nil && inHostsFile(hostname) {
		addresses, err := net.DefaultResolver.LookupIP(t.Context(), "ip4", hostname)
		if err == nil && addresses[0].IsLoopback() {
			rows = append(rows, struct{ name, kind, want string }{hostname, "A", "NOERROR A " + hostAlias})
		} else if err == nil {
			rows = append(rows, struct{ name, kind, want string }{hostname, "A", "NOERROR A " + addresses[0].String()})
		}
	}
	words := []string{"probe", "resolve"}
	for _, row := range rows {
		words = append(words, row.name, row.kind)
	}
	for _, options := range []string{"", "--network " + customNetwork(t)} {
		got := strings.Split(strings.TrimSpace(inContainer(t, options, words...)), "\n")
		if len(got) != len(rows) {
			t.Fatalf("with %q the answers are %q; want %d", options, got, len(rows))
		}
		for i, row := range rows {
			if got[i] != row.want {
				t.Errorf("with %q, %s %s says %q; want %q", options, row.kind, row.name, got[i], row.want)
			}
		}
	}
}

func inHostsFile(name string) bool {
	b, _ := os.ReadFile("/etc/hosts")
	return slices.Contains(strings.Fields(string(b)), name)
}

func TestPacketsAreLarge(t *testing.T) {
	custom := customNetwork(t)
	for _, options := range []string{"", "--network " + custom} {
		if got := inContainer(t, options, "cat", "/sys/class/net/eth0/mtu"); got != "65520\n" {
			t.Errorf("with %q the packets are of %q bytes; want 65520", options, got)
		}
	}
}

func TestPing(t *testing.T) {
	// Nobody has the last address: no answer is made up.
	got := inContainer(t, "", "sh", "-c", "busybox ping -c 1 -W 60 "+gatewayAddress+"; busybox ping -c 1 -W 2 192.168.127.99 || echo nobody")
	contains(t, "pings of the gateway and of nobody", got, "1 packets received", "0 packets received", "nobody")
}

// A container scans all that it can reach, hoping for an engine API, a control port, a file server. It
// finds DNS. The golden list is below. The host's loopback is everybody's on this host: there it must find
// what this test listens on, and nothing that is coved's or its VM's. Which network a container is in makes
// no difference to that, so one looks at it.
func TestScanFromContainers(t *testing.T) {
	tcp := echoTCP(t)
	custom := customNetwork(t)
	dns := []string{"tcp " + gatewayAddress + " 53", "udp " + gatewayAddress + " 53"}
	alias := fmt.Sprintf("tcp %s %d", hostAlias, tcp)
	// All ports are tried once on each way there is: from a bridge to the gateway, to the guest and to the host, and
	// from within the guest, by who may do most. Elsewhere it is those where services are.
	const some = "/10000"
	gateway, guest := gatewayAddress+some, guestAddress+some
	for _, row := range []struct {
		options   string
		addresses []string
		want      []string
	}{
		{"", []string{gatewayAddress, guestAddress, hostAlias}, append([]string{alias}, dns...)},
		{"--network " + custom, []string{gateway, guest}, dns},
		{"--network host", []string{gateway, guest}, dns},
		{"--network none", []string{gateway, guest, hostAlias + some}, nil},
		{"--privileged --network host", []string{gateway, guestAddress}, dns},
	} {
		ours := portsOfCoved(t)
		found := strings.Split(strings.TrimSpace(inContainer(t, row.options, append([]string{"probe", "scan"}, row.addresses...)...)), "\n")
		for port := range portsOfCoved(t) {
			ours[port] = true
		}
		last := len(found) - 1
		if found[last] != "scanned" {
			t.Fatalf("with %q the scan broke off: %q", row.options, found)
		}
		var got []string
		for _, line := range found[:last] {
			words := strings.Fields(line)
			port, _ := strconv.Atoi(words[len(words)-1])
			if words[1] != hostAlias || ours[port] || port == tcp {
				got = append(got, line)
			}
		}
		slices.Sort(got)
		slices.Sort(row.want)
		if !slices.Equal(got, row.want) {
			t.Errorf("a container with %q finds %q; want %q", row.options, got, row.want)
		}
	}
}

// portsOfCoved are the TCP and UDP ports that coved has, by its open files.
func portsOfCoved(t *testing.T) map[int]bool {
	t.Helper()
	pid, err := os.ReadFile(filepath.Join(world.home, "run", "coved.lock"))
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join("/proc", strings.TrimSpace(string(pid)))
	files, err := os.ReadDir(filepath.Join(folder, "fd"))
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]bool{} // socket numbers
	for _, f := range files {
		to, _ := os.Readlink(filepath.Join(folder, "fd", f.Name()))
		if number, is := strings.CutPrefix(to, "socket:["); is {
			own[strings.TrimSuffix(number, "]")] = true
		}
	}
	ports := map[int]bool{}
	for _, name := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, err := os.ReadFile(filepath.Join(folder, "net", name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			w := strings.Fields(line)
			if len(w) < 10 || !own[w[9]] || strings.HasPrefix(name, "tcp") && w[3] != "0A" { // TCP_LISTEN
				continue
			}
			_, hex, _ := strings.Cut(w[1], ":")
			if port, err := strconv.ParseUint(hex, 16, 16); err == nil {
				ports[int(port)] = true
			}
		}
	}
	return ports
}
