package settings

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// HostMemory is the host's memory in bytes: sysctl(3), hw.memsize.
func HostMemory() (int64, error) {
	n, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0, fmt.Errorf("ask for the host's memory: %w", err)
	}
	return int64(n), nil
}
