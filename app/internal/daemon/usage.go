package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
)

// usagePatience bounds one look at what the guest uses: a guest under load takes a second.
const usagePatience = 30 * time.Second

// usage is what the guest uses now: see protocol.ServiceUsage.
func usage(ctx context.Context, guest proxy.Dialer) (protocol.Usage, error) {
	ctx, cancel := context.WithTimeout(ctx, usagePatience)
	defer cancel()
	var u protocol.Usage
	conn, err := guest.Dial(ctx, protocol.ServiceUsage)
	if err != nil {
		return u, fmt.Errorf("ask the guest what it uses: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := json.NewDecoder(io.LimitReader(conn, protocol.MaxUsage)).Decode(&u); err != nil {
		return u, fmt.Errorf("ask the guest what it uses: %w", err)
	}
	return u, nil
}
