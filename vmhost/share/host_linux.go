package share

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxName is NAME_MAX of every file system that Linux has.
const maxName = 255

// openBeneath opens one name in a folder. Nothing but a file of that folder comes of it: no link is
// followed (O_PATH with O_NOFOLLOW gives the link itself), and no `..` or absolute path leads out.
func openBeneath(dir int, name string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC,
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS,
	}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		// EAGAIN: something on the host was renamed meanwhile, and the kernel could not be sure.
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		return fd, err
	}
}

// again opens what an O_PATH descriptor is, for reading or writing. The name in /proc is the descriptor's
// own: no path of the host is walked.
func again(fd, flags int) (int, error) {
	for {
		n, err := unix.Open(procPath(fd), flags|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// procPath names a descriptor for system calls that take no O_PATH descriptor.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

func stat(fd int) (st unix.Statx_t, err error) {
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, statMask, &st)
	return st, err
}

// checkName refuses what is not one name. The guest's kernel never sends it, a hostile one may.
func checkName(name string) error {
	switch {
	case len(name) > maxName:
		return unix.ENAMETOOLONG
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return unix.EINVAL
	}
	return nil
}
