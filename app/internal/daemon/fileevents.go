package daemon

import (
	"context"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
)

// eventsRetry is the pause before a connection for file events that ended is opened again; the guest
// refuses it until it has mounted the folders.
const eventsRetry = time.Second

// tellFileEvents has the guest replay what the host changes in the shared folders, until the machine ends.
func (v *vm) tellFileEvents() {
	if v.folders == nil || v.folders.fs == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-v.machine.Done()
		cancel()
	}()
	for ctx.Err() == nil {
		err := v.fileEvents(ctx)
		if ctx.Err() != nil {
			return
		}
		v.d.log.Debug("file events ended", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(eventsRetry):
		}
	}
}

func (v *vm) fileEvents(ctx context.Context) error {
	conn, err := v.Dial(ctx, protocol.ServiceFileEvents)
	if err != nil {
		return err
	}
	return v.folders.fs.Replay(ctx, conn)
}
