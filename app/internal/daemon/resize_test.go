//go:build unix

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/fakevm"
)

func TestNextGrant(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for _, row := range []struct {
		says                       string
		now, want, available, next int64
	}{
		{"more is given at once", 2 * gib, 4 * gib, 10 * mib, 4 * gib},
		{"what is there already stays", 2 * gib, 2 * gib, 10 * mib, 2 * gib},
		{"less is taken in steps", 4 * gib, 2 * gib, 3 * gib, 4*gib - 64*mib},
		{"the last step is as long as it has to be", 2*gib + 5*mib, 2 * gib, 3 * gib, 2 * gib},
		{"a guest that uses all it has keeps it", 4 * gib, 2 * gib, 100 * mib, 4 * gib},
		{"what is taken leaves it something to spare", 4 * gib, 2 * gib, 191 * mib, 4 * gib},
		{"and no more than that", 4 * gib, 2 * gib, 192 * mib, 4*gib - 64*mib},
	} {
		if got := nextGrant(row.now, row.want, row.available); got != row.next {
			t.Errorf("%s: nextGrant(%d, %d, %d MiB) = %d; want %d", row.says, row.now/mib, row.want/mib, row.available/mib, got/mib, row.next/mib)
		}
	}
}

func TestLedgerAddsUp(t *testing.T) {
	m := ledger(protocol.UsageMemory{Total: 900, Used: 500, Cached: 100, Free: 300, Available: 350, SwapTotal: 40, SwapUsed: 4}, vmhost.Memory{Size: 1000, Granted: 800, Resident: 450})
	want := api.Memory{Size: 1000, Used: 400, Cached: 100, Free: 300, Withheld: 200, SwapTotal: 40, SwapUsed: 4, Resident: 450, GivenBack: 550}
	if m != want || m.Used+m.Cached+m.Free+m.Withheld != m.Size {
		t.Errorf("ledger = %+v; want %+v", m, want)
	}
}

// busy is a guest in which two containers run.
func busy(c proxy.Conn) {
	json.NewEncoder(c).Encode(protocol.Usage{Containers: 2, Memory: protocol.UsageMemory{Total: 2 << 30, Free: 1 << 30, Available: 1 << 30}})
	c.CloseWrite()
}

func TestASettingHoldsAtOnceWhereItCan(t *testing.T) {
	w := newWorld(t, &fakevm.Driver{Services: map[string]transport.Handler{protocol.ServiceUsage: busy}})
	ctx := context.Background()
	set := func(key, value string, dry bool) api.SettingChange {
		t.Helper()
		c, err := w.Set(ctx, key, value, dry)
		if err != nil {
			t.Fatalf("Set(%s, %s) = %v", key, value, err)
		}
		return c
	}
	if c := set("memory", "1GiB", false); c.Restart || c.Stops != 0 {
		t.Errorf("Set = %+v without an engine; want nothing to restart", c)
	}
	if err := w.Start(ctx); err != nil {
		t.Fatal("Start:", err)
	}
	if c := set("cpus", "1", true); !c.DryRun || c.Restart != (c.Before != "1") || c.Restart && c.Stops != 2 {
		t.Errorf("Set(cpus, 1) = %+v in a dry run; want a restart that stops 2 containers", c)
	}
	if c := set("memory", "600MiB", true); c.Restart || c.Stops != 0 || c.Note == "" {
		t.Errorf("Set(memory, 600MiB) = %+v in a dry run; want no restart, and how it goes", c)
	}
	granted := func() int64 {
		m, err := w.driver.Machine().Memory(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return m.Granted
	}
	if c := set("memory", "1GiB", true); c.Restart || c.Note != "" || granted() != 1<<30 {
		t.Errorf("Set(memory, 1GiB) = %+v; want nothing, and dry runs to change nothing", c)
	}
	if c := set("memory", "960MiB", false); c.Restart {
		t.Errorf("Set(memory, 960MiB) = %+v; want no restart", c)
	}
	w.eventually(t, "the balloon takes memory", func() bool { return granted() == 960<<20 })
	if m, err := w.Memory(ctx); err != nil || m.Size != 1<<30 || m.Withheld != 64<<20 {
		t.Errorf("Memory = %+v, %v; want 64 MiB withheld of 1 GiB", m, err)
	}
	if c, err := w.Unset(ctx, "memory", true); err != nil || !c.Restart || c.Stops != 2 {
		t.Errorf("Unset(memory) = %+v, %v; want a restart that stops 2 containers, for more than the VM was started with", c, err)
	}
	if c := set("memory", "1GiB", false); c.Restart {
		t.Errorf("Set(memory, 1GiB) = %+v; want no restart", c)
	}
	w.eventually(t, "the balloon gives it again", func() bool { return granted() == 1<<30 })
}

func TestSwapFollowsItsSetting(t *testing.T) {
	w := newWorld(t, &fakevm.Driver{})
	ctx := context.Background()
	if err := w.Start(ctx); err != nil {
		t.Fatal("Start:", err)
	}
	total := func() int64 {
		m, err := w.Memory(ctx)
		if err != nil {
			t.Fatal("Memory:", err)
		}
		return m.SwapTotal
	}
	w.eventually(t, "the swap that is the default", func() bool { return total() == 1<<30 })
	if c, err := w.Set(ctx, "swap", "0", true); err != nil || c.Restart || total() != 1<<30 {
		t.Errorf("Set(swap, 0) = %+v, %v in a dry run, and there are %d of it; want no restart and no change", c, err, total())
	}
	if c, err := w.Set(ctx, "swap", "0", false); err != nil || c.Restart || c.Note != "" || total() != 0 {
		t.Errorf("Set(swap, 0) = %+v, %v, and there are %d of it; want none", c, err, total())
	}
}

func TestSwapThatCannotBeMadeIsSaid(t *testing.T) {
	refuse := func(c proxy.Conn) {
		json.NewDecoder(c).Decode(new(protocol.SwapRequest))
		json.NewEncoder(c).Encode(protocol.SwapAnswer{Error: "the data disk has 1 MiB free"})
		c.CloseWrite()
	}
	w := newWorld(t, &fakevm.Driver{Services: map[string]transport.Handler{protocol.ServiceSwap: refuse}})
	if err := w.Start(context.Background()); err != nil {
		t.Fatal("Start:", err)
	}
	w.eventually(t, "a notice of the swap", func() bool {
		s, err := w.Status(context.Background())
		return err == nil && len(s.Notices) == 1 && strings.Contains(s.Notices[0].Text, "the data disk has 1 MiB free")
	})
	if c, err := w.Set(context.Background(), "swap", "2GiB", false); err != nil || !strings.Contains(c.Note, "the data disk has 1 MiB free") {
		t.Errorf("Set(swap) = %+v, %v; want why it is not so", c, err)
	}
}

func TestMemoryOfNoVM(t *testing.T) {
	w := newWorld(t, &fakevm.Driver{})
	var e *api.Error
	if _, err := w.Memory(context.Background()); !errors.As(err, &e) || e.Cause != api.CauseNotRunning {
		t.Errorf("Memory = %v; want %s", err, api.CauseNotRunning)
	}
}
