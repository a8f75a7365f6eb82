//go:build unix

package dockerconfig

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// tryLock locks the folder itself, which leaves no file behind in it. Where a file system cannot do that
// there is no lock, as there is none against docker.
func tryLock(dir string) (unlock func(), taken bool, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, false, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK || err == unix.EINTR {
		f.Close()
		return nil, true, nil
	}
	return func() { f.Close() }, false, nil
}

// keepOwner gives a file that root replaced, as with sudo, back to whose it was.
func keepOwner(path string, was os.FileInfo) error {
	st, is := was.Sys().(*syscall.Stat_t)
	if !is || os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, int(st.Uid), int(st.Gid))
}

// OpenToOthers says whether other users can read or write config.json.
func (d Docker) OpenToOthers() (bool, error) {
	st, err := os.Stat(d.Path())
	if err != nil {
		return false, ignoreNone(err)
	}
	return st.Mode().Perm()&0o066 != 0, nil
}
