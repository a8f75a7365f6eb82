package daemon

import (
	"context"

	"github.com/covedesk/cove/guestd/protocol"
)

// fileEvents has the guest replay what the host changes in the shared folders.
func (v *vm) fileEvents(ctx context.Context) error {
	conn, err := v.Dial(ctx, protocol.ServiceFileEvents)
	if err != nil {
		return err
	}
	return v.folders.fs.Replay(ctx, conn)
}
