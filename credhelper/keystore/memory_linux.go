package keystore

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// memoryFolder is the user's folder in memory: XDG_RUNTIME_DIR, or where systemd puts it for those that
// were started without the variable (cron, su). It goes at logout. The kernel's keyring would do too, but
// containers are mostly denied it, and it outlives the logout.
func memoryFolder() (string, error) {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = fmt.Sprintf("/run/user/%d", os.Getuid())
	}
	none := func(why string) error {
		return &Problem{
			Why:    fmt.Sprintf("A passphrase needs a folder in memory that is this user's alone, and %s %s.", dir, why),
			Remedy: "Log in as this user in a session of its own, or use the file without a passphrase: docker-credential-cove use file --no-passphrase.",
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", none("is not there")
	}
	if int(st.Uid) != os.Getuid() || st.Mode&0o077 != 0 || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return "", none("is open to others")
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC {
		return "", none("is on a disk")
	}
	return dir, nil
}
