//go:build unix

package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Free is the room for an ordinary user on the disk that holds path, in bytes: statfs(2).
func Free(path string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, fmt.Errorf("ask for the room at %s: %w", path, err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

func tooLarge(err error) bool { return errors.Is(err, unix.EFBIG) }

// makeSparse has nothing to do: holes are what a file has where nothing was written.
func makeSparse(*os.File) error { return nil }

// allocated counts blocks of 512 bytes: stat(2).
func allocated(_ string, st fs.FileInfo) int64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return int64(s.Blocks) * 512
	}
	return st.Size()
}
