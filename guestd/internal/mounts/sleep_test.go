//go:build linux

package mounts

import (
	"context"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/vmhost/share"
	"github.com/covedesk/cove/vmhost/share/sharetest"
	"golang.org/x/sys/unix"
)

// told has the host's changes replayed until stop.
func told(t *testing.T, k *sharetest.Sleeper) (stop func()) {
	t.Helper()
	a, b := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { k.FS.Replay(ctx, a) })
	// Not DropNames: it is this machine's whole kernel that would forget, under other tests.
	r := &Replayer{Root: k.Root, Forget: func() error { return nil }}
	wg.Go(func() { r.Serve(b) })
	waitFor(t, "a replayer", k.FS.Replaying)
	return func() { cancel(); wg.Wait() }
}

func settled(t *testing.T, k *sharetest.Sleeper) (undo func()) {
	t.Helper()
	undo, err := k.FS.Settle(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return undo
}

// A kernel that is told of changes trusts in what it knows for long. It trusts in nothing over a sleep.
func TestNothingIsTrustedOverASleep(t *testing.T) {
	host := t.TempDir()
	for _, name := range []string{"/d", "/d/e"} {
		os.Mkdir(host+name, 0755)
	}
	for _, name := range []string{"/f", "/d/e/f", "/d/e/g"} {
		os.WriteFile(host+name, []byte("old"), 0644)
	}
	k := sharetest.NewSleeper(t, share.Share{Path: host})
	stop := told(t, k)
	files := map[string]*os.File{}
	for _, name := range []string{"/f", "/d/e/f"} {
		f, err := os.Open(k.Guest + name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		f.Read(make([]byte, 10))
		files[name] = f
	}
	known, err := unix.Open(k.Guest+"/d/e/g", unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(known)
	cwd, err := unix.Open(k.Guest+"/d", unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(cwd)

	begun := time.Now()
	settled(t, k)
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %v; what was told was to be waited for no longer", took)
	}
	stop()
	state := k.Sleep()
	for name := range files {
		os.WriteFile(host+name, []byte("new"), 0644)
	}
	os.Remove(host + "/d/e/g")
	k.Wake(state, k.Shares...)
	for name, f := range files {
		b := make([]byte, 10)
		if n, err := f.ReadAt(b, 0); string(b[:n]) != "new" {
			t.Errorf("read %s, which is open: %q, %v; want what the host wrote", name, b[:n], err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstatat(cwd, "e/g", &st, 0); err != unix.ENOENT {
		t.Errorf("what the host removed, by its name: %v; want ENOENT", err)
	}
	if err := unix.Fstat(known, &st); err != unix.ESTALE {
		t.Errorf("what the host removed, by its id: %v; want ESTALE", err)
	}
}

// To look again is no change: nobody is told.
func TestSettlingIsNoChange(t *testing.T) {
	host := t.TempDir()
	os.WriteFile(host+"/f", []byte("old"), 0644)
	k := sharetest.NewSleeper(t, share.Share{Path: host})
	defer told(t, k)()
	f, err := os.Open(k.Guest + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := watch(t, k.Guest)
	settled(t, k)()
	os.WriteFile(host+"/last", nil, 0644)
	if all := r.until(t, "last"); len(all) != 1 {
		t.Errorf("a watcher saw %q; want the last one only", all)
	}
}

// What the host did during the sleep is told at the wake to those who watch.
func TestWatchersHearOfTheSleep(t *testing.T) {
	host := t.TempDir()
	os.MkdirAll(host+"/gone/deep", 0755)
	for _, name := range []string{"/changed", "/same", "/touched", "/replaced", "/deleted", "/gone/deep/f"} {
		os.WriteFile(host+name, []byte("old"), 0644)
	}
	k := sharetest.NewSleeper(t, share.Share{Path: host})
	stop := told(t, k)
	for _, name := range []string{"/changed", "/same", "/replaced", "/deleted", "/gone/deep/f"} {
		if _, err := os.ReadFile(k.Guest + name); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(k.Guest+"/touched", []byte("by a container"), 0644)
	r := watch(t, k.Guest)
	var kept []*os.File // a file that is watched alone is known to the kernel; so it is here
	for _, name := range []string{"/changed", "/same", "/touched", "/replaced", "/deleted", "/gone/deep/f"} {
		f, err := os.Open(k.Guest + name)
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, f)
	}
	defer func() {
		for _, f := range kept {
			f.Close()
		}
	}()
	settled(t, k)
	stop()
	state := k.Sleep()
	os.WriteFile(host+"/changed", []byte("new"), 0644)
	os.WriteFile(host+"/r", []byte("new"), 0644)
	os.Rename(host+"/r", host+"/replaced")
	os.Remove(host + "/deleted")
	os.RemoveAll(host + "/gone")
	k.Wake(state, k.Shares...)
	defer told(t, k)()
	waitFor(t, "the folder that is gone", func() bool { _, err := os.Stat(k.Guest + "/gone"); return err != nil })
	os.WriteFile(host+"/last", nil, 0644)
	got := map[string]bool{}
	for _, e := range r.until(t, "last") {
		got[e] = true
	}
	for _, want := range []string{"modify changed", "delete replaced", "create replaced", "delete deleted", "delete gone/"} {
		if !got[want] {
			t.Errorf("nobody heard %q: %v", want, got)
		}
	}
	for e := range got {
		switch e {
		case "modify same", "written same", "attrib same", "modify touched", "written touched", "attrib touched":
			t.Errorf("%q was heard, and did not happen", e)
		}
	}
}

// A replay that the sleep interrupts changes nothing on the host when it goes on.
func TestAReplayThatTheSleepInterrupts(t *testing.T) {
	host := t.TempDir()
	os.WriteFile(host+"/f", []byte("the user's"), 0644)
	k := sharetest.NewSleeper(t, share.Share{Path: host})
	a, b := net.Pipe()
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() { k.FS.Replay(ctx, a) })
	defer wg.Wait()
	defer cancel()
	interrupted := make(chan error)
	wg.Go(func() {
		r := &Replayer{Root: k.Root, Forget: func() error { // on the thread that replays, at its end
			if ctx.Err() == nil {
				return nil
			}
			interrupted <- nil
			interrupted <- unix.Unlink(k.Guest + "/f")
			return nil
		}}
		r.Serve(b)
	})
	waitFor(t, "a replayer", k.FS.Replaying)
	if _, err := os.Stat(k.Guest + "/f"); err != nil {
		t.Fatal(err)
	}
	settled(t, k)
	cancel()
	<-interrupted
	k.Wake(k.Sleep(), k.Shares...)
	if err := <-interrupted; err != unix.EPERM {
		t.Errorf("a removal by the thread that replays: %v; want EPERM", err)
	}
	if _, err := os.Stat(host + "/f"); err != nil {
		t.Errorf("on the host: %v", err)
	}
}
