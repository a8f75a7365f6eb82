package settings

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// HostMemory is the host's memory in bytes: sysinfo(2).
func HostMemory() (int64, error) {
	var i unix.Sysinfo_t
	if err := unix.Sysinfo(&i); err != nil {
		return 0, fmt.Errorf("ask for the host's memory: %w", err)
	}
	return int64(i.Totalram) * int64(i.Unit), nil
}
