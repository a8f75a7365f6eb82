//go:build linux

package guest

import (
	"bufio"
	"encoding/json"
	"log/slog"

	"github.com/covedesk/cove/guestd/internal/boot"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
)

// serveSwap changes the swap: see protocol.ServiceSwap.
func (g *Guest) serveSwap(c proxy.Conn) {
	line, err := bufio.NewReaderSize(c, 4096).ReadSlice('\n')
	var req protocol.SwapRequest
	if err != nil || json.Unmarshal(line, &req) != nil {
		return
	}
	var a protocol.SwapAnswer
	if err := boot.Swap(g.reaper, req.Size); err != nil {
		slog.Warn("swap", "size", req.Size, "err", err)
		a.Error = err.Error()
	}
	json.NewEncoder(c).Encode(a)
	c.CloseWrite()
}
