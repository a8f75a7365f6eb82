//go:build e2e && linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The host's disk fills up while a container writes: nothing may be lost, and nobody has to start anything.
func TestZ16AFullHostPausesTheVMUntilThereIsRoom(t *testing.T) {
	folder := filepath.Join(world.work, "tight")
	if !mounted(folder) {
		t.Skip("only root can make a file system that is soon full: packaging/e2e.sh")
	}
	room := func() int64 {
		var s syscall.Statfs_t
		if err := syscall.Statfs(folder, &s); err != nil {
			t.Fatal(err)
		}
		return int64(s.Bavail) * s.Bsize
	}
	notice := func(parts ...string) func() bool {
		return func() bool {
			out, err := cove("status").Output()
			for _, p := range parts {
				if err != nil || !strings.Contains(string(out), p) {
					return false
				}
			}
			return true
		}
	}
	stopped(t)
	output(t, cove("config", "set", "data-folder", folder))
	defer func() { // as it was
		output(t, cove("stop"))
		output(t, cove("config", "unset", "data-folder"))
	}()
	output(t, cove("start"))
	eventually(t, "a warning ahead", notice("nearly full", "Free about"))
	root, err := testRoot()
	if err != nil {
		t.Fatal(err)
	}
	load := docker("import", "--change", `CMD ["/bin/sh"]`, "-", image)
	load.Stdin = root
	output(t, load)
	c := followClock(t)
	c.right(t, "the right time before", time.Time{})
	shared := t.TempDir()
	output(t, docker("run", "-d", "--name", "holder", "-v", shared+":/shared", image, "sh", "-c", "exec 3>/shared/open; while sleep 1; do date >&3; done"))

	ballast := filepath.Join(folder, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, room()-16*mib); err != nil {
		t.Fatal(err)
	}
	f.Close()
	writer := output(t, docker("run", "-d", "-v", "kept:/data", image, "sh", "-c",
		"dd if=/dev/urandom of=/data/x bs=1M count=64 && sha256sum </data/x >/data/sum && sync"))
	eventually(t, "a VM that is paused, and how much to free", notice("is full, so the VM is paused", "Free about 2"))
	paused := time.Now()
	if p := phase(); p != "running" {
		t.Errorf("the phase of a VM that waits for room is %s; want running", p)
	}
	one(t, "qemu-system")
	time.Sleep(5 * time.Second) // its clock stands still meanwhile
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	freed := time.Now()
	eventually(t, "a VM that goes on", notice("the VM goes on"))
	t.Logf("goes on %.1f s after there was room", time.Since(freed).Seconds())
	c.right(t, "the right time after a pause", paused.Add(5*time.Second))
	if _, _, back := c.state(); back > 0 {
		t.Errorf("the guest's clock stepped back by %s", back)
	}
	if got := output(t, docker("wait", strings.TrimSpace(writer))); got != "0\n" {
		t.Errorf("the writer's exit status is %q; want 0", got)
	}
	sums := strings.Fields(output(t, docker("run", "--rm", "-v", "kept:/data", image, "sh", "-c", "cat /data/sum; sha256sum </data/x")))
	if len(sums) != 4 || sums[0] != sums[2] {
		t.Errorf("what was written over the pause has the sums %q; want the same twice", sums)
	}
	lines := func() int {
		b, err := os.ReadFile(filepath.Join(shared, "open"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(b), "\n")
	}
	was := lines()
	eventually(t, "more in a file on a share that was open over the pause", func() bool { return lines() > was })
	docker("kill", "clock", "holder").Run()
	output(t, cove("stop"))
	if out, err := exec.Command("e2fsck", "-fn", filepath.Join(folder, "data.raw")).CombinedOutput(); err != nil {
		t.Errorf("e2fsck -fn after a full disk: %v\n%s", err, out)
	}
}

// mounted says whether something is mounted at a folder.
func mounted(folder string) bool {
	var in, above syscall.Stat_t
	return syscall.Stat(folder, &in) == nil && syscall.Stat(filepath.Dir(folder), &above) == nil && in.Dev != above.Dev
}
