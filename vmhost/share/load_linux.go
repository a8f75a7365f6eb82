package share

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sys/unix"
)

// Load makes a new file system the one that was saved. Its shares are those of the saved one, where the new
// one was given them too; what lies in others, or in a folder that is another by now, gives ESTALE.
// What cannot be a saved state of ours is an error, and the file system is then to be closed.
func (f *FS) Load(r io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(r, maxSaved+sha256.Size+1))
	if err != nil {
		return fmt.Errorf("load the shares: %w", err)
	}
	end := len(b) - sha256.Size
	if end < len(savedMagic) || string(b[:len(savedMagic)]) != savedMagic || sha256.Sum256(b[:end]) != [sha256.Size]byte(b[end:]) {
		return errors.New("load the shares: this is no saved state, or it was damaged")
	}
	s := &saved{}
	if err := s.decode(b[len(savedMagic):end]); err != nil {
		return fmt.Errorf("load the shares: %w", err)
	}
	if err := f.restore(s); err != nil {
		return fmt.Errorf("load the shares: %w", err)
	}
	go f.reopenAll(s.Handles)
	return nil
}

func (f *FS) restore(s *saved) error {
	f.running.Lock()
	defer f.running.Unlock()
	if err := s.check(); err != nil {
		return err
	}
	if f.closed || f.agreed.Load() != nil {
		return errors.New("the file system is in use, or was")
	}
	if len(s.Agreed.Asked) > 0 {
		if err := f.agree(s.Agreed); err != nil {
			return err
		}
	}
	f.replayer.Store(s.Replayer)
	f.woken.Store(true)
	nodes := f.restoreNodes(s)
	f.handles.next = s.NextHandle
	for _, h := range s.Handles {
		was := &handle{id: h.ID, node: nodes[h.Node], flags: h.Flags, fd: -1}
		was.asleep.Store(true)
		f.handles.byID[h.ID] = was
	}
	return nil
}

// agree has go-fuse hear again what the guest's kernel asked when it mounted.
func (f *FS) agree(a agreement) error {
	out := make([]byte, maxAgreed)
	n, code := f.server.HandleRequest([][]byte{a.Asked}, [][]byte{out})
	if !code.Ok() || !bytes.Equal(out[:n], a.Answered) {
		return errors.New("the guest and a different version of Cove agreed on the protocol")
	}
	f.agreed.Store(&a)
	return nil
}

// restoreNodes makes the table the one that was saved, and returns all its nodes.
func (f *FS) restoreNodes(s *saved) map[uint64]*node {
	t := &f.nodes
	given := f.exports
	f.exports = nil
	roots := map[uint64]*export{}
	for _, was := range s.Exports {
		e := &export{Share: Share{Path: was.Path, ReadOnly: was.ReadOnly}, gone: true}
		for i, g := range given {
			if g != nil && g.Path == was.Path {
				e.gone, e.ReadOnly, e.root = false, was.ReadOnly || g.ReadOnly, g.root
				given[i] = nil
				break
			}
		}
		f.exports = append(f.exports, e)
		roots[was.Root] = e
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var drop []int
	for _, g := range given {
		if g != nil {
			fd, _ := t.dropPathLocked(g.root)
			drop = append(drop, fd)
		}
	}
	defer closeAll(drop)
	root := t.byID[rootID]
	root.children = map[string]*node{}
	clear(t.byKey)
	clear(t.byID)
	t.byID[rootID], t.next = root, s.Next

	devices := s.devices(f.exports)
	clear(t.devs)
	for i, dev := range devices {
		t.devs[dev] = uint64(i)
	}
	byID := map[uint64]*node{rootID: root}
	for i := range s.Nodes {
		one := &s.Nodes[i]
		n := &node{id: one.ID, export: f.exports[one.Export], key: key{ino: one.Ino, born: one.Born}, kind: one.Kind, shown: one.Shown,
			lookups: one.Lookups, memory: one.Owner, stamp: one.Stamp, ghost: one.Ghost, local: one.Local}
		if one.Device >= 0 {
			n.key.dev = devices[one.Device]
		}
		n.seen.Store(one.Seen)
		n.slept.Store(true)
		byID[n.id] = n
		if n.lookups == 0 {
			continue
		}
		t.byID[n.id] = n
		if e := roots[n.id]; e != nil {
			if e.root != nil && e.root.key == n.key {
				n.path = e.root.path
			} else if e.root != nil {
				fd, _ := t.dropPathLocked(e.root)
				drop = append(drop, fd)
				e.gone = true
			}
			e.root = n
		} else if !one.Old {
			t.byKey[exportKey{n.export, n.key}] = n
		}
	}
	for i := range s.Nodes {
		n := byID[s.Nodes[i].ID]
		for _, l := range s.Nodes[i].Links {
			parent := byID[l.Parent]
			n.links = append(n.links, link{parent, l.Name})
			if n.lookups == 0 {
				continue
			}
			if parent.children == nil {
				parent.children = map[string]*node{}
			}
			parent.children[l.Name] = n
		}
	}
	return byID
}

// devices are the numbers that the saved devices have now. They change when the host boots; those of shares
// are then known by the share's own folder, and a file of another is not known again.
func (s *saved) devices(exports []*export) []uint64 {
	if s.Boot == bootID() {
		return s.Devices
	}
	now := make([]uint64, len(s.Devices))
	for i := range now {
		now[i] = noDevice | uint64(i)
	}
	for i, e := range exports {
		at, _ := slices.BinarySearchFunc(s.Nodes, s.Exports[i].Root, func(n savedNode, id uint64) int { return cmp.Compare(n.ID, id) })
		was := &s.Nodes[at]
		if e.root != nil && was.Device >= 0 && e.root.key.ino == was.Ino && e.root.key.born == was.Born && !slices.Contains(now, e.root.key.dev) {
			now[was.Device] = e.root.key.dev
		}
	}
	return now
}

// noDevice is a bit of no device's number.
const noDevice = 1 << 63

// wake opens what a handle was. A file that is not where it was may be found again, so an error is not for
// good.
func (f *FS) wake(h *handle) error {
	h.waking.Lock()
	defer h.waking.Unlock()
	if !h.asleep.Load() {
		return nil
	}
	flags := int(h.flags & openFlags &^ unix.O_TRUNC)
	if flags&unix.O_ACCMODE != unix.O_RDONLY && h.node.export.ReadOnly {
		return unix.EROFS
	}
	p, err := f.nodes.use(h.node)
	if err != nil {
		return err
	}
	defer f.nodes.done(p)
	fd, err := again(p.fd, flags)
	if err != nil {
		return err
	}
	h.fd = fd
	h.asleep.Store(false)
	f.nodes.opened(h)
	return nil
}

// reopenAll opens every handle soon, so that what the host does from now on to a file that is open is as
// ever. A disk that hangs is waited for here, and by those who use it.
func (f *FS) reopenAll(all []savedHandle) {
	for _, s := range all {
		f.running.RLock()
		if f.closed {
			f.running.RUnlock()
			return
		}
		if h, err := f.useHandle(s.ID, nil); err == nil {
			f.handles.done(h)
		}
		f.running.RUnlock()
	}
}
