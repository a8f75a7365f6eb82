//go:build linux

package share

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/covedesk/cove/guestd/protocol"
)

// The host's kernel drops what it has to tell when its queue is full. What was changed then is found and told.
func TestChangesThatTheHostsKernelDroppedAreTold(t *testing.T) {
	f, host, guest := one(t)
	for _, name := range []string{"changed", "removed", "a", "b"} {
		if err := os.WriteFile(host+"/"+name, []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
		os.ReadFile(guest + "/" + name)
	}
	b, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	heard := map[string]bool{}
	told(t, f, func(e *protocol.FileEvents) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range e.Events {
			heard[e.Op+" "+string(e.Name)] = true
		}
	})
	f.watch.mu.Lock() // nobody reads what the kernel has to tell
	for i := range 2 * most {
		// In turn: the kernel tells the same change of the same file once.
		if err := os.Chmod(host+"/"+[]string{"a", "b"}[i%2], os.FileMode(0o600+i/2%2)); err != nil {
			t.Fatal(err)
		}
	}
	err = os.WriteFile(host+"/changed", []byte("new"), 0o644)
	os.Remove(host + "/removed")
	f.watch.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{protocol.FileModified + " changed", protocol.FileDeleted + " removed"} {
		waitFor(t, fmt.Sprint("the guest hears ", want), func() bool { mu.Lock(); defer mu.Unlock(); return heard[want] })
	}
	if got, err := os.ReadFile(guest + "/changed"); err != nil || string(got) != "new" {
		t.Errorf("the guest reads %q, %v; want what the host wrote", got, err)
	}
}
