package share

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// saved is a state as it is written: numbers as varints, counts before what they count, text with its
// length.
type saved struct {
	Boot       string // of the host: numbers of devices hold until the next
	Agreed     agreement
	Next       uint64 // table.next
	NextHandle uint64
	Replayer   uint32
	Exports    []savedExport
	Devices    []uint64 // in their order
	Nodes      []savedNode
	Handles    []savedHandle
}

type savedExport struct {
	Path     string
	ReadOnly bool
	Root     uint64
}

type savedNode struct {
	ID      uint64
	Export  int
	Device  int // of Devices, -1 for none
	Ino     uint64
	Born    int64
	Kind    uint32
	Shown   uint64
	Links   []savedLink
	Lookups uint64
	Owner   *owner // see node.memory
	Stamp   stamp
	Seen    uint64
	Ghost   bool
	Local   bool
	Old     bool // its number is another node's by now
}

type savedLink struct {
	Parent uint64
	Name   string
}

type savedHandle struct {
	ID, Node uint64
	Flags    uint32
}

// agreement is what the guest's kernel and we agreed on when it mounted; it is not asked again.
type agreement struct{ Asked, Answered []byte }

// Bits of a node's first byte.
const (
	savedGhost = 1 << iota
	savedOld
	savedOwner
	savedStamp
	savedLocal
)

func (s *saved) encode(b []byte) []byte {
	w := writer{b}
	w.text(s.Boot)
	w.text(string(s.Agreed.Asked))
	w.text(string(s.Agreed.Answered))
	w.numbers(s.Next, s.NextHandle, uint64(s.Replayer))
	w.numbers(uint64(len(s.Exports)))
	for _, e := range s.Exports {
		w.text(e.Path)
		w.numbers(bit(e.ReadOnly, 1), e.Root)
	}
	w.numbers(uint64(len(s.Devices)))
	w.numbers(s.Devices...)
	w.numbers(uint64(len(s.Nodes)))
	last := savedNode{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		w.numbers(bit(n.Ghost, savedGhost)|bit(n.Old, savedOld)|bit(n.Owner != nil, savedOwner)|bit(n.Stamp != stamp{}, savedStamp)|bit(n.Local, savedLocal),
			n.ID-last.ID, uint64(n.Export), uint64(n.Device+1), n.Ino, uint64(n.Kind)>>12, n.Shown^n.Ino, n.Lookups)
		w.signed(n.Born - last.Born)
		w.fixed(n.Seen)
		w.numbers(uint64(len(n.Links)))
		for _, l := range n.Links {
			w.numbers(l.Parent)
			w.text(l.Name)
		}
		if o := n.Owner; o != nil {
			w.numbers(uint64(o.uid), uint64(o.gid), uint64(o.mode), uint64(o.host))
		}
		if c := n.Stamp; c != (stamp{}) {
			w.numbers(c.size, uint64(c.mtime.Nsec), uint64(c.ctime.Nsec))
			w.signed(c.mtime.Sec)
			w.signed(c.ctime.Sec - c.mtime.Sec)
		}
		last = *n
	}
	w.numbers(uint64(len(s.Handles)))
	for _, h := range s.Handles {
		w.numbers(h.ID, h.Node, uint64(h.Flags))
	}
	return w.b
}

func bit(is bool, b uint64) uint64 {
	if is {
		return b
	}
	return 0
}

// decode takes any bytes; what it makes of them may still make no sense, see check.
func (s *saved) decode(b []byte) error {
	r := reader{b: b}
	s.Boot = r.text()
	s.Agreed = agreement{[]byte(r.text()), []byte(r.text())}
	s.Next, s.NextHandle, s.Replayer = r.number(), r.number(), uint32(r.number())
	s.Exports = make([]savedExport, r.count(3))
	for i := range s.Exports {
		s.Exports[i] = savedExport{Path: r.text(), ReadOnly: r.number() != 0, Root: r.number()}
	}
	s.Devices = make([]uint64, r.count(1))
	for i := range s.Devices {
		s.Devices[i] = r.number()
	}
	s.Nodes = make([]savedNode, r.count(18))
	last := savedNode{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		flags := r.number()
		n.Ghost, n.Old, n.Local = flags&savedGhost != 0, flags&savedOld != 0, flags&savedLocal != 0
		n.ID, n.Export, n.Device, n.Ino = last.ID+r.number(), int(r.number()), int(r.number())-1, r.number()
		n.Kind = uint32(r.number()) << 12
		n.Shown, n.Lookups = n.Ino^r.number(), r.number()
		n.Born, n.Seen = last.Born+r.signed(), r.fixed()
		n.Links = make([]savedLink, r.count(2))
		for j := range n.Links {
			n.Links[j] = savedLink{r.number(), r.text()}
		}
		if flags&savedOwner != 0 {
			n.Owner = &owner{uint32(r.number()), uint32(r.number()), uint32(r.number()), uint32(r.number())}
		}
		if flags&savedStamp != 0 {
			n.Stamp.size = r.number()
			n.Stamp.mtime.Nsec, n.Stamp.ctime.Nsec = uint32(r.number()), uint32(r.number())
			n.Stamp.mtime.Sec = r.signed()
			n.Stamp.ctime.Sec = n.Stamp.mtime.Sec + r.signed()
		}
		last = *n
	}
	s.Handles = make([]savedHandle, r.count(3))
	for i := range s.Handles {
		s.Handles[i] = savedHandle{r.number(), r.number(), uint32(r.number())}
	}
	if r.err == nil && len(r.b) > 0 {
		r.err = errState
	}
	return r.err
}

// check refuses what Save does not write: it may come of a damaged or foreign file.
func (s *saved) check() error {
	if len(s.Nodes) > maxNodes || len(s.Handles) > maxHandles || len(s.Devices) > maxDevices || s.Next >= replayID || s.NextHandle == 0 {
		return fmt.Errorf("%d files, %d open, %d devices", len(s.Nodes), len(s.Handles), len(s.Devices))
	}
	seen := make(map[uint64]*savedNode, len(s.Nodes))
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.ID <= rootID || n.ID >= s.Next || i > 0 && n.ID <= s.Nodes[i-1].ID || n.Export < 0 || n.Export >= len(s.Exports) ||
			n.Device < -1 || n.Device >= len(s.Devices) || n.Kind&^unix.S_IFMT != 0 || len(n.Links) > maxNames || n.Kind == unix.S_IFDIR && len(n.Links) > 1 {
			return fmt.Errorf("file %d cannot be", n.ID)
		}
		seen[n.ID] = n
	}
	for i, e := range s.Exports {
		root := seen[e.Root]
		if root == nil || root.Lookups == 0 || root.Export != i || root.Kind != unix.S_IFDIR || root.Ghost || len(root.Links) != 1 || root.Links[0].Parent != rootID {
			return fmt.Errorf("share %q has no folder", e.Path)
		}
	}
	names := make(map[savedLink]bool, len(s.Nodes))
	for i := range s.Nodes {
		n := &s.Nodes[i]
		for _, l := range n.Links {
			parent := seen[l.Parent]
			top := l.Parent == rootID && n.ID == s.Exports[n.Export].Root
			if !top && (parent == nil || parent.Kind != unix.S_IFDIR || parent.Export != n.Export) || checkName(l.Name) != nil || names[l] && n.Lookups > 0 {
				return fmt.Errorf("file %d cannot be %q in %d", n.ID, l.Name, l.Parent)
			}
			names[l] = names[l] || n.Lookups > 0
		}
	}
	for i, h := range s.Handles {
		n := seen[h.Node]
		if n == nil || n.Kind != unix.S_IFREG || h.ID == 0 || h.ID >= s.NextHandle || i > 0 && h.ID <= s.Handles[i-1].ID {
			return fmt.Errorf("open file %d cannot be", h.ID)
		}
	}
	return nil
}

type writer struct{ b []byte }

func (w *writer) numbers(all ...uint64) {
	for _, v := range all {
		w.b = binary.AppendUvarint(w.b, v)
	}
}

func (w *writer) signed(v int64) { w.b = binary.AppendVarint(w.b, v) }

// fixed is for numbers that are large as a rule.
func (w *writer) fixed(v uint64) { w.b = binary.LittleEndian.AppendUint64(w.b, v) }

func (w *writer) text(s string) {
	w.numbers(uint64(len(s)))
	w.b = append(w.b, s...)
}

// reader reads what writer wrote; after what is wrong it gives zeroes.
type reader struct {
	b   []byte
	err error
}

var errState = errors.New("the saved state makes no sense")

func (r *reader) fail() {
	r.b, r.err = nil, errState
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) signed() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) fixed() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

// count is how many things follow that have at least so many bytes each.
func (r *reader) count(size uint64) int {
	n := r.number()
	if n > uint64(len(r.b))/size {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) text() string {
	n := r.count(1)
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}
