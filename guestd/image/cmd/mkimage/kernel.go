package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// earlyModules are loaded before the root is there, so they lie in the initial file system; the first
// ones are wanted first. What they need comes with them.
var earlyModules = []string{"virtio_blk", "erofs", "virtio_net", "vmw_vsock_virtio_transport", "virtio_rng", "evdev", "button", "pvpanic-pci", "qemu_fw_cfg", "overlay", "virtio_balloon"}

// deadModules are kernel modules for hardware that no virtual machine of ours has.
var deadModules = []string{
	"drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/hv", "drivers/scsi", "drivers/xen", "drivers/net/ethernet", "drivers/net/hyperv",
	"drivers/net/wireless", "drivers/input/joystick", "drivers/video", "drivers/usb", "drivers/hid", "drivers/nvme", "drivers/platform", "drivers/ata", "drivers/firmware/efi",
	"drivers/iommu", "drivers/i2c", "drivers/ptp", "drivers/vfio", "drivers/uio", "drivers/vdpa", "drivers/vhost", "drivers/dax", "drivers/nvdimm", "drivers/acpi/apei",
	"sound", "net/sunrpc/xprtrdma", "net/rds", "net/smc", "net/tipc", "net/rxrpc", "fs/afs", "fs/ceph", "fs/gfs2", "fs/ocfs2", "fs/dlm", "fs/jfs", "fs/hfs", "fs/hfsplus", "fs/udf", "fs/ufs", "fs/minix", "fs/reiserfs", "fs/ntfs3", "fs/f2fs", "fs/bcachefs", "fs/orangefs",
}

// kernelFiles takes the kernel from the tree, trims its modules and unpacks them: decompressing xz
// costs seconds of a boot under software emulation, and the root's own compression is quicker.
// It returns what uname -r will say.
func kernelFiles(ctx context.Context, tree, out string) (string, error) {
	defer stage("kernel and its modules")()
	kernels, err := filepath.Glob(filepath.Join(tree+".boot", "vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return "", fmt.Errorf("the packages hold %d kernels; want one", len(kernels))
	}
	release := strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
	modules := filepath.Join(tree, "usr/lib/modules", release)
	for _, dir := range deadModules {
		if err := os.RemoveAll(filepath.Join(modules, "kernel", dir)); err != nil {
			return "", err
		}
	}
	var compressed []string
	err = filepath.WalkDir(modules, func(path string, d fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".ko.xz") {
			compressed = append(compressed, path)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	if len(compressed) > 0 {
		xz := exec.CommandContext(ctx, "xargs", "-n", "64", "-P", "2", "xz", "-d")
		xz.Stdin = strings.NewReader(strings.Join(compressed, "\n"))
		if msg, err := xz.CombinedOutput(); err != nil {
			return "", fmt.Errorf("unpack modules: %w: %s", err, msg)
		}
	}
	if msg, err := exec.CommandContext(ctx, "/usr/sbin/depmod", "-b", tree, release).CombinedOutput(); err != nil {
		return "", fmt.Errorf("depmod: %w: %s", err, msg)
	}
	return release, place(kernels[0], filepath.Join(out, "vmlinuz"))
}

// loadOrder lists the early modules' files below usr/lib/modules/RELEASE, each after what it needs.
// One that this kernel has built in, or has not at all, is left out.
func loadOrder(tree, release string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(tree, "usr/lib/modules", release, "modules.dep"))
	if err != nil {
		return nil, err
	}
	needs, byName := map[string][]string{}, map[string]string{}
	for line := range strings.Lines(string(b)) {
		file, rest, _ := strings.Cut(line, ":")
		needs[file] = strings.Fields(rest)
		byName[strings.TrimSuffix(filepath.Base(file), ".ko")] = file
	}
	var order []string
	done := map[string]bool{}
	var add func(file string)
	add = func(file string) {
		if done[file] {
			return
		}
		done[file] = true
		// modules.dep names all that a module needs, the deepest last.
		for i := len(needs[file]) - 1; i >= 0; i-- {
			add(needs[file][i])
		}
		order = append(order, file)
	}
	for _, name := range earlyModules {
		if file := byName[name]; file != "" {
			add(file)
		}
	}
	return order, nil
}
