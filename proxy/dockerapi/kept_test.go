package dockerapi

import (
	"strings"
	"testing"
)

// What nothing has changed since the last snapshot is not asked again; what an event or a call may have changed is.
func TestASnapshotTakesOverWhatStillHolds(t *testing.T) {
	const list, info, ver = "GET /v1.56/images/json", "GET /v1.56/info", "GET /v1.56/version"
	for _, row := range []struct {
		says    string
		between func(p *played, b *bed)
		again   string // what is asked again, of the three
	}{
		{"nothing happened", func(*played, *bed) {}, ""},
		{"a container did something in itself", func(p *played, _ *bed) {
			p.emit("container", "exec_create: sh")
			p.emit("container", "health_status: healthy")
			p.emit("network", "create")
			p.emit("volume", "create")
		}, ""},
		{"a container was started", func(p *played, _ *bed) { p.emit("container", "start") }, info},
		{"a container was made", func(p *played, _ *bed) { p.emit("container", "create") }, list + info},
		{"an image was tagged", func(p *played, _ *bed) { p.emit("image", "tag") }, list + info},
		{"something of a new kind", func(p *played, _ *bed) { p.emit("pod", "create") }, list + info + ver},
		{"a new thing of a container", func(p *played, _ *bed) { p.emit("container", "migrate") }, list + info + ver},
		{"another engine", func(p *played, _ *bed) {
			p.mu.Lock()
			p.kept = nil
			p.mu.Unlock()
			p.emit("network", "create")
		}, list + info + ver},
		{"more events than the engine keeps", func(p *played, _ *bed) {
			for range keptEvents {
				p.emit("network", "create")
			}
		}, list + info + ver},
		{"a call that may alter images", func(_ *played, b *bed) { b.get("POST /v1.56/images/load") }, list + info + ver},
		{"a call on a container", func(_ *played, b *bed) { b.get("POST /v1.56/containers/web/restart") }, ""},
	} {
		p := play(t)
		p.emit("network", "create")
		b := newBed(t, p.dial)
		b.sleep()
		b.rise()
		row.between(p, b)
		asked := map[string]int{list: p.asked(list), info: p.asked(info), ver: p.asked(ver)}
		const always = "GET /v1.56/containers/json"
		before := p.asked(always)
		p.mu.Lock()
		p.things["/images/json"] = `[]` // nobody said so: only who asks again knows
		p.mu.Unlock()
		b.sleep()
		for call, n := range asked {
			want := n
			if strings.Contains(row.again, call) {
				want++
			}
			if got := p.asked(call); got != want {
				t.Errorf("%s: %s was asked %d times more; want %d", row.says, call, got-n, want-n)
			}
		}
		if p.asked(always) != before+1 {
			t.Errorf("%s: the containers were not asked for again", row.says)
		}
		resp, body := b.get(list)
		if again := strings.TrimSpace(body) == "[]"; resp.Header.Get(snapshotHeader) == "" || again != strings.Contains(row.again, list) {
			t.Errorf("%s: the sleeping engine's images are %q; want the new ones: %t", row.says, body, strings.Contains(row.again, list))
		}
	}
}

// What is asked ahead is not asked again.
func TestPrepare(t *testing.T) {
	p := play(t)
	p.emit("network", "create")
	b := newBed(t, p.dial)
	b.get("GET /v1.45/_ping") // what a client speaks
	if err := b.Prepare(t.Context(), b.engine); err != nil {
		t.Fatal("Prepare:", err)
	}
	long := []string{"GET /v1.45/images/json", "GET /v1.56/images/json", "GET /v1.56/images/json?manifests=1", "GET /v1.56/info", "GET /v1.56/version", "GET /v1.56/images/busybox:latest/json"}
	for _, call := range long {
		if n := p.asked(call); n != 1 {
			t.Errorf("Prepare asks %s %d times; want once", call, n)
		}
	}
	if n := p.asked("GET /v1.56/containers/json"); n != 0 {
		t.Errorf("Prepare asks for the containers, which are asked for in any case")
	}
	if resp, _ := b.get("GET /info"); resp.Header.Get(snapshotHeader) != "" {
		t.Error("an engine that runs is answered for by what was asked ahead")
	}
	b.sleep()
	for _, call := range long {
		if n := p.asked(call); n != 1 {
			t.Errorf("after the snapshot %s was asked %d times; want once", call, n)
		}
		if resp, _ := b.get(call); resp.StatusCode != 200 || resp.Header.Get(snapshotHeader) == "" {
			t.Errorf("%s of an engine that sleeps = %s; want it from the snapshot", call, resp.Status)
		}
	}
}
