//go:build linux

package reclaim

import (
	"context"
	"fmt"
	"testing"
	"testing/fstest"
)

const mib = 1 << 20

func TestNext(t *testing.T) {
	type look struct {
		cached, refault int64 // MiB, pages
		want            int64 // MiB
	}
	for _, row := range []struct {
		says  string
		keep  int64
		looks []look
	}{
		{"nothing is taken before a group stood still for three looks", 0, []look{{100, 0, 0}, {100, 0, 0}, {100, 0, 25}}},
		{"a quarter is taken at a time, until little is left", 20, []look{{100, 0, 0}, {100, 0, 0}, {100, 0, 20}, {80, 0, 15}, {65, 0, 11}, {54, 0, 8}, {46, 0, 8}, {38, 0, 8}, {30, 0, 8}, {22, 0, 0}}},
		{"what is kept is never taken", 100, []look{{107, 0, 0}, {107, 0, 0}, {107, 0, 0}, {107, 0, 0}}},
		{"no more is taken at once than goes without being noticed", 0, []look{{4000, 0, 0}, {4000, 0, 0}, {4000, 0, 256}}},
		{"a group that reads files is left alone until it stands still", 0, []look{{100, 0, 0}, {100, 0, 0}, {140, 0, 0}, {141, 0, 0}, {141, 0, 0}, {141, 0, 35}}},
		{"a group that reads again what it had is left alone", 0, []look{{100, 0, 0}, {100, 0, 0}, {100, 5000, 0}, {100, 5000, 0}, {100, 5000, 0}, {100, 5000, 25}}},
		{"one that missed what was taken is left alone for twice as long, and then for four times",
			0, []look{{100, 0, 0}, {100, 0, 0}, {100, 0, 25}, {100, 1000, 0}, {100, 1000, 0}, {100, 1000, 0}, {100, 1000, 0}, {100, 1000, 0}, {100, 1000, 0}, {100, 1000, 25},
				{100, 2000, 0}, {100, 2000, 0}, {100, 2000, 0}, {100, 2000, 0}, {100, 2000, 0}, {100, 2000, 0}, {100, 2000, 0}, {100, 2000, 0}, {100, 2000, 0}, {100, 2000, 0}, {100, 2000, 0}, {100, 2000, 0}, {100, 2000, 25}}},
		{"one that missed nothing the next time is trusted again",
			0, []look{{100, 0, 0}, {100, 0, 0}, {100, 0, 25}, {100, 1000, 0}, {100, 1000, 0}, {100, 1000, 0}, {100, 1000, 0}, {100, 1000, 0}, {100, 1000, 0}, {100, 1000, 25}, {75, 1000, 18},
				{75, 2000, 0}, {75, 2000, 0}, {75, 2000, 0}, {75, 2000, 0}, {75, 2000, 0}, {75, 2000, 0}, {75, 2000, 18}}},
	} {
		g := &group{counts: counts{row.looks[0].cached * mib, row.looks[0].refault}}
		for i, l := range row.looks {
			if got := g.next(counts{l.cached * mib, l.refault}, row.keep*mib); got/mib != l.want {
				t.Errorf("%s: look %d: next(%d MiB, %d pages) = %d MiB; want %d", row.says, i, l.cached, l.refault, got/mib, l.want)
			}
		}
	}
}

// guest is what a guest shows whose groups have so many MiB of files.
func guest(stalled int, groups map[string]int64) fstest.MapFS {
	root := fstest.MapFS{"proc/pressure/memory": {Data: fmt.Appendf(nil, "some avg10=0.00 avg60=0.12 avg300=0.00 total=%d\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=%d\n", stalled, stalled)}}
	for name, n := range groups {
		root[top+"/"+name+"/memory.stat"] = &fstest.MapFile{Data: fmt.Appendf(nil, "anon 700000000\nfile %d\nshmem %d\nslab_reclaimable 0\nworkingset_refault_file 0\n", (n+50)*mib, 50*mib)}
	}
	return root
}

func TestLook(t *testing.T) {
	all := map[string]int64{"docker": 416, "team": 56, "cove/dockerd": 136, "cove/containerd": 60, "cove/shell": 0, "init.scope": 900, "cove": 1000}
	r := &Reclaimer{Root: guest(5, all)}
	for range stillFor - 1 {
		if got := r.look(); len(got) > 0 {
			t.Fatalf("look = %v at first; want nothing", got)
		}
	}
	want := map[string]int64{"docker": 100 * mib, "team": 10 * mib, "cove/dockerd": 10 * mib}
	if got := r.look(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("look = %v; want %v: of containers', and of the engine's what it does not need", got, want)
	}
	r.Root = guest(5+200_000, all)
	if got := r.look(); len(got) > 0 {
		t.Errorf("look = %v after somebody waited for memory; want nothing", got)
	}
	delete(all, "docker")
	r.Root = guest(5+200_000, all)
	r.look()
	r.look()
	if got := r.look(); got["docker"] != 0 || got["team"] == 0 {
		t.Errorf("look = %v; want some of team, and nothing of a group that is gone", got)
	}
}

func TestTakeStopsWhenThereIsNoMore(t *testing.T) {
	asked := 0
	r := &Reclaimer{Take: func(group string, bytes int64) error {
		asked++
		if asked == 3 {
			return errNoMore
		}
		return nil
	}}
	r.take(context.Background(), "docker", 100*mib)
	if asked != 3 {
		t.Errorf("the kernel was asked %d times; want 3", asked)
	}
}
