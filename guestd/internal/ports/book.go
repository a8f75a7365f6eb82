//go:build linux

// Package ports is the guest's side of published ports. The engine binds a published port in the guest
// first; that bind(2) is held by seccomp until the host has bound too, so that a port taken on the host
// looks to the engine like one taken here, with its error and its tries (see [Launch]). The engine then
// starts a userland proxy for the port, which is this program by another name ([Userland]): it tells the
// host where the port leads, serves those who come from within the guest, and has let go of the host's
// port before it ends. What dockerd does and when: moby, daemon/libnetwork/portallocator/osallocator_linux.go
// and daemon/libnetwork/drivers/bridge/port_mapping_linux.go.
package ports

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
)

// asker asks the host.
type asker interface {
	Ask(context.Context, protocol.Ask) error
}

// Book is what the host listens on for this guest. An address has one lease at a time; who gets it last
// has it, and an older lease's end changes nothing.
type Book struct {
	host asker

	mu      sync.Mutex
	held    map[string]protocol.Bind
	entries map[string]*entry
}

// entry is one address. Its lock is held while the host is asked, so that asks about it have an order.
type entry struct {
	mu    sync.Mutex
	lease *Lease // nil: nobody has it
}

// Lease is the right to one address.
type Lease struct {
	book  *Book
	key   string
	entry *entry
}

// NewBook returns an empty Book.
func NewBook(host asker) *Book {
	return &Book{host: host, held: map[string]protocol.Bind{}, entries: map[string]*entry{}}
}

// Held is every binding that the host is to have. It never waits for the host.
func (b *Book) Held() []protocol.Bind {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.held))
}

func (b *Book) entry(key string) *entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[key]
	if e == nil {
		e = new(entry)
		b.entries[key] = e
	}
	return e
}

func (b *Book) set(key string, bind *protocol.Bind) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bind == nil {
		delete(b.held, key)
		return
	}
	b.held[key] = *bind
}

// bindKey names a binding by its address.
func bindKey(b protocol.Bind) string { return b.Protocol + " " + b.Address }

// taken says whether the host listens under this name already.
func (b *Book) taken(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, is := b.held[key]
	return is
}

// Bind asks the host to listen; where it does already, to lead there from now on. The Bind's Key is set
// here. A refusal is a *protocol.AskError.
func (b *Book) Bind(ctx context.Context, bind protocol.Bind) (*Lease, error) {
	bind.Key = bindKey(bind)
	e := b.entry(bind.Key)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := b.host.Ask(ctx, protocol.Ask{Bind: &bind}); err != nil {
		if ctx.Err() != nil && e.lease == nil {
			b.forget(bind.Key) // it may have been done after all
		}
		return nil, err
	}
	e.lease = &Lease{book: b, key: bind.Key, entry: e}
	b.set(bind.Key, &bind)
	return e.lease, nil
}

// releasePatience bounds the wait for the host's word that it let go. A host that is away lets go when it
// is back, because the next session begins with the list of what is held.
const releasePatience = 5 * time.Second

// Release lets go of the address, unless somebody has it by now. When it returns the host has let go, or
// did not answer in time.
func (l *Lease) Release() {
	l.entry.mu.Lock()
	defer l.entry.mu.Unlock()
	if l.entry.lease != l {
		return
	}
	l.entry.lease = nil
	l.book.set(l.key, nil)
	l.book.forget(l.key)
}

func (b *Book) forget(key string) {
	ctx, cancel := context.WithTimeout(context.Background(), releasePatience)
	defer cancel()
	b.host.Ask(ctx, protocol.Ask{Release: &protocol.Release{Key: key}})
}

// Current says whether the lease still has its address.
func (l *Lease) Current() bool {
	l.entry.mu.Lock()
	defer l.entry.mu.Unlock()
	return l.entry.lease == l
}
