//go:build linux

// Package reclaim gives back the memory of files that nobody has used for a while, so that the host gets it
// while containers run. The kernel keeps what was read until somebody needs the room, and in a machine of
// its own nobody does; the host has the same blocks in its own cache.
//
// It takes a little at a time, the oldest first, from groups that stand still, and stops where it is
// missed: a group that reads again what was taken is left alone, longer each time. It never swaps.
package reclaim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Every is the time between two looks, which cost some reads of small files.
	Every = 10 * time.Second
	// stillFor is how many looks a group must stand still before something is taken of it.
	stillFor = 3
	// growth is how many bytes of files a group may take up between two looks and still stand still: logs grow.
	growth = 2 << 20
	// missing is how many pages a group may read again between two looks and not miss what was taken.
	missing = 256
	// longestWait is how many looks a group is left alone at most, after it missed something: an hour.
	longestWait = 360
	// pressed is how long programs may wait for memory between two looks without anybody being short of it.
	pressed = 100 * time.Millisecond

	least = 8 << 20   // is taken at once of a group, or nothing; bytes
	most  = 256 << 20 // is taken between two looks of one group
	// piece is what the kernel is asked for in one call, so that nobody waits long for a lock that it holds;
	// pause is for everybody else.
	piece = 4 << 20
	pause = 20 * time.Millisecond
)

// The engine's own files are kept: a guest whose dockerd has to be read again answers late.
const (
	keepDockerd    = 96 << 20 // its program is 80 MB in memory
	keepContainerd = 64 << 20 // with its shims 55 MB
	keepOther      = 16 << 20
)

// group is a control group with all below it.
type group struct {
	counts
	still  int // looks in a row
	wait   int // looks to come in which nothing is taken
	missed int // times in a row
	took   bool
}

// counts are what a group has of files.
type counts struct {
	cached  int64 // bytes that can be given up
	refault int64 // pages that were read again soon after they had been given up, since the boot
}

// next is how many bytes are taken of a group that counts so now.
func (g *group) next(now counts, keep int64) int64 {
	grew, again := now.cached-g.cached > growth, now.refault-g.refault > missing
	took := g.took
	g.counts, g.took = now, false
	switch {
	case again && took:
		g.missed = min(g.missed+1, 20)
		g.wait = min(stillFor<<g.missed, longestWait)
		fallthrough
	case again || grew:
		g.still = 0
	default:
		g.still++
	}
	if took && !again {
		g.missed = 0
	}
	if g.wait > 0 {
		g.wait--
		return 0
	}
	over := now.cached - keep
	if g.still < stillFor || over < least {
		return 0
	}
	g.took = true
	return min(max(least, over/4), most)
}

// Reclaimer looks at the groups and takes of them.
type Reclaimer struct {
	Root fs.FS // os.DirFS("/")
	// Take asks the kernel to give up so many bytes of a group's files; an error says that it could not.
	Take func(group string, bytes int64) error

	groups  map[string]*group
	stalled time.Duration
}

const top = "sys/fs/cgroup"

// Run looks until the context ends.
func (r *Reclaimer) Run(ctx context.Context) {
	t := time.NewTicker(Every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for name, bytes := range r.look() {
			r.take(ctx, name, bytes)
		}
	}
}

// look says how much is to be taken of which group now.
func (r *Reclaimer) look() map[string]int64 {
	short := r.short()
	now := map[string]*group{}
	out := map[string]int64{}
	for name, keep := range kept(r.Root) {
		c, err := count(r.Root, name)
		if err != nil {
			continue // it ended
		}
		g := r.groups[name]
		if g == nil {
			g = &group{counts: c}
		}
		now[name] = g
		if short {
			g.still = 0
		}
		if n := g.next(c, keep); n > 0 {
			out[name] = n
		}
	}
	r.groups = now
	return out
}

// kept are the groups of which something may be taken, and how much each keeps.
func kept(root fs.FS) map[string]int64 {
	all := map[string]int64{"cove/dockerd": keepDockerd, "cove/containerd": keepContainerd, "cove/shell": keepOther}
	tops, _ := fs.ReadDir(root, top)
	for _, t := range tops {
		// guestd's own is left out: its program is in no file that could be read again.
		if t.IsDir() && t.Name() != "cove" && t.Name() != "init.scope" {
			all[t.Name()] = keepOther
		}
	}
	return all
}

// short says whether somebody waited for memory since the last look: Documentation/accounting/psi.rst.
func (r *Reclaimer) short() bool {
	b, err := fs.ReadFile(r.Root, "proc/pressure/memory")
	if err != nil {
		return false // a kernel that does not say
	}
	var a, c, d float64
	var micros int64
	fmt.Sscanf(string(b), "some avg10=%f avg60=%f avg300=%f total=%d", &a, &c, &d, &micros)
	before := r.stalled
	r.stalled = time.Duration(micros) * time.Microsecond
	return r.stalled-before > pressed
}

// count reads cgroups(7), memory.stat.
func count(root fs.FS, name string) (counts, error) {
	b, err := fs.ReadFile(root, path.Join(top, name, "memory.stat"))
	if err != nil {
		return counts{}, err
	}
	stat := map[string]int64{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), " ")
		stat[k], _ = strconv.ParseInt(v, 10, 64)
	}
	return counts{cached: stat["file"] - stat["shmem"] + stat["slab_reclaimable"], refault: stat["workingset_refault_file"]}, nil
}

// take takes in pieces, until the kernel finds no more.
func (r *Reclaimer) take(ctx context.Context, name string, bytes int64) {
	taken := int64(0)
	for ; taken < bytes; taken += piece {
		if err := r.Take(name, piece); err != nil {
			if !errors.Is(err, errNoMore) {
				slog.Info("memory of unused files", "group", name, "err", err)
			}
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
	slog.Debug("memory of unused files", "group", name, "given back", taken)
}

// errNoMore is the kernel's answer when it gave up less than it was asked for.
const errNoMore = unix.EAGAIN

// Take asks the kernel: Documentation/admin-guide/cgroup-v2.rst, memory.reclaim. Without swapping.
func Take(group string, bytes int64) error {
	return os.WriteFile(path.Join("/", top, group, "memory.reclaim"), fmt.Appendf(nil, "%d swappiness=0", bytes), 0)
}
