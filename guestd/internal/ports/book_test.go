//go:build linux

package ports

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"golang.org/x/sys/unix"
)

// host writes down what it is asked, and refuses what it is told to.
type host struct {
	mu     sync.Mutex
	asked  []string
	refuse error
	away   bool // answers nobody
}

func (h *host) Ask(ctx context.Context, a protocol.Ask) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case a.Bind != nil:
		h.asked = append(h.asked, fmt.Sprintf("bind %s to %q", a.Bind.Key, a.Bind.Target))
	case a.Release != nil:
		h.asked = append(h.asked, "release "+a.Release.Key)
	}
	if h.away && a.Bind != nil {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return h.refuse
}

func (h *host) said(t *testing.T, want ...string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Equal(h.asked, want) {
		t.Errorf("the host was asked %q; want %q", h.asked, want)
	}
}

var web = protocol.Bind{Protocol: "tcp", Address: "127.0.0.1:80"}

func bind(t *testing.T, b *Book, to string) *Lease {
	t.Helper()
	at := web
	at.Target = to
	l, err := b.Bind(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestALeaseIsHeldUntilItIsReleased(t *testing.T) {
	h := new(host)
	b := NewBook(h)
	l := bind(t, b, "")
	if held := b.Held(); len(held) != 1 || held[0].Address != web.Address {
		t.Errorf("held are %+v", held)
	}
	l.Release()
	l.Release()
	if held := b.Held(); len(held) != 0 {
		t.Errorf("after Release held are %+v", held)
	}
	h.said(t, `bind tcp 127.0.0.1:80 to ""`, "release tcp 127.0.0.1:80")
}

func TestAnOlderLeaseTakesNothingFromANewer(t *testing.T) {
	h := new(host)
	b := NewBook(h)
	older := bind(t, b, "")
	newer := bind(t, b, "172.17.0.2:80")
	if older.Current() || !newer.Current() {
		t.Error("the newer lease is not the one that holds")
	}
	older.Release()
	if held := b.Held(); len(held) != 1 || held[0].Target != "172.17.0.2:80" {
		t.Errorf("after the older's end held are %+v; want the newer's", held)
	}
	h.said(t, `bind tcp 127.0.0.1:80 to ""`, `bind tcp 127.0.0.1:80 to "172.17.0.2:80"`)
}

func TestWhatTheHostRefusesIsNotHeld(t *testing.T) {
	b := NewBook(&host{refuse: &protocol.AskError{Kind: protocol.AskInUse, Text: "taken"}})
	_, err := b.Bind(t.Context(), web)
	if got := errnoOf(err); got != unix.EADDRINUSE || len(b.Held()) != 0 {
		t.Errorf("a taken port gives %v, and held are %+v; want EADDRINUSE and nothing", got, b.Held())
	}
}

func TestAnAskThatIsGivenUpIsTakenBack(t *testing.T) {
	h := &host{away: true}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := NewBook(h).Bind(ctx, web)
	if got := errnoOf(err); got != unix.ETIMEDOUT {
		t.Errorf("a host that is away gives %v (%v); want ETIMEDOUT", got, err)
	}
	h.said(t, `bind tcp 127.0.0.1:80 to ""`, "release tcp 127.0.0.1:80")
}

func TestErrnos(t *testing.T) {
	for kind, want := range map[string]unix.Errno{
		protocol.AskInUse: unix.EADDRINUSE, protocol.AskNoAddress: unix.EADDRNOTAVAIL, protocol.AskDenied: unix.EACCES,
		protocol.AskNotOffered: unix.EOPNOTSUPP, protocol.AskFailed: unix.EIO, "a later one": unix.EIO,
	} {
		if got := errnoOf(fmt.Errorf("ask: %w", &protocol.AskError{Kind: kind})); got != want {
			t.Errorf("errnoOf(%s) = %v; want %v", kind, got, want)
		}
	}
	if got := errnoOf(errors.New("x")); got != unix.ETIMEDOUT {
		t.Errorf("errnoOf(no answer) = %v; want ETIMEDOUT", got)
	}
}

func TestThePortAllocatorsSocketsAreKnown(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if publishes(fd) {
		t.Error("a socket without a filter is taken for a published port")
	}
	for _, row := range []struct {
		what   string
		filter []unix.SockFilter
		want   bool
	}{
		{"one that lets all through is no published port", []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff}}, false},
		{"a longer one is none", []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_IMM}, {Code: unix.BPF_RET | unix.BPF_K}}, false},
		{"one that drops all is one", []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}, true},
	} {
		prog := unix.SockFprog{Len: uint16(len(row.filter)), Filter: &row.filter[0]}
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
			t.Fatal(err)
		}
		if got := publishes(fd); got != row.want {
			t.Errorf("%s: publishes = %t", row.what, got)
		}
	}
}

func TestTheProxysArguments(t *testing.T) {
	u, err := newUserland([]string{"-proto", "tcp", "-host-ip", "::1", "-host-port", "8080", "-container-ip", "172.17.0.2", "-container-port", "80", "-use-listen-fd"})
	if err != nil || u.bind != (protocol.Bind{Protocol: "tcp", Address: "[::1]:8080", Target: "172.17.0.2:80"}) {
		t.Errorf("newUserland = %+v, %v", u, err)
	}
	for what, args := range map[string][]string{
		"sctp is refused by name":       {"-proto", "sctp", "-use-listen-fd"},
		"an engine without a socket":    {"-proto", "tcp", "-host-ip", "127.0.0.1"},
		"an argument that is not known": {"-what"},
	} {
		if _, err := newUserland(args); err == nil {
			t.Errorf("%s: newUserland(%q) worked", what, args)
		}
	}
}
