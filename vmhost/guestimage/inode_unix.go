//go:build unix

package guestimage

import (
	"fmt"
	"os"
	"syscall"
)

func inode(st os.FileInfo) string {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("%d:%d", s.Dev, s.Ino)
	}
	return ""
}
