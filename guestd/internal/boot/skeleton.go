//go:build linux

package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// opened are folders of the image whose entries are mounted one by one, so that a folder of the host can
// stand among them.
var opened = []string{"/", "/opt"}

// skeleton makes the root at target. It is a small file system in memory that holds nothing but names: each
// folder of the image is mounted at its place, read-only, and what is empty there is a folder that a share
// of the host can be mounted in, at the same path as on the host. [Shares] makes the names read-only too.
func skeleton(dev, target string) error {
	const image = "/image"
	if err := os.MkdirAll(image, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(dev, image, "erofs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount the root from %s: %w", dev, err)
	}
	if err := unix.Mount("root", target, "tmpfs", unix.MS_NODEV, "mode=0755,size=1M,nr_inodes=4096"); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	for _, dir := range opened {
		if err := hang(image+dir, target+dir); err != nil {
			return err
		}
	}
	// What is mounted at its place holds the image.
	if err := unix.Unmount(image, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the root image: %w", err)
	}
	return nil
}

// hang gives a folder of the root what the same folder of the image has.
func hang(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("read the root image: %w", err)
	}
	for _, e := range entries {
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case e.Type()&os.ModeSymlink != 0:
			link, err := os.Readlink(src)
			if err == nil {
				err = os.Symlink(link, dst)
			}
			if err != nil {
				return fmt.Errorf("make the root: %w", err)
			}
		case e.IsDir():
			if err := os.Mkdir(dst, 0o755); err != nil {
				return fmt.Errorf("make the root: %w", err)
			}
			inside, err := os.ReadDir(src)
			if err != nil {
				return fmt.Errorf("read the root image: %w", err)
			}
			if len(inside) == 0 || slices.Contains(opened, "/"+e.Name()) {
				continue
			}
			if err := unix.Mount(src, dst, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("mount %s: %w", dst, err)
			}
		default:
			return fmt.Errorf("make the root: %s is neither a folder nor a link", e.Name())
		}
	}
	return nil
}
