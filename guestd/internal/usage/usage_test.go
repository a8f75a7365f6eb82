package usage

import (
	"maps"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
)

// idle is a guest without containers.
func idle() fstest.MapFS {
	return fstest.MapFS{
		"proc/net/dev": file("Inter-|   Receive                                                |  Transmit\n" +
			" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n" +
			"    lo: 999 1 0 0 0 0 0 0 999 1 0 0 0 0 0 0\n" +
			"  eth0: 700 9 0 0 0 0 0 0 55 3 0 0 0 0 0 0\n"),
		"proc/meminfo": file("MemTotal:        1000000 kB\nMemFree:          400000 kB\nMemAvailable:     700000 kB\nBuffers:           10000 kB\n" +
			"Cached:           300000 kB\nShmem:             50000 kB\nSwapTotal:       1048572 kB\nSwapFree:        1000000 kB\nSReclaimable:      40000 kB\nHugePages_Total:       0\n"),
		"sys/fs/cgroup/cpu.stat":                       file("usage_usec 99000000\n"),
		"sys/fs/cgroup/cove/cpu.stat":                  file("usage_usec 88000000\n"),
		"sys/fs/cgroup/cove/dockerd/cpu.stat":          file("usage_usec 77000000\n"),
		"sys/fs/cgroup/init.scope/cpu.stat":            file("usage_usec 66000000\n"),
		"sys/fs/cgroup/cove/shell/cgroup.events":       file("populated 1\nfrozen 0\n"),
		"sys/fs/cgroup/docker/cpu.stat":                file("usage_usec 0\nuser_usec 0\n"),
		"sys/fs/cgroup/docker/cgroup.subtree_control":  file("cpu memory\n"),
		"sys/fs/cgroup/cove/dockerd/memory.swap.event": file(""),
	}
}

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func with(more fstest.MapFS) fstest.MapFS {
	all := idle()
	maps.Copy(all, more)
	return all
}

var (
	one = "sys/fs/cgroup/docker/" + strings.Repeat("a1", 32)
	two = "sys/fs/cgroup/team/" + strings.Repeat("0b", 32)
)

func TestRead(t *testing.T) {
	for _, row := range []struct {
		says       string
		root       fstest.MapFS
		containers int
		cpu        time.Duration
		net, out   int64
	}{
		{"a guest without containers has none, whatever the engine itself uses", idle(), 0, 0, 0, 755},
		{"a container counts once, its time is its parent's, and what it runs inside is it",
			with(fstest.MapFS{
				"sys/fs/cgroup/docker/cpu.stat":                               file("usage_usec 2500\n"),
				one + "/cgroup.events":                                        file("populated 1\nfrozen 0\n"),
				one + "/cpu.stat":                                             file("usage_usec 1500\n"),
				one + "/docker/" + strings.Repeat("c", 64) + "/cpu.stat":      file("usage_usec 500\n"),
				one + "/docker/" + strings.Repeat("c", 64) + "/cgroup.events": file("populated 1\n"),
			}), 1, 2500 * time.Microsecond, 0, 755},
		{"a container with a parent of its own counts beside the others",
			with(fstest.MapFS{
				"sys/fs/cgroup/docker/cpu.stat": file("usage_usec 1000\n"), one + "/cgroup.events": file("populated 1\n"),
				"sys/fs/cgroup/team/cpu.stat": file("usage_usec 4000\n"), two + "/cgroup.events": file("populated 1\n"),
			}), 2, 5 * time.Millisecond, 0, 755},
		{"a group that a container left behind is no container",
			with(fstest.MapFS{"sys/fs/cgroup/docker/cpu.stat": file("usage_usec 7\n"), one + "/cgroup.events": file("populated 0\n")}), 0, 7 * time.Microsecond, 0, 755},
		{"a build uses processors and is no container",
			with(fstest.MapFS{"sys/fs/cgroup/docker/cpu.stat": file("usage_usec 9\n"), "sys/fs/cgroup/docker/buildkit/xz1/cgroup.events": file("populated 1\n")}), 0, 9 * time.Microsecond, 0, 755},
		{"traffic of containers is that of their interfaces, both ways, and of no bridge",
			with(fstest.MapFS{"proc/net/dev": file("docker0: 5000 1 0 0 0 0 0 0 5000 1 0 0 0 0 0 0\nveth1a: 10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n  vethff: 3 1 0 0 0 0 0 0 4 1 0 0 0 0 0 0\n")}), 0, 0, 37, 0},
	} {
		u, err := Read(row.root)
		if err != nil {
			t.Errorf("%s: %v", row.says, err)
		}
		if u.Containers != row.containers || u.ContainersCPU != row.cpu || u.ContainersNet != row.net || u.ExternalNet != row.out {
			t.Errorf("%s: Read = %d containers, %s, %d and %d bytes; want %d, %s, %d, %d", row.says, u.Containers, u.ContainersCPU, u.ContainersNet, u.ExternalNet, row.containers, row.cpu, row.net, row.out)
		}
	}
}

func TestMemory(t *testing.T) {
	u, err := Read(idle())
	want := protocol.UsageMemory{Total: 1000000 << 10, Free: 400000 << 10, Available: 700000 << 10, Cached: 300000 << 10, Used: 300000 << 10, SwapTotal: 1048572 << 10, SwapUsed: 48572 << 10}
	if err != nil || u.Memory != want {
		t.Errorf("Read = %+v, %v; want %+v: what lies in tmpfs is used, not cached", u.Memory, err, want)
	}
}

func TestReadSaysWhatItCannotSee(t *testing.T) {
	for _, name := range []string{"proc/meminfo", "proc/net/dev"} {
		root := idle()
		delete(root, name)
		if _, err := Read(root); err == nil {
			t.Errorf("Read without %s = nil; want an error", name)
		}
	}
}
