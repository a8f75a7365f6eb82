// Package registry finds out whether a registry can be used, step by step and from both sides, this machine's
// and the engine's, and keeps the credentials for it where docker looks for them. No credential goes over
// plain http, but to this machine itself or to a registry that the user called insecure, and none follows a
// redirect to another host.
package registry

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/covedesk/cove/app/internal/hostproxy"
	"github.com/distribution/reference"
)

// Name is a registry, by its several names.
type Name struct {
	Host   string // as in the names of images, such as docker.io or registry.example:5000
	API    string // host:port or host that serves it
	Server string // by which docker keeps its credential
}

var domain = regexp.MustCompile(`^` + reference.DomainRegexp.String() + `$`)

// hub are the names of Docker Hub.
var hub = []string{"docker.io", "index.docker.io", "registry-1.docker.io", "index.docker.io/v1"}

// Parse reads what people call a registry: host or host:port, also with https:// before it.
func Parse(s string) (Name, error) {
	host := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://"), "/")
	if slices.Contains(hub, strings.ToLower(host)) {
		return Name{Host: "docker.io", API: "registry-1.docker.io", Server: "https://index.docker.io/v1/"}, nil
	}
	if !domain.MatchString(host) {
		return Name{}, fmt.Errorf("%q is not a registry: give its host or host:port, such as registry.example.com:5000, or docker.io", s)
	}
	return Name{host, host, host}, nil
}

// OfServer is the registry of a key under which docker keeps a credential. Old ones are URLs with a path.
func OfServer(server string) string {
	host, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://"), "/")
	if n, err := Parse(host); err == nil {
		return n.Host
	}
	return server
}

// here says whether a host is this machine itself: what goes there meets no network. The engine's name for it
// counts.
func here(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	if strings.EqualFold(name, "localhost") || strings.EqualFold(name, hostproxy.HostName) {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// reach is where this machine finds a host: the engine's name for it is known in the VM alone.
func reach(address string) string {
	if name, port, err := net.SplitHostPort(address); err == nil && strings.EqualFold(name, hostproxy.HostName) {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}
