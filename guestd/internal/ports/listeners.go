//go:build linux

package ports

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
)

const (
	// lookEvery is how often the guest's listening sockets are looked at: what a program that starts to
	// listen takes to be reached from the host, and a cost of two messages of the kernel's.
	lookEvery = time.Second
	// retryEvery is how long a port that the host refused is left alone.
	retryEvery = 30 * time.Second
	// maxListeners bounds the ports that are led to containers on the host network: a program listens on
	// a few, and a hostile one gets no more.
	maxListeners = 256
	// listenerPatience bounds one question to the host.
	listenerPatience = 5 * time.Second
)

// socket is one that a container on the host network listens on, or receives datagrams by.
type socket struct {
	network   string // "tcp" or "udp"
	at        netip.AddrPort
	only6     bool   // of an IPv6 socket: it takes no IPv4
	cgroup    uint64 // whose it is
	container string // the container's id
}

// Followed are the listeners of containers on the host network. The engine publishes nothing for those,
// so they are found among the guest's sockets, by the control group that a socket belongs to.
type Followed struct {
	book    *Book
	address string // where the host listens for a program that listens everywhere; empty: everywhere
	list    func() ([]socket, error)

	leases  map[string]*Lease    // by the binding's name
	targets map[string]string    // what they lead to
	refused map[string]time.Time // when the host said no
}

// Follow leads the host's ports to listeners of containers on the host network until the context ends. A
// program that listens on all addresses is reached where published ports are: on the address, or where
// that is empty on all.
func Follow(ctx context.Context, book *Book, address string) error {
	s, err := openSockets()
	if err != nil {
		return err
	}
	defer s.close()
	f := newFollowed(book, address, s.containers)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := f.look(time.Now()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func newFollowed(book *Book, address string, list func() ([]socket, error)) *Followed {
	return &Followed{book: book, address: address, list: list, leases: map[string]*Lease{}, targets: map[string]string{}, refused: map[string]time.Time{}}
}

// look makes what the host listens on what the containers listen on.
func (f *Followed) look(now time.Time) error {
	sockets, err := f.list()
	if err != nil {
		return err
	}
	wanted := f.wanted(sockets)
	for key, lease := range f.leases {
		b, is := wanted[key]
		if is && b.Target == f.targets[key] && lease.Current() {
			continue
		}
		lease.Release()
		delete(f.leases, key)
		delete(f.targets, key)
	}
	for key := range f.refused {
		if _, is := wanted[key]; !is {
			delete(f.refused, key)
		}
	}
	for key, b := range wanted {
		if f.leases[key] == nil && len(f.leases) < maxListeners && now.Sub(f.refused[key]) > retryEvery {
			f.bind(key, b, now)
		}
	}
	return nil
}

func (f *Followed) bind(key string, b protocol.Bind, now time.Time) {
	if f.book.taken(key) {
		return // the engine publishes it
	}
	ctx, cancel := context.WithTimeout(context.Background(), listenerPatience)
	defer cancel()
	lease, err := f.book.Bind(ctx, b)
	if err != nil {
		var refused *protocol.AskError
		if _, again := f.refused[key]; !again || !errors.As(err, &refused) {
			slog.Info("a listener on the host network is not reached from the host", "address", b.Address, "container", b.Container, "err", err)
		}
		f.refused[key] = now
		return
	}
	delete(f.refused, key)
	f.leases[key], f.targets[key] = lease, b.Target
}

// wanted are the host's listeners for these sockets, by name. A socket on an address that only the guest
// has, such as a bridge's, is for those within.
func (f *Followed) wanted(sockets []socket) map[string]protocol.Bind {
	out := map[string]protocol.Bind{}
	want := func(s socket, host, target string) {
		port := s.at.Port()
		b := protocol.Bind{Protocol: s.network, Container: s.container, HostNetwork: true,
			Address: netip.AddrPortFrom(netip.MustParseAddr(host), port).String(),
			Target:  netip.AddrPortFrom(netip.MustParseAddr(target), port).String()}
		key := bindKey(b)
		// Two sockets may want one address: the lesser target, so that the choice is no matter of order.
		if old, is := out[key]; !is || b.Target < old.Target {
			out[key] = b
		}
	}
	all := f.address == ""
	for _, s := range sockets {
		switch ip := s.at.Addr(); {
		case ip == netip.IPv4Unspecified() && all:
			want(s, "0.0.0.0", "127.0.0.1")
		case ip == netip.IPv4Unspecified():
			want(s, f.address, "127.0.0.1")
		case ip == netip.IPv6Unspecified():
			if !s.only6 && all {
				want(s, "0.0.0.0", "::1")
			}
			if all {
				want(s, "::", "::1")
			} else if s.only6 {
				want(s, "::1", "::1")
			} else {
				want(s, f.address, "::1") // the host adds ::1 itself
			}
		case ip == netip.AddrFrom4([4]byte{127, 0, 0, 1}), ip == netip.IPv6Loopback():
			want(s, ip.String(), ip.String())
		}
	}
	return out
}
