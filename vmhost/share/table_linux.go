package share

import (
	"container/list"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// key names a file of the host for as long as it exists. An inode's number is given anew when its file is
// gone; the time of its birth tells the two apart where the host's file system has one.
type key struct {
	dev, ino uint64
	born     int64
}

// exportKey: the same file by two shares, one of them inside the other, is two nodes.
type exportKey struct {
	export *export
	key    key
}

func keyOf(st *unix.Statx_t) key {
	k := key{dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		k.born = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return k
}

// link is a name of a file.
type link struct {
	parent *node
	name   string
}

// node is a file that the guest's kernel knows. It is plain data but for the descriptors, which can be had
// again from the names: a saved state is the nodes with their names and keys.
type node struct {
	id     uint64
	export *export // nil for the root above the shares
	key    key
	kind   uint32 // S_IFMT bits; never changes
	shown  uint64 // the inode number that the guest sees

	// Under table.mu.
	links    []link           // newest last; a folder has one at most
	children map[string]*node // of a folder, by the names in links
	lookups  uint64           // what the guest's kernel will forget
	path     *pathFD          // nil when it was closed to save descriptors
	open     []*handle
	memory   *owner // where the host's file system cannot keep it
	stamp    stamp  // what the guest's page cache was filled from
	left     stamp  // as the guest left it at its last change
	closed   int    // closes of the guest's that are to come back as changes
	closedAt time.Time

	local   bool          // of a folder: see isLocal; never changes
	busy    atomic.Int32  // changes of the guest's that are under way
	turn    atomic.Uint32 // changes of the guest's that were begun
	seen    atomic.Uint64 // stamp.digest of what the guest was told last, or left; 0 for nothing yet
	refused atomic.Uint64 // stamp.digest for which an open was refused; see isNews
	until   atomic.Int64  // for how long the guest's kernel may keep what it was told; nanoseconds of Unix time
	slept   atomic.Bool   // it comes of a saved state, and was not looked at since
	watch   int32         // of inotify, 0 for none; under watcher.mu
	ghost   bool          // stands in for a file that there is no more
}

// pathFD is an O_PATH descriptor that is in use or kept to be quick.
type pathFD struct {
	fd   int
	uses int  // under table.mu
	gone bool // closed when uses comes to 0
	at   *list.Element
	last time.Time // of a file on another file system than its share: see sweep
}

// table holds the nodes. Nothing waits with its lock held.
type table struct {
	mu     sync.Mutex
	next   uint64
	byID   map[uint64]*node
	byKey  map[exportKey]*node
	recent *list.List // of *node with a path, the least recently used at the back
	keep   int
	devs   map[uint64]uint64 // the host's devices in the order in which they were met

	foreign map[*node]bool // those with a path that holds another file system than their share's
	sweeper *time.Timer
}

const (
	rootID     = 1     // FUSE_ROOT_ID: the folder of shares
	maxDepth   = 20000 // folders above each other before a stale table is taken for a loop
	maxNames   = 8     // names that are remembered for a file with many
	maxDevices = 1 << 15
)

func (t *table) init(keep int) {
	t.next = rootID + 1
	t.byID = map[uint64]*node{rootID: {id: rootID, kind: unix.S_IFDIR, shown: rootID, lookups: 1, children: map[string]*node{}}}
	t.byKey = map[exportKey]*node{}
	t.recent = list.New()
	t.keep = keep
	t.devs = map[uint64]uint64{}
	t.foreign = map[*node]bool{}
}

func (t *table) addRoot(e *export, fd int, k key, ino uint64, index int) *node {
	local := isLocal(fd)
	t.mu.Lock()
	defer t.mu.Unlock()
	n := &node{id: t.next, export: e, key: k, kind: unix.S_IFDIR, shown: t.shownLocked(k), local: local, path: &pathFD{fd: fd, uses: 1}}
	t.next++
	n.lookups = 1 // ours: it stays
	t.byID[n.id] = n
	t.byID[rootID].children[strconv.Itoa(index)] = n
	n.links = []link{{t.byID[rootID], strconv.Itoa(index)}}
	return n
}

// shownLocked gives each device of the host its own range of inode numbers, because the guest sees one
// device and tools take two files with one number for one file.
func (t *table) shownLocked(k key) uint64 {
	i, known := t.devs[k.dev]
	if !known && len(t.devs) < maxDevices {
		i = uint64(len(t.devs))
		t.devs[k.dev] = i
	}
	return k.ino ^ i<<48
}

func (t *table) get(id uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// enter makes the file that fd is known to the guest under a name, and takes fd over. A parent of nil is
// for a file without a name.
func (t *table) enter(parent *node, name string, fd int, st *unix.Statx_t, e *export) (*node, error) {
	k := keyOf(st)
	local := uint32(st.Mode)&unix.S_IFMT == unix.S_IFDIR && isLocal(fd)
	t.mu.Lock()
	n := t.byKey[exportKey{e, k}]
	if n != nil && n.kind != uint32(st.Mode)&unix.S_IFMT {
		n = nil // a number that was given anew
	}
	if n == nil {
		if len(t.byID) >= maxNodes {
			t.mu.Unlock()
			unix.Close(fd)
			return nil, unix.ENFILE
		}
		n = &node{id: t.next, export: e, key: k, kind: uint32(st.Mode) & unix.S_IFMT, shown: t.shownLocked(k), local: local}
		t.next++
		t.byID[n.id] = n
		t.byKey[exportKey{e, k}] = n
	}
	if parent != nil && name != "" {
		t.nameLocked(n, parent, name)
	}
	n.lookups++
	drop := t.keepLocked(n, fd)
	t.mu.Unlock()
	closeAll(drop)
	return n, nil
}

// keepLocked gives a node its descriptor and returns those to close for it.
func (t *table) keepLocked(n *node, fd int) []int {
	if n.path != nil {
		return []int{fd}
	}
	n.path = &pathFD{fd: fd}
	n.path.at = t.recent.PushFront(n)
	if n.export != nil && n.export.root != nil && n.key.dev != n.export.root.key.dev {
		n.path.last = time.Now()
		t.foreign[n] = true
		if t.sweeper == nil {
			t.sweeper = time.AfterFunc(idleForeign, t.sweep)
		}
	}
	return t.trimLocked()
}

// idleForeign is how long a disk that is mounted below a share stays busy after its last use.
const idleForeign = time.Second

// sweep closes descriptors that would keep the user from unmounting a disk.
func (t *table) sweep() {
	var drop []int
	t.mu.Lock()
	for n := range t.foreign {
		if time.Since(n.path.last) < idleForeign || n.path.uses > 0 {
			continue
		}
		if fd, idle := t.dropPathLocked(n); idle {
			drop = append(drop, fd)
		}
	}
	t.sweeper = nil
	if len(t.foreign) > 0 {
		t.sweeper = time.AfterFunc(idleForeign, t.sweep)
	}
	t.mu.Unlock()
	closeAll(drop)
}

func (t *table) trimLocked() (drop []int) {
	for t.recent.Len() > t.keep {
		if fd, idle := t.dropPathLocked(t.recent.Back().Value.(*node)); idle {
			drop = append(drop, fd)
		}
	}
	return drop
}

// dropPathLocked takes a node's descriptor away. idle says that the caller is to close it; otherwise who
// uses it last does.
func (t *table) dropPathLocked(n *node) (fd int, idle bool) {
	p := n.path
	n.path = nil
	delete(t.foreign, n)
	if p.at != nil {
		t.recent.Remove(p.at)
		p.at = nil
	}
	p.gone = true
	return p.fd, p.uses == 0
}

// use returns a node's descriptor and what to call when it is no longer needed.
func (t *table) use(n *node) (*pathFD, error) { return t.useAt(n, 0) }

func (t *table) useAt(n *node, depth int) (*pathFD, error) {
	t.mu.Lock()
	if p := n.path; p != nil {
		p.uses++
		if p.at != nil {
			t.recent.MoveToFront(p.at)
		}
		if !p.last.IsZero() {
			p.last = time.Now()
		}
		t.mu.Unlock()
		return p, nil
	}
	links := slices.Clone(n.links)
	var opened *handle
	if len(n.open) > 0 {
		opened = n.open[0]
	}
	t.mu.Unlock()
	if depth > maxDepth || n.export == nil || n.ghost {
		return nil, unix.ESTALE
	}
	fd, err := t.reopen(n, links, depth)
	if err != nil && opened != nil {
		// Deleted, but open: the open file is the way to it.
		fd, err = opened.again()
	}
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	drop := t.keepLocked(n, fd)
	p := n.path
	p.uses++
	t.mu.Unlock()
	closeAll(drop)
	return p, nil
}

// reopen finds a node by its names. What is there now and is another file is not it.
func (t *table) reopen(n *node, links []link, depth int) (int, error) {
	for _, l := range slices.Backward(links) {
		dir, err := t.useAt(l.parent, depth+1)
		if err != nil {
			continue
		}
		fd, err := openBeneath(dir.fd, l.name, unix.O_PATH|unix.O_NOFOLLOW, 0)
		t.done(dir)
		if err != nil {
			continue
		}
		if st, err := stat(fd); err == nil && keyOf(&st) == n.key {
			return fd, nil
		}
		unix.Close(fd)
	}
	return -1, unix.ESTALE
}

func (t *table) done(p *pathFD) {
	t.mu.Lock()
	p.uses--
	last := p.gone && p.uses == 0
	t.mu.Unlock()
	if last {
		unix.Close(p.fd)
	}
}

// nameLocked notes that a node has a name.
func (t *table) nameLocked(n, parent *node, name string) {
	if old := parent.children[name]; old == n {
		return
	} else if old != nil {
		t.unnameLocked(parent, name)
	}
	if n.kind == unix.S_IFDIR || len(n.links) >= maxNames {
		t.unnameLocked(n.links0())
	}
	if parent.children == nil {
		parent.children = map[string]*node{}
	}
	parent.children[name] = n
	n.links = append(n.links, link{parent, name})
}

func (n *node) links0() (*node, string) {
	if len(n.links) == 0 {
		return nil, ""
	}
	return n.links[0].parent, n.links[0].name
}

// unnameLocked forgets a name, and returns whose it was.
func (t *table) unnameLocked(parent *node, name string) *node {
	if parent == nil || parent.children[name] == nil {
		return nil
	}
	n := parent.children[name]
	delete(parent.children, name)
	n.links = slices.DeleteFunc(n.links, func(l link) bool { return l.parent == parent && l.name == name })
	return n
}

func (t *table) unname(parent *node, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unnameLocked(parent, name)
}

// renamed follows a rename that was done.
func (t *table) renamed(from *node, name string, to *node, newName string, exchange bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if from == to && name == newName {
		return
	}
	n, other := t.unnameLocked(from, name), t.unnameLocked(to, newName)
	if n != nil {
		t.nameLocked(n, to, newName)
	}
	if other != nil && exchange {
		t.nameLocked(other, from, name)
	}
}

// forget takes lookups back. The guest may send any number.
func (t *table) forget(id, count uint64) (gone *node) {
	t.mu.Lock()
	n := t.byID[id]
	if n == nil || id == rootID {
		t.mu.Unlock()
		return nil
	}
	floor := uint64(0)
	if n.export != nil && n == n.export.root {
		floor = 1
	}
	n.lookups -= min(count, n.lookups-floor)
	fd, idle := -1, false
	if n.lookups == 0 {
		gone = n
		delete(t.byID, id)
		if k := (exportKey{n.export, n.key}); t.byKey[k] == n {
			delete(t.byKey, k)
		}
		for _, l := range slices.Clone(n.links) {
			if l.parent.children[l.name] == n {
				delete(l.parent.children, l.name)
			}
		}
		if n.path != nil {
			fd, idle = t.dropPathLocked(n)
		}
	}
	t.mu.Unlock()
	if idle {
		unix.Close(fd)
	}
	return gone
}

func (t *table) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	// A node that is forgotten may have a descriptor again, for the replay of its end.
	for t.recent.Len() > 0 {
		fd, _ := t.dropPathLocked(t.recent.Back().Value.(*node))
		unix.Close(fd)
	}
	for _, n := range t.byID {
		if n.path != nil { // the shares themselves
			fd, _ := t.dropPathLocked(n)
			unix.Close(fd)
		}
	}
	if t.sweeper != nil {
		t.sweeper.Stop()
	}
	clear(t.byID)
	clear(t.byKey)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
