package daemon

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// giveBackEvery is how often coved looks at what it holds: a look costs microseconds.
	giveBackEvery = 20 * time.Second
	// giveBackOver is what may stay: a running coved without traffic holds about half of it.
	giveBackOver = 24 << 20
)

// giveBack returns memory to the system after a burst of connections. Go does it by itself too, but only
// as new work comes, and an idle daemon has none.
func giveBack(ctx context.Context) {
	held := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	t := time.NewTicker(giveBackEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		metrics.Read(held)
		if held[0].Value.Uint64()-held[1].Value.Uint64() > giveBackOver {
			debug.FreeOSMemory()
		}
	}
}
