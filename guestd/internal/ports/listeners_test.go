//go:build linux

package ports

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
)

// played is a host that says what it is asked and refuses some.
type played struct {
	refuse map[string]bool
	log    []string
}

func (p *played) Ask(_ context.Context, a protocol.Ask) error {
	switch {
	case a.Bind != nil && p.refuse[a.Bind.Key]:
		p.log = append(p.log, "refuse "+a.Bind.Key)
		return &protocol.AskError{Kind: protocol.AskInUse, Text: "in use"}
	case a.Bind != nil:
		p.log = append(p.log, "bind "+a.Bind.Key+" to "+a.Bind.Target)
	case a.Release != nil:
		p.log = append(p.log, "release "+a.Release.Key)
	}
	return nil
}

func (p *played) said() string {
	slices.Sort(p.log)
	text := strings.Join(p.log, "; ")
	p.log = nil
	return text
}

func on(network, at string) socket {
	return socket{network: network, at: netip.MustParseAddrPort(at), container: "c"}
}

func only6(s socket) socket { s.only6 = true; return s }

func TestWhereAListenerIsReached(t *testing.T) {
	for _, c := range []struct {
		is      string
		sockets []socket
		address string
		want    string // the binding and its target
	}{
		{"everywhere in IPv4 is the host's loopback", []socket{on("tcp", "0.0.0.0:80")}, "127.0.0.1", "tcp 127.0.0.1:80 to 127.0.0.1:80"},
		{"or all of the host's addresses, where ports are published there", []socket{on("tcp", "0.0.0.0:80")}, "", "tcp 0.0.0.0:80 to 127.0.0.1:80"},
		{"everywhere in both", []socket{on("tcp", "[::]:80")}, "127.0.0.1", "tcp 127.0.0.1:80 to [::1]:80"},
		{"and on all addresses of both", []socket{on("tcp", "[::]:80")}, "", "tcp 0.0.0.0:80 to [::1]:80; tcp [::]:80 to [::1]:80"},
		{"IPv6 alone stays that", []socket{only6(on("tcp", "[::]:80"))}, "127.0.0.1", "tcp [::1]:80 to [::1]:80"},
		{"on all addresses too", []socket{only6(on("tcp", "[::]:80"))}, "", "tcp [::]:80 to [::1]:80"},
		{"loopback is loopback, whatever is published where", []socket{on("tcp", "127.0.0.1:80"), on("tcp", "[::1]:81")}, "", "tcp 127.0.0.1:80 to 127.0.0.1:80; tcp [::1]:81 to [::1]:81"},
		{"two sockets for one address are one binding", []socket{on("tcp", "[::]:80"), on("tcp", "0.0.0.0:80")}, "127.0.0.1", "tcp 127.0.0.1:80 to 127.0.0.1:80"},
		{"datagrams", []socket{on("udp", "0.0.0.0:53")}, "127.0.0.1", "udp 127.0.0.1:53 to 127.0.0.1:53"},
		{"an address of a bridge is the guest's own", []socket{on("tcp", "172.17.0.1:80"), on("tcp", "127.0.0.53:53")}, "127.0.0.1", ""},
	} {
		f := newFollowed(NewBook(&played{}), c.address, nil)
		var got []string
		for key, b := range f.wanted(c.sockets) {
			got = append(got, key+" to "+b.Target)
			if b.Container != "c" || !b.HostNetwork {
				t.Errorf("%s: %+v does not say whose it is", c.is, b)
			}
		}
		slices.Sort(got)
		if text := strings.Join(got, "; "); text != c.want {
			t.Errorf("%s: wanted(%v) = %q; want %q", c.is, c.sockets, text, c.want)
		}
	}
}

func TestTheHostListensAsLongAsTheContainerDoes(t *testing.T) {
	host := &played{refuse: map[string]bool{"tcp 127.0.0.1:81": true}}
	var now []socket
	book := NewBook(host)
	f := newFollowed(book, "127.0.0.1", func() ([]socket, error) { return now, nil })
	clock := time.Unix(1000, 0)
	look := func(what string, want string, sockets ...socket) {
		t.Helper()
		now = sockets
		if err := f.look(clock); err != nil {
			t.Fatal(err)
		}
		if got := host.said(); got != want {
			t.Errorf("%s: the host hears %q; want %q", what, got, want)
		}
	}
	look("at first", "")
	look("a listener comes", "bind tcp 127.0.0.1:80 to 127.0.0.1:80", on("tcp", "0.0.0.0:80"))
	look("it stays", "", on("tcp", "0.0.0.0:80"))
	look("it moves to IPv6", "bind tcp 127.0.0.1:80 to [::1]:80; release tcp 127.0.0.1:80", on("tcp", "[::]:80"))
	look("it goes", "release tcp 127.0.0.1:80")
	look("one that the host has not", "refuse tcp 127.0.0.1:81", on("tcp", "0.0.0.0:81"))
	clock = clock.Add(retryEvery)
	look("is left alone for a while", "", on("tcp", "0.0.0.0:81"))
	clock = clock.Add(time.Second)
	host.refuse = nil
	look("and asked for again", "bind tcp 127.0.0.1:81 to 127.0.0.1:81", on("tcp", "0.0.0.0:81"))
	look("gone", "release tcp 127.0.0.1:81")

	lease, err := book.Bind(context.Background(), protocol.Bind{Protocol: "tcp", Address: "127.0.0.1:82", Target: "172.17.0.2:82"})
	if err != nil {
		t.Fatal(err)
	}
	host.said()
	look("a published port is not taken over", "", on("tcp", "[::]:82"))
	look("nor let go of", "")
	if !lease.Current() {
		t.Error("the published port lost its address")
	}
	many := []socket{}
	for port := range uint16(2 * maxListeners) {
		many = append(many, socket{network: "tcp", at: netip.AddrPortFrom(netip.IPv4Unspecified(), 1000+port), container: "c"})
	}
	now = many
	f.look(clock)
	if len(f.leases) != maxListeners {
		t.Errorf("%d listeners are led to the host; want the bound of %d", len(f.leases), maxListeners)
	}
}

func TestContainerOf(t *testing.T) {
	id := strings.Repeat("0a", 32)
	for cgroup, want := range map[string]string{
		"docker/" + id:                             id,
		"docker/" + id + "/init":                   id,
		"custom/parent/" + id:                      id,
		"docker/" + id + "/docker/" + id[1:] + "b": id,
		"cove/dockerd":                             "",
		"cove/shell/" + id:                         "",
		"init.scope":                               "",
		"docker/buildkit/abc":                      "",
		"":                                         "",
	} {
		if got := containerOf(cgroup); got != want {
			t.Errorf("containerOf(%q) = %q; want %q", cgroup, got, want)
		}
	}
}

// The kernel's own list has what this test listens on, whose it is and how.
func TestTheKernelListsSockets(t *testing.T) {
	l4, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l4.Close()
	u4, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u4.Close()
	for _, c := range []struct {
		protocol uint8
		network  string
		at       string
	}{{6, "tcp", l4.Addr().String()}, {17, "udp", u4.LocalAddr().String()}} {
		all, err := dump(2, c.protocol)
		if errors.Is(err, os.ErrPermission) {
			t.Skip("this machine does not list sockets")
		}
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(all, func(s socket) bool { return s.at.String() == c.at })
		if i < 0 || all[i].network != c.network || all[i].cgroup == 0 {
			t.Errorf("the kernel's list %v has not %s %s with a control group", all, c.network, c.at)
		}
	}
	if l6, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		defer l6.Close()
		all, err := dump(10, 6)
		if i := slices.IndexFunc(all, func(s socket) bool { return s.at.String() == l6.Addr().String() }); err != nil || i < 0 || !all[i].only6 {
			t.Errorf("the kernel's list %v, %v has not %s, IPv6 alone", all, err, l6.Addr())
		}
	}
}

func TestAMessageThatIsCutOffIsRefused(t *testing.T) {
	for n := range sizeofMessage {
		if _, err := parseSocket(make([]byte, n)); err == nil {
			t.Errorf("a message of %d bytes is taken", n)
		}
	}
}
