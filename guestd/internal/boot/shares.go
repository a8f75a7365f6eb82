//go:build linux

package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/covedesk/cove/guestd/protocol"
	"golang.org/x/sys/unix"
)

// SharesDir is where all shares are. The folder around it is for root alone: containers get them by the paths
// of the host.
const SharesDir = RunDir + "/shares/all"

// Shares mounts the host's folders, each at its path on the host, and makes the root read-only whatever
// comes of that. Its error names every folder that could not be mounted.
//
// Device nodes on a share mean nothing (nodev). Programs with setuid work, as they do for containers of a
// local engine; on the host such a file is an ordinary one of the user's.
func Shares(shares []protocol.Share) error {
	return errors.Join(mountShares(shares), readOnlyRoot())
}

func readOnlyRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("make the root read-only: %w", err)
	}
	return nil
}

func mountShares(shares []protocol.Share) error {
	if len(shares) == 0 {
		return nil
	}
	if err := os.MkdirAll(SharesDir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(protocol.ShareTag, SharesDir, "virtiofs", unix.MS_NODEV|unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount the host's folders: %w", err)
	}
	var errs []error
	for i, s := range shares {
		for _, path := range append([]string{s.Path}, s.Names...) {
			if err := bindShare(filepath.Join(SharesDir, strconv.Itoa(i)), path, s.ReadOnly); err != nil {
				errs = append(errs, fmt.Errorf("mount the host's %s: %w", path, err))
			}
		}
	}
	return errors.Join(errs...)
}

func bindShare(from, path string, readOnly bool) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return errors.New("not an absolute path")
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	// A link on the way (/var/run) would lead the mount to another place.
	if real, err := filepath.EvalSymlinks(path); err != nil || real != path {
		return fmt.Errorf("the VM has a link there, to %s (%v)", real, err)
	}
	if err := unix.Mount(from, path, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if readOnly {
		return unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOATIME, "")
	}
	return nil
}
