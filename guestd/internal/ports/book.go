//go:build linux

// Package ports is the guest's side of published ports. The engine binds a published port in the guest
// first; that bind(2) is held by seccomp until the host has bound too, so that a port taken on the host
// looks to the engine like one taken here, with its error and its tries ([Watch]). The engine then starts
// a userland proxy for the port, which is this program by another name ([Userland]): it tells the host
// where the port leads, serves those who come from within the guest, and has let go of the host's port
// before it ends. What dockerd does and when: moby, daemon/libnetwork/portallocator/osallocator_linux.go
// and daemon/libnetwork/drivers/bridge/port_mapping_linux.go.
package ports

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/covedesk/cove/guestd/protocol"
)

// asker asks the host.
type asker interface {
	Ask(context.Context, protocol.Ask) error
}

// Book is what the host listens on for this guest.
type Book struct {
	host asker

	mu   sync.Mutex
	held map[string]protocol.Bind
}

// NewBook returns an empty Book.
func NewBook(host asker) *Book {
	return &Book{host: host, held: map[string]protocol.Bind{}}
}

// Key names a binding: an address is bound once.
func Key(network, address string) string { return network + " " + address }

// Held is every binding that the host is to have.
func (b *Book) Held() []protocol.Bind {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.held))
}

// Bind asks the host to listen, or to change where a binding leads that it holds. A refusal is a
// *protocol.AskError. An ask that was given up in between is taken back.
func (b *Book) Bind(ctx context.Context, bind protocol.Bind) error {
	err := b.host.Ask(ctx, protocol.Ask{Bind: &bind})
	if err == nil {
		b.mu.Lock()
		b.held[bind.Key] = bind
		b.mu.Unlock()
		return nil
	}
	if ctx.Err() != nil && !b.holds(bind.Key) {
		go b.Release(context.WithoutCancel(ctx), bind.Key)
	}
	return err
}

func (b *Book) holds(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, is := b.held[key]
	return is
}

// Release asks the host to let go. When the host is away it lets go as soon as it is back, since the
// binding is no longer in the book.
func (b *Book) Release(ctx context.Context, key string) error {
	b.mu.Lock()
	delete(b.held, key)
	b.mu.Unlock()
	return b.host.Ask(ctx, protocol.Ask{Release: &protocol.Release{Key: key}})
}
