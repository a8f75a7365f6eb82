package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// writeInitrd makes the initial file system: guestd as /init, and the early modules by the order in
// which they are loaded. It is a newc cpio archive (kernel: Documentation/driver-api/early-userspace/
// buffer-format.rst), not compressed: under software emulation unpacking costs more than reading.
func writeInitrd(path, guestd, tree, release string) error {
	order, err := loadOrder(tree, release)
	if err != nil {
		return err
	}
	var c cpio
	for _, dir := range []string{"dev", "proc", "sys", "run", "newroot", "modules"} {
		c.add(dir, 0o040755, nil)
	}
	// The kernel opens it as standard input and output of init: character device 5, 1.
	c.addDevice("dev/console", 0o020600, 5, 1)
	init, err := os.ReadFile(guestd)
	if err != nil {
		return err
	}
	c.add("init", 0o100755, init)
	for i, file := range order {
		b, err := os.ReadFile(filepath.Join(tree, "usr/lib/modules", release, file))
		if err != nil {
			return err
		}
		c.add(fmt.Sprintf("modules/%02d-%s", i, filepath.Base(file)), 0o100644, b)
	}
	c.add("TRAILER!!!", 0, nil)
	return os.WriteFile(path, c.buf.Bytes(), 0o644)
}

// cpio is an archive in the making.
type cpio struct {
	buf   bytes.Buffer
	inode int
}

func (c *cpio) add(name string, mode int, data []byte) { c.entry(name, mode, data, 0, 0) }

func (c *cpio) addDevice(name string, mode, major, minor int) {
	c.entry(name, mode, nil, major, minor)
}

func (c *cpio) entry(name string, mode int, data []byte, major, minor int) {
	c.inode++
	fmt.Fprintf(&c.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0)
	c.buf.WriteString(name)
	c.buf.WriteByte(0)
	c.pad()
	c.buf.Write(data)
	c.pad()
}

func (c *cpio) pad() {
	for c.buf.Len()%4 != 0 {
		c.buf.WriteByte(0)
	}
}
