//go:build linux

package guest

import (
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// syncDisks writes all to the disks, and then, if it is to, gives up what the kernel keeps of files: what is used
// now is not among it.
func syncDisks(forget bool) {
	unix.Sync()
	if !forget {
		return
	}
	// Documentation/admin-guide/sysctl/vm.rst: 1 is the page cache.
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0); err != nil {
		slog.Warn("give up what is kept of files", "err", err)
	}
}
