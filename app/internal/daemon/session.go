package daemon

import (
	"context"
	"time"
)

// sessionRetry is the pause before a session that ended is opened again; the guest refuses some until its
// boot is far enough.
const sessionRetry = time.Second

// keep keeps a session with the guest open, under a name for the log, until the machine ends. Only the host
// dials, so it is for us to open what the guest needs.
func (v *vm) keep(name string, session func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-v.machine.Done()
		cancel()
	}()
	for ctx.Err() == nil {
		err := session(ctx)
		v.mu.Lock()
		stops, rests := v.asked, v.resting
		v.mu.Unlock()
		if ctx.Err() != nil || stops {
			return
		}
		if !rests {
			v.d.log.Info("session ended", "name", name, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(sessionRetry):
		}
	}
}
