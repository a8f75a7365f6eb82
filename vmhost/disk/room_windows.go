package disk

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/windows"
)

// Free is the room for the user on the disk that holds path, in bytes: GetDiskFreeSpaceEx.
func Free(path string) (int64, error) {
	p, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, fmt.Errorf("ask for the room at %s: %w", path, err)
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(p, &free, nil, nil); err != nil {
		return 0, fmt.Errorf("ask for the room at %s: %w", path, err)
	}
	return int64(free), nil
}

func full(err error) bool { return errors.Is(err, windows.ERROR_DISK_FULL) }

func allocated(_ string, st fs.FileInfo) int64 { return st.Size() }
