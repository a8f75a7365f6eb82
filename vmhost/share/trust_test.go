//go:build linux

package share

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"golang.org/x/sys/unix"
)

// told has a guest that takes what the host changes and replays nothing; each message is handed to take
// before it is answered.
func told(t *testing.T, f *FS, take ...func(*protocol.FileEvents)) (end func()) {
	t.Helper()
	a, b := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { f.Replay(ctx, a) })
	wg.Go(func() {
		defer b.Close()
		in, out := protocol.NewReader(b), protocol.NewWriter(b)
		out.Write(protocol.Message{FileReplayer: &protocol.FileReplayer{Thread: 1<<32 - 2}})
		for {
			m, err := in.Read()
			if err != nil {
				return
			}
			for _, take := range take {
				take(m.FileEvents)
			}
			if out.Write(protocol.Message{FileReplayed: &protocol.FileReplayed{}}) != nil {
				return
			}
		}
	})
	waitFor(t, "somebody who is told", f.Replaying)
	end = sync.OnceFunc(func() { cancel(); b.Close(); wg.Wait() })
	t.Cleanup(end)
	return end
}

// The guest may keep for long what it is told of, and a second what it is not.
func TestTrustIsForWhatIsTold(t *testing.T) {
	host := t.TempDir()
	os.MkdirAll(host+"/d", 0755)
	os.WriteFile(host+"/d/f", nil, 0644)
	os.WriteFile(host+"/d/g", nil, 0644)
	os.Link(host+"/d/g", host+"/g2")
	f, guest := mounted(t, Share{Path: host})
	trusts := func(name string) (ofName, attr time.Duration) {
		os.Stat(filepath.Join(guest, name))
		dir, base := filepath.Split(name)
		n := f.exports[0].root
		if dir != "" {
			n = f.nodes.child(n, filepath.Clean(dir))
		}
		st, err := f.statName(n, base)
		if err != nil {
			t.Fatal(err)
		}
		return f.trust(n, f.nodes.child(n, base), &st)
	}
	expect := func(when, name string, wantName, wantAttr time.Duration) {
		t.Helper()
		if ofName, attr := trusts(name); ofName != wantName || attr != wantAttr {
			t.Errorf("%s, trust of %s = %v, of its attributes %v; want %v, %v", when, name, ofName, attr, wantName, wantAttr)
		}
	}
	expect("before anybody is told", "d/f", cacheFor, cacheFor)
	hold := make(chan struct{})
	end := told(t, f, func(e *protocol.FileEvents) {
		for _, e := range e.Events {
			if string(e.Name) == "slow" {
				<-hold
			}
		}
	})
	expect("told", "d/f", trustFor, trustFor)
	expect("told", "d", trustFor, trustFor)
	expect("told", "d/g", trustFor, cacheFor) // its other name may be changed elsewhere
	os.WriteFile(host+"/slow", nil, 0644)
	waitFor(t, "no trust while changes wait", func() bool { name, attr := trusts("d/f"); return name == cacheFor && attr == cacheFor })
	close(hold)
	waitFor(t, "trust again", func() bool { name, _ := trusts("d/f"); return name == trustFor })
	end()
	expect("told no longer", "d/f", cacheFor, cacheFor)
}

// A guest that hears of changes late is told to forget what it trusted in, once for each time that it is late.
func TestWhoIsToldLateForgets(t *testing.T) {
	f, host, guest := one(t)
	os.Stat(guest)
	var mu sync.Mutex
	var heard, forgets []string
	hold := make(chan struct{})
	told(t, f, func(e *protocol.FileEvents) {
		mu.Lock()
		if e.Forget {
			forgets = append(forgets, string(e.Events[0].Name))
		}
		for _, e := range e.Events {
			heard = append(heard, string(e.Name))
		}
		slow := slices.Contains(heard, "slow")
		mu.Unlock()
		if slow {
			<-hold
		}
	})
	hears := func(name string) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Contains(heard, name)
		}
	}
	os.Mkdir(host+"/slow", 0755)
	waitFor(t, "slow is being told", hears("slow"))
	os.Mkdir(host+"/waits", 0755)
	waitFor(t, "one is late", func() bool {
		f.watch.mu.Lock()
		defer f.watch.mu.Unlock()
		q := &f.watch.queue
		return len(q.waiting) > 0 && time.Since(q.waiting[0].at) > lateAfter
	})
	close(hold)
	waitFor(t, "it is told", hears("waits"))
	os.Mkdir(host+"/in time", 0755)
	waitFor(t, "the last is told", hears("in time"))
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(forgets, []string{"waits"}) {
		t.Errorf("the guest was told to forget before %q; want before %q", forgets, "waits")
	}
}

// The guest keeps what it has read of a folder by the folder's time, which has ticks.
func TestAFolderThatChangesTwiceInATick(t *testing.T) {
	_, host, guest := one(t)
	seen := func(d string) int { entries, _ := os.ReadDir(guest + d); return len(entries) }
	tries := 0
	waitFor(t, "a look at a folder within a tick of its change", func() bool {
		tries++
		d := fmt.Sprint("/d", tries)
		os.Mkdir(host+d, 0755)
		now := time.Now()
		at := unix.NsecToTimespec(now.UnixNano())
		change := func(name string) {
			os.WriteFile(host+d+"/"+name, nil, 0644)
			if err := unix.UtimesNanoAt(unix.AT_FDCWD, host+d, []unix.Timespec{at, at}, 0); err != nil {
				t.Fatal(err)
			}
		}
		change("a")
		if n := seen(d); n != 1 {
			t.Fatalf("%d files; want 1", n)
		}
		if time.Since(now) > 15*time.Millisecond {
			return false // the tick is over, and what the second change does is no longer what a kernel does
		}
		change("b")
		waitFor(t, "the second file", func() bool { return seen(d) == 2 })
		return true
	})
}

// A file that the host writes all the time is told now and then, the last change of all too; what happens to
// names meanwhile is told at once.
func TestAFileThatKeepsChangingIsToldNowAndThen(t *testing.T) {
	f, host, guest := one(t)
	os.WriteFile(host+"/log", nil, 0644)
	os.Stat(guest + "/log")
	var mu sync.Mutex
	modified, last, names := 0, time.Time{}, map[string]time.Time{}
	told(t, f, func(e *protocol.FileEvents) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range e.Events {
			switch {
			case e.Op == protocol.FileModified && string(e.Name) == "log":
				modified, last = modified+1, time.Now()
			case e.Op == protocol.FileCreated:
				names[string(e.Name)] = time.Now()
			}
		}
	})
	log, err := os.OpenFile(host+"/log", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	begun := time.Now()
	writes := 0
	for time.Since(begun) < 3*time.Second {
		log.WriteString("a line\n")
		writes++
		time.Sleep(time.Millisecond)
	}
	os.Mkdir(host+"/d", 0755)
	end := time.Now()
	waitFor(t, "the folder", func() bool { mu.Lock(); defer mu.Unlock(); return !names["d"].IsZero() })
	waitFor(t, "the last change", func() bool { mu.Lock(); defer mu.Unlock(); return last.After(end) })
	took := time.Since(begun)
	mu.Lock()
	defer mu.Unlock()
	// At once, after 50 ms, 100 more, 200, 400, and then every 800 ms.
	if most := 6 + int(took/maxPause); modified > most {
		t.Errorf("%d writes were told %d times in %v; want at most %d", writes, modified, took, most)
	}
	t.Logf("%d writes in 3 s were told %d times, and a folder's name after %v", writes, modified, names["d"].Sub(end))
}

// What the host wrote is there when a file is opened, whatever the guest's kernel has kept and whether or not
// it was told.
func TestWhatTheHostWroteIsThereAtTheNextOpen(t *testing.T) {
	_, host, guest := one(t)
	content := func(i int) string { return strings.Repeat(fmt.Sprintf("%04d ", i), 1+i%7) }
	for i := range 100 {
		want := content(i)
		how := "written"
		switch i % 3 {
		case 0:
			os.WriteFile(host+"/f", []byte(want), 0644)
		case 1:
			how = "replaced"
			os.WriteFile(host+"/.new", []byte(want), 0644)
			os.Rename(host+"/.new", host+"/f")
		case 2:
			how = "removed and made"
			os.Remove(host + "/f")
			os.WriteFile(host+"/f", []byte(want), 0644)
		}
		b, err := os.ReadFile(guest + "/f")
		if string(b) != want || err != nil {
			t.Fatalf("change %d, %s: the guest reads %q, %v; want %q", i, how, b, err, want)
		}
		os.Stat(guest + "/f") // into its caches
	}
	// By a descriptor there is no name to look up again.
	r, err := os.Open(guest + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	os.WriteFile(host+"/f", []byte("new"), 0644)
	if _, err := os.ReadFile(fmt.Sprint("/proc/self/fd/", r.Fd())); err != nil {
		t.Error(err)
	}
}
