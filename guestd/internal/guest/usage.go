//go:build linux

package guest

import (
	"encoding/json"
	"log/slog"
	"os"

	"github.com/covedesk/cove/guestd/internal/boot"
	"github.com/covedesk/cove/guestd/internal/usage"
	"github.com/covedesk/cove/proxy"
	"golang.org/x/sys/unix"
)

// serveUsage answers what the guest uses: see protocol.ServiceUsage. Before the data disk is mounted it
// counts the one below.
func serveUsage(c proxy.Conn) {
	u, err := usage.Read(os.DirFS("/"))
	if err != nil {
		slog.Warn("count what is used", "err", err)
		return
	}
	u.Up = boot.SinceKernel()
	var disk unix.Statfs_t
	if unix.Statfs("/var", &disk) == nil {
		u.Disk.Total = int64(disk.Blocks) * disk.Bsize
		u.Disk.Used = int64(disk.Blocks-disk.Bfree) * disk.Bsize
	}
	json.NewEncoder(c).Encode(u)
	c.CloseWrite()
}
