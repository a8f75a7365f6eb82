//go:build e2e && linux

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/covedesk/cove/app/api"
)

func memoryNow(t *testing.T) api.Memory {
	t.Helper()
	var m api.Memory
	if err := json.Unmarshal([]byte(output(t, cove("status", "--memory", "--json"))), &m); err != nil {
		t.Fatal("cove status --memory --json:", err)
	}
	if m.Used+m.Cached+m.Free+m.Withheld != m.Size || m.Resident+m.GivenBack != m.Size {
		t.Errorf("%+v does not add up", m)
	}
	return m
}

// uses runs a container that uses so many MiB of memory or of files, and returns when it does.
func uses(t *testing.T, name, what, mib string) {
	t.Helper()
	output(t, docker("run", "-d", "--name", name, image, "probe", "use", what, mib))
	t.Cleanup(func() { docker("rm", "-f", name).Run() })
	eventually(t, name+" uses it", func() bool { return strings.Contains(output(t, docker("logs", name)), "in use") })
}

func inMiB(bytes int64) string { return fmt.Sprintf("%dMiB", bytes/mib) }

func TestMemoryOfAContainerComesBack(t *testing.T) {
	before := memoryNow(t)
	uses(t, "hungry", "memory", "512")
	at := memoryNow(t)
	if at.Resident < before.Resident+400*mib || at.Used < before.Used+400*mib {
		t.Errorf("memory %+v while a container uses 512 MiB, and %+v before; want it seen", at, before)
	}
	output(t, docker("rm", "-f", "hungry"))
	eventually(t, "the host has the memory again", func() bool {
		at = memoryNow(t)
		return at.Resident < before.Resident+max(before.Resident/10, 64*mib)
	})
	contains(t, "cove status --memory", output(t, cove("status", "--memory")), "used", "cached", "free", "swap", "host", "given back")
}

func TestMemoryOfFilesThatNobodyUsesComesBack(t *testing.T) {
	before := memoryNow(t)
	uses(t, "reader", "files", "256") // and it runs on
	at := memoryNow(t)
	if at.Cached < before.Cached+200*mib {
		t.Skipf("the guest keeps %d MiB of files after 256 were read: it gave them up already", at.Cached/mib)
	}
	eventually(t, "the host has what was kept of the files", func() bool {
		at = memoryNow(t)
		return at.Cached < before.Cached+64*mib && at.Resident < before.Resident+max(before.Resident/10, 96*mib)
	})
	if out := output(t, docker("exec", "reader", "sh", "-c", "wc -c < /used")); strings.TrimSpace(out) != "268435456" {
		t.Errorf("the file has %s bytes", out)
	}
}

func TestMemorySettingHoldsAtOnce(t *testing.T) {
	before := memoryNow(t)
	if before.Size < 1<<30 {
		t.Skip("the VM is too small to take something of it")
	}
	defer func() { output(t, cove("config", "unset", "memory")) }()
	value := inMiB(before.Size - 256*mib)
	out := output(t, cove("config", "set", "memory", value, "--dry-run"))
	contains(t, "a dry run", out, "would be", "Nothing would be restarted")
	if at := memoryNow(t); at.Withheld != 0 || strings.Contains(output(t, cove("config", "get", "memory")), value) {
		t.Errorf("memory %+v after a dry run; want no change", at)
	}
	uses(t, "bystander", "memory", "1")
	out = output(t, cove("config", "set", "memory", inMiB(before.Size+256*mib), "--dry-run"))
	contains(t, "a dry run for more than the VM was started with", out, "after `cove restart`, which stops", "running container")
	output(t, cove("config", "set", "memory", value))
	eventually(t, "the guest does with less", func() bool { return memoryNow(t).Withheld == 256*mib })
	output(t, docker("run", "--rm", image, "true"))
	output(t, cove("config", "set", "memory", inMiB(before.Size)))
	eventually(t, "the guest has it all again", func() bool { return memoryNow(t).Withheld == 0 })
}

func TestSwapSettingHoldsAtOnce(t *testing.T) {
	defer func() { output(t, cove("config", "unset", "swap")) }()
	if at := memoryNow(t); at.SwapTotal < 1000*mib {
		t.Errorf("the VM has %d MiB of swap; want the default, 1 GiB", at.SwapTotal/mib)
	}
	output(t, cove("config", "set", "swap", "128MiB"))
	if at := memoryNow(t); at.SwapTotal < 127*mib || at.SwapTotal > 128*mib {
		t.Errorf("the VM has %d MiB of swap; want 128", at.SwapTotal/mib)
	}
	output(t, cove("config", "set", "swap", "0"))
	if at := memoryNow(t); at.SwapTotal != 0 || strings.Contains(output(t, cove("shell", "--", "ls", "/var/lib/cove")), "swap") {
		t.Errorf("the VM has %d MiB of swap; want none, and no file", at.SwapTotal/mib)
	}
}
