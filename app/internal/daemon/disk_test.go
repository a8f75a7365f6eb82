//go:build unix

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/fakevm"
)

func TestTheDiskGrowsAndNeverShrinks(t *testing.T) {
	w := newWorld(t, &fakevm.Driver{})
	ctx := context.Background()
	file := w.home.Dir("vm", profile, "data.raw")
	size := func() int64 {
		st, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	if c, err := w.Set(ctx, "disk", "8GiB", false); err != nil || c.Restart {
		t.Errorf("Set before there is a disk = %+v, %v; want it taken", c, err)
	}
	if err := w.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if got := size(); got != 8<<30 {
		t.Fatalf("the disk has %d bytes; want 8 GiB", got)
	}
	if c, err := w.Set(ctx, "disk", "16GiB", true); err != nil || c.Restart || c.Value != "16GiB" || size() != 8<<30 {
		t.Errorf("Set to more = %+v, %v in a dry run; want no restart, and the disk as it was", c, err)
	}
	if c, err := w.Set(ctx, "disk", "16GiB", false); err != nil || c.Restart || c.Value != "16GiB" {
		t.Errorf("Set to more = %+v, %v; want it at once", c, err)
	}
	if got := size(); got != 16<<30 {
		t.Errorf("the disk has %d bytes after it grew; want 16 GiB", got)
	}
	var e *api.Error
	if _, err := w.Set(ctx, "disk", "8GiB", false); !errors.As(err, &e) || e.Cause != api.CauseSettings || !strings.Contains(e.Summary, "16GiB already") || !strings.Contains(e.Summary, "cannot shrink") {
		t.Errorf("Set to less = %v; want it refused with what there is", err)
	}
	if s, err := w.Setting(ctx, "disk"); err != nil || s.Value != "16GiB" {
		t.Errorf("the setting is %+v, %v after a refusal; want what it was", s, err)
	}
	if _, err := w.Set(ctx, "disk", "much", false); !errors.As(err, &e) || !strings.Contains(e.Summary, "4GiB to 16TiB") {
		t.Errorf("Set to no size = %v; want the range", err)
	}
	// A disk that does not grow leaves the setting as it was.
	os.Remove(file)
	if _, err := w.Set(ctx, "disk", "32GiB", false); !errors.As(err, &e) || e.Cause != vmhost.ProblemDataDisk {
		t.Errorf("Set of a disk that is gone = %v; want a problem", err)
	}
	if s, err := w.Setting(ctx, "disk"); err != nil || s.Value != "16GiB" {
		t.Errorf("the setting is %+v, %v after the disk did not grow; want what it was", s, err)
	}
}

func TestDiskUsage(t *testing.T) {
	engine := http.NewServeMux()
	engine.HandleFunc("/_ping", func(http.ResponseWriter, *http.Request) {})
	engine.HandleFunc("GET /system/df", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{
			"ImageUsage":      map[string]int64{"TotalCount": 3, "ActiveCount": 1, "TotalSize": 300, "Reclaimable": 200},
			"BuildCacheUsage": map[string]int64{"TotalCount": 7, "TotalSize": 70, "Reclaimable": 70},
		})
	})
	w := newWorld(t, &fakevm.Driver{Engine: engine})
	ctx := context.Background()
	u, err := w.DiskUsage(ctx)
	if err != nil || u.Guest != nil || u.Engine != nil || u.HostFree <= 0 || u.Path == "" {
		t.Errorf("DiskUsage of a stopped engine = %+v, %v; want what the host knows", u, err)
	}
	var e *api.Error
	if _, err := w.CompactDisk(ctx); !errors.As(err, &e) || e.Cause != api.CauseNotRunning || !strings.Contains(e.Remedy, "cove start") {
		t.Errorf("CompactDisk of a stopped engine = %v; want how to start it", err)
	}
	if err := w.Start(ctx); err != nil {
		t.Fatal(err)
	}
	u, err = w.DiskUsage(ctx)
	want := []api.DiskUse{{Kind: "images", Count: 3, Active: 1, Size: 300, Reclaimable: 200}, {Kind: "build-cache", Count: 7, Size: 70, Reclaimable: 70}}
	if err != nil || u.Guest == nil || u.Guest.Size != 64<<30 || len(u.Engine) != 2 || u.Engine[0] != want[0] || u.Engine[1] != want[1] || u.Size != 64<<30 {
		t.Errorf("DiskUsage = %+v, %v; want a guest's disk of 64 GiB and %+v", u, err, want)
	}
	if c, err := w.CompactDisk(ctx); err != nil || c.Size != 64<<30 {
		t.Errorf("CompactDisk = %+v, %v; want the disk", c, err)
	}
}

func TestSpaceWatch(t *testing.T) {
	const gib = 1 << 30
	w := new(spaceWatch)
	for _, row := range []struct {
		says       string
		free, more int64
		want       bool
	}{
		{"enough room", 5 * gib, 50 * gib, false},
		{"too little", 1 * gib, 50 * gib, true},
		{"less still is not said again", gib / 2, 50 * gib, false},
		{"a little more is no reason to forget", 2*gib + 1, 50 * gib, false},
		{"nor to warn again", 1 * gib, 50 * gib, false},
		{"much more is", 4 * gib, 50 * gib, false},
		{"and the next shortage is another", 1 * gib, 50 * gib, true},
		{"a disk that takes no more than there is needs no room", gib / 2, gib / 4, false},
		{"a disk that may take more than there is, does", gib / 4, gib / 2, true},
	} {
		if got := w.look(row.free, row.more); got != row.want {
			t.Errorf("%s: look(%d, %d) = %t; want %t", row.says, row.free, row.more, got, row.want)
		}
	}
}

func TestFullNotice(t *testing.T) {
	for _, row := range []struct {
		free int64
		want []string
	}{
		{0, []string{"/d", "is full", "paused", "0 MiB are left", "Free about 256 MiB"}},
		{100<<20 + 1, []string{"100 MiB are left", "Free about 156 MiB"}},
		{10 << 30, []string{"10240 MiB are free", "quota"}},
	} {
		got := fullNotice("/d", row.free)
		for _, part := range row.want {
			if !strings.Contains(got, part) {
				t.Errorf("fullNotice(/d, %d) = %q; want %q in it", row.free, got, part)
			}
		}
	}
}

// Who stops a machine that waits for room is told at once what that takes.
func TestAStopWhileTheDiskIsFull(t *testing.T) {
	for _, full := range []bool{true, false} {
		w := newWorld(t, &fakevm.Driver{})
		ctx := context.Background()
		if err := w.Start(ctx); err != nil {
			t.Fatal(err)
		}
		m := w.driver.Machine()
		m.Happen(vmhost.EventDiskFull)
		if !full {
			m.Happen(vmhost.EventResumed)
		}
		if err := w.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		said := false
		for _, n := range w.phase(t, api.Stopped).Notices {
			said = said || strings.Contains(n.Text, "cannot stop its containers in order") && strings.Contains(n.Text, "within 75 seconds")
		}
		if said != full {
			t.Errorf("with a disk that is full: %t, the stop says that the VM waits: %t", full, said)
		}
	}
	if got := stuckNotice("/d", 56<<20); !strings.Contains(got, "Free about 200 MiB") || !strings.Contains(got, "/d") {
		t.Errorf("stuckNotice = %q; want how much to free, and where", got)
	}
}

func TestTheDefaultOfTheDiskHoldsAtOnceToo(t *testing.T) {
	w := newWorld(t, &fakevm.Driver{})
	ctx := context.Background()
	file := w.home.Dir("vm", profile, "data.raw")
	if _, err := w.Set(ctx, "disk", "8GiB", false); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if c, err := w.Unset(ctx, "disk", false); err != nil || c.Restart || c.Value != "64GiB" {
		t.Errorf("Unset = %+v, %v; want the default at once", c, err)
	}
	if st, err := os.Stat(file); err != nil || st.Size() != 64<<30 {
		t.Errorf("the disk is %v, %v; want 64 GiB", st.Size()>>30, err)
	}
	// A disk that has more already keeps it, and the setting may go all the same.
	if _, err := w.Set(ctx, "disk", "80GiB", false); err != nil {
		t.Fatal(err)
	}
	if c, err := w.Unset(ctx, "disk", false); err != nil || c.Restart {
		t.Errorf("Unset = %+v, %v of a disk that is larger; want it taken", c, err)
	}
	if st, err := os.Stat(file); err != nil || st.Size() != 80<<30 {
		t.Errorf("the disk is %v, %v; want 80 GiB", st.Size()>>30, err)
	}
}
