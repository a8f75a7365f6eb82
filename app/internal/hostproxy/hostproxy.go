// Package hostproxy finds the HTTP proxies by which the host reaches the network, and says how the guest
// does by the same ones. No URL of it is ever part of an error or of what it prints: they hold passwords.
package hostproxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// HostName is the host's loopback, by the guest's name for it.
const HostName = "host.docker.internal"

// direct is what the guest always reaches without a proxy: itself, and the host by Cove's own names.
var direct = []string{"localhost", "127.0.0.0/8", "::1", "docker.internal"}

// schemes are those that the engine speaks to a proxy (net/http.Transport).
var schemes = []string{"http", "https", "socks5", "socks5h"}

// URL is a proxy's. It prints without its password.
type URL struct{ u *url.URL }

// ErrNotAProxy says that a text is no proxy's URL.
var ErrNotAProxy = errors.New("it is not the URL of a proxy, such as http://proxy.example.com:3128")

// Parse reads a URL as curl and Go's programs do: without a scheme it is http. An empty text is no proxy
// and the zero URL.
func Parse(s string) (URL, error) {
	if s = strings.TrimSpace(s); s == "" {
		return URL{}, nil
	}
	u, err := url.Parse(s)
	if err != nil || !slices.Contains(schemes, u.Scheme) || u.Host == "" {
		if strings.Contains(s, "://") {
			return URL{}, ErrNotAProxy
		}
		if u, err = url.Parse("http://" + s); err != nil {
			return URL{}, ErrNotAProxy // its own error has the text in it
		}
	}
	if u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return URL{}, ErrNotAProxy
	}
	u.Path = ""
	return URL{u}, nil
}

// String is the URL with xxxxx for its password.
func (u URL) String() string {
	if u.u == nil {
		return ""
	}
	return u.u.Redacted()
}

// GoString and Format keep the fields from being printed.
func (u URL) GoString() string           { return u.String() }
func (u URL) Format(f fmt.State, _ rune) { fmt.Fprint(f, u.String()) }

// IsZero says whether there is no proxy.
func (u URL) IsZero() bool { return u.u == nil }

// RevealURL is the URL with its password.
func (u URL) RevealURL() string {
	if u.u == nil {
		return ""
	}
	return u.u.String()
}

// Password is what it logs in with.
func (u URL) Password() string {
	if u.u == nil {
		return ""
	}
	p, _ := u.u.User.Password()
	return p
}

// ForGuest is the proxy as the guest reaches it: one on the host's loopback has another name there.
func (u URL) ForGuest() URL {
	if u.u == nil || !loopback(u.u.Hostname()) {
		return u
	}
	v := *u.u
	v.Host = HostName
	if port := u.u.Port(); port != "" {
		v.Host = net.JoinHostPort(HostName, port)
	}
	return URL{&v}
}

// loopback says whether a host's name or address is the host itself.
func loopback(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && (ip.Unmap().IsLoopback() || ip.Unmap().IsUnspecified())
}

// Proxies are how the host, or the guest, reaches the network.
type Proxies struct {
	HTTP, HTTPS URL
	No          string // what is reached directly, as in NO_PROXY
	From        string // where they are from, for people
}

// IsZero says whether there is no proxy.
func (p Proxies) IsZero() bool { return p.HTTP.IsZero() && p.HTTPS.IsZero() }

// ForGuest is how the guest reaches the network by them.
func (p Proxies) ForGuest() Proxies {
	if p.IsZero() {
		return Proxies{}
	}
	p.HTTP, p.HTTPS = p.HTTP.ForGuest(), p.HTTPS.ForGuest()
	var no []string
	for _, n := range append(strings.Split(p.No, ","), direct...) {
		if n = strings.TrimSpace(n); n != "" && !slices.Contains(no, n) {
			no = append(no, n)
		}
	}
	p.No = strings.Join(no, ",")
	return p
}

// Environment is the proxies that variables name, in either case as curl and Go have it. With an error for
// one that cannot be used come the others.
func Environment(env func(string) string) (Proxies, error) {
	p := Proxies{From: "environment", No: either(env, "no_proxy", "NO_PROXY")}
	var errs [2]error
	p.HTTP, errs[0] = named(env, "http_proxy", "HTTP_PROXY")
	p.HTTPS, errs[1] = named(env, "https_proxy", "HTTPS_PROXY")
	return p, errors.Join(errs[:]...)
}

func named(env func(string) string, small, large string) (URL, error) {
	u, err := Parse(either(env, small, large))
	if err != nil {
		return u, fmt.Errorf("the variable %s cannot be used: %w", small, err)
	}
	return u, nil
}

func either(env func(string) string, small, large string) string {
	if v := env(small); v != "" {
		return v
	}
	return env(large)
}

// Host finds the host's proxies: the environment's, and where that names none the system's.
func Host(env func(string) string) (Proxies, error) {
	p, err := Environment(env)
	if !p.IsZero() || err != nil {
		return p, err
	}
	system, err := system()
	if err != nil {
		return Proxies{}, fmt.Errorf("the system's proxy settings: %w", err)
	}
	if system.No == "" {
		system.No = p.No
	}
	return system, nil
}
