package share

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What a guest's kernel relies on outlives this process: the kernel sleeps in a file with its ids of files
// and of open files, and goes on with them when it wakes. A saved state is those ids with names and keys.
//
// Files are found again by their names, from the share down, one name at a time as ever. What is there now
// and is another file is not it: its id gives ESTALE, as on a network file system, and a lookup of the name
// gives the new one. A file that only has new content gives that.

const (
	savedMagic = "cove shares 1\n" // with the version of all that follows
	maxSaved   = 1 << 30           // bytes; 2 million files with names of middling length are a sixth

	// savePatience is how long Save waits for requests that still run, on a disk that hangs.
	savePatience = 5 * time.Second
)

// Save writes the state that Load takes. The guest must not run: what it asks meanwhile waits, and what it
// asked before is waited for, some seconds at the most. Nothing is changed, so that a guest whose save
// failed can go on.
func (f *FS) Save(w io.Writer) error {
	if err := f.stand(); err != nil {
		return err
	}
	defer f.running.Unlock()
	s := f.state()
	b := s.encode([]byte(savedMagic))
	if len(b) > maxSaved {
		return fmt.Errorf("save the shares: %d files known are too many", len(s.Nodes))
	}
	sum := sha256.Sum256(b)
	if _, err := w.Write(append(b, sum[:]...)); err != nil {
		return fmt.Errorf("save the shares: %w", err)
	}
	return nil
}

// stand waits for the requests that run and keeps others out.
func (f *FS) stand() error {
	// Not Lock, which would have others wait behind one that hangs.
	for end := time.Now().Add(savePatience); !f.running.TryLock(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("save the shares: a request of the guest's does not end, because a disk or network drive of the host does not answer")
		}
	}
	if f.closed {
		f.running.Unlock()
		return unix.ENODEV
	}
	return nil
}

// state is what there is to save. The caller keeps requests out.
func (f *FS) state() *saved {
	s := &saved{Boot: bootID(), Replayer: f.replayer.Load()}
	if a := f.agreed.Load(); a != nil {
		s.Agreed = *a
	}
	exports := map[*export]int{}
	for i, e := range f.exports {
		exports[e] = i
		s.Exports = append(s.Exports, savedExport{Path: e.Path, ReadOnly: e.ReadOnly, Root: e.root.id})
	}
	t, h := &f.nodes, &f.handles
	h.mu.Lock()
	defer h.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Next, s.NextHandle = t.next, h.next
	s.Devices = make([]uint64, len(t.devs))
	for dev, i := range t.devs {
		s.Devices[i] = dev
	}
	for _, o := range h.byID {
		s.Handles = append(s.Handles, savedHandle{ID: o.id, Node: o.node.id, Flags: o.flags})
	}
	// In their order, a state is the same bytes each time.
	slices.SortFunc(s.Handles, func(a, b savedHandle) int { return cmp.Compare(a.ID, b.ID) })
	all := f.reachableLocked()
	s.Nodes = make([]savedNode, len(all))
	for i, n := range all {
		one := &s.Nodes[i]
		*one = savedNode{ID: n.id, Export: exports[n.export], Device: -1, Ino: n.key.ino, Born: n.key.born, Kind: n.kind, Shown: n.shown,
			Lookups: n.lookups, Owner: n.memory, Stamp: n.stamp, Seen: n.seen.Load(), Ghost: n.ghost, Local: n.local, Old: t.byKey[exportKey{n.export, n.key}] != n}
		if d, known := t.devs[n.key.dev]; known {
			one.Device = int(d)
		}
		for _, l := range n.links {
			if n.lookups == 0 || l.parent.children[l.name] == n {
				one.Links = append(one.Links, savedLink{l.parent.id, l.name})
			}
		}
		if n.kind == unix.S_IFDIR && len(one.Links) > 1 { // one that was forgotten and came back keeps an old one
			one.Links = one.Links[len(one.Links)-1:]
		}
	}
	return s
}

// reachableLocked are all nodes but the root above the shares, by their ids. A folder that the guest has
// forgotten may still be the way to a file in it.
func (f *FS) reachableLocked() []*node {
	all := make([]*node, 0, len(f.nodes.byID))
	known := make(map[*node]bool, len(f.nodes.byID))
	add := func(n *node) {
		if n.id != rootID && !known[n] {
			known[n] = true
			all = append(all, n)
		}
	}
	for _, n := range f.nodes.byID {
		add(n)
	}
	for _, h := range f.handles.byID {
		add(h.node)
	}
	for i := 0; i < len(all); i++ {
		for _, l := range all[i].links {
			add(l.parent)
		}
	}
	slices.SortFunc(all, func(a, b *node) int { return cmp.Compare(a.id, b.id) })
	return all
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
