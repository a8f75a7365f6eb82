//go:build e2e && linux

package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const mib = 1 << 20

// taken is what the data disk takes on the host, in bytes: stat(2).
func taken(t *testing.T) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(world.home, "vm", "default", "data.raw"), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// settled syncs the guest and gives what its disk takes.
func settled(t *testing.T) int64 {
	t.Helper()
	output(t, cove("shell", "--", "sync"))
	return taken(t)
}

// fat is an image whose one file has so many bytes. It does not take long to compress, and has no zeros.
func fat(t *testing.T, size int) *bytes.Buffer {
	t.Helper()
	piece := make([]byte, 16<<10) // less than gzip looks back
	rand.Read(piece)
	buf := new(bytes.Buffer)
	w := tar.NewWriter(buf)
	w.WriteHeader(&tar.Header{Name: "fat", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(size)})
	w.Write(bytes.Repeat(piece, size/len(piece)))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf
}

func TestZ14WhatIsDeletedComesBackToTheHost(t *testing.T) {
	const size = 64 * mib
	back := func(t *testing.T, from int64) {
		t.Helper()
		begun := time.Now()
		eventually(t, "the blocks of what was deleted", func() bool { return taken(t) <= from-size*9/10 })
		t.Logf("%d MiB came back %.1f s after the delete", (from-taken(t))/mib, time.Since(begun).Seconds())
	}
	output(t, docker("run", "--name", "fat", image, "dd", "if=/dev/urandom", "of=/fat", "bs=1M", "count=64"))
	from := settled(t)
	output(t, docker("rm", "fat"))
	back(t, from)

	load := docker("import", "-", "cove/fat")
	load.Stdin = fat(t, size)
	output(t, load)
	from = settled(t)
	output(t, docker("rmi", "cove/fat"))
	back(t, from)
}

func TestZ15TheDiskIsSeenAndGrowsWhileItIsUsed(t *testing.T) {
	keep(t)
	var u struct {
		Path                      string
		Size, Allocated, HostFree int64
		Guest                     struct{ Size, Used, Free int64 }
		Engine                    []struct {
			Kind                             string
			Count, Active, Size, Reclaimable int64
		}
	}
	look := func() {
		t.Helper()
		text := output(t, cove("disk", "usage", "--json"))
		if err := json.Unmarshal([]byte(text), &u); err != nil {
			t.Fatalf("cove disk usage --json: %v\n%s", err, text)
		}
	}
	look()
	before := u
	kinds := map[string]int64{}
	for _, k := range u.Engine {
		kinds[k.Kind] = k.Count
	}
	if kinds["images"] == 0 || kinds["volumes"] == 0 || u.Guest.Used == 0 || u.Guest.Size < u.Size/10*9 || u.Allocated == 0 || u.HostFree == 0 {
		t.Errorf("cove disk usage = %+v; want the image and the volume that there are, on a file system as large as its disk", u)
	}
	contains(t, "cove disk usage", output(t, cove("disk", "usage")), "images", "volumes", "RECLAIMABLE", "on the host", u.Path)

	output(t, docker("run", "-d", "--name", "lives", image, "sleep", "1d"))
	defer docker("rm", "-f", "lives").Run()
	if said := output(t, cove("config", "set", "disk", "96GiB")); strings.Contains(said, "restart") {
		t.Errorf("cove config set disk 96GiB says %q; want no restart", said)
	}
	look()
	if u.Size != 96<<30 || u.Guest.Size < 90<<30 || u.Allocated > before.Allocated+512*mib {
		t.Errorf("after cove config set disk 96GiB: %+v; want 96 GiB in the guest as well, and not on the host", u)
	}
	if got := output(t, docker("inspect", "-f", "{{.State.Running}} {{.RestartCount}}", "lives")); got != "true 0\n" {
		t.Errorf("a container that ran while the disk grew: %q", got)
	}
	out, _ := failure(t, cove("config", "set", "disk", "32GiB"))
	contains(t, "a smaller disk", out, "96GiB already", "cannot shrink")
	contains(t, "cove disk compact", output(t, cove("disk", "compact")), "came back to the host")
	kept(t)
}
