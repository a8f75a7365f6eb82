//go:build linux

package share

import (
	"bytes"
	"fmt"
	"io/fs"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// counter counts requests by their operation, from what go-fuse says of each when it debugs.
type counter struct {
	mu sync.Mutex
	of map[string]int
}

// Write takes a line of go-fuse's, "rx 12: LOOKUP n1 …".
func (c *counter) Write(b []byte) (int, error) {
	f := bytes.Fields(b)
	if len(f) > 2 && string(f[0]) == "rx" {
		c.mu.Lock()
		c.of[string(f[2])]++
		c.mu.Unlock()
	}
	return len(b), nil
}

func (c *counter) take() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	of := c.of
	c.of = map[string]int{}
	return of
}

// counted is a share of one new folder whose requests are counted.
func counted(t *testing.T) (c *counter, f *FS, host, guest string) {
	t.Helper()
	host = t.TempDir()
	f, err := New([]Share{{Path: host}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	c = &counter{of: map[string]int{}}
	guest = serveWith(t, f, func(o *fuse.MountOptions) {
		o.Debug = true
		o.Logger = log.New(c, "", 0)
	})
	return c, f, host, guest
}

// What costs time is how often the guest has to ask, above all under emulation. The rows are what common work
// costs for each file; FORGET and what others of this machine ask are left out. `go test -v -run Requests`
// prints the table.
func TestRequests(t *testing.T) {
	c, f, _, d := counted(t)
	told(t, f)
	const n = 100
	each := func(do func(name string) error) func() error {
		return func() error {
			for i := range n {
				if err := do(fmt.Sprint(d, "/dir/f", i)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	run := func(name string, args ...string) func() error {
		return func() error {
			out, err := exec.Command(name, args...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s %q: %w: %s", name, args, err, out)
			}
			return nil
		}
	}
	text := make([]byte, 2048)
	write := func(name string) error { return os.WriteFile(name, text, 0644) }
	read := func(name string) error { _, err := os.ReadFile(name); return err }
	stat := func(name string) error { _, err := os.Lstat(name); return err }
	walk := func() error {
		return filepath.WalkDir(d+"/dir", func(_ string, e fs.DirEntry, err error) error {
			if err == nil {
				_, err = e.Info()
			}
			return err
		})
	}
	forget := func() { os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) }
	expire := func() { time.Sleep(cacheFor + 100*time.Millisecond) }
	for _, row := range []struct {
		what   string
		before func()
		most   float64 // requests for each file
		do     func() error
	}{
		{"make, write, close", nil, 5, each(write)},
		{"stat, the first time after", nil, 1, each(stat)},
		{"stat, seconds later", expire, 0, each(stat)},
		{"stat of what there is not", nil, 1, each(func(name string) error { stat(name + "x"); return nil })},
		{"again, seconds later", expire, 0, each(func(name string) error { stat(name + "x"); return nil })},
		{"open, read, close, nothing known", forget, 4, each(read)},
		{"open, fstat, read, close again", nil, 3, each(read)}, // the first time after it was read, for the time of access
		{"and again", nil, 2, each(read)},
		{"write anew", nil, 4, each(write)},
		{"list, nothing known", forget, 0.1, func() error { _, err := os.ReadDir(d + "/dir"); return err }},
		{"list and stat, nothing known", forget, 0.1, walk},
		{"list and stat, seconds later", expire, 0.02, walk},
		{"chmod", nil, 1, each(func(name string) error { return os.Chmod(name, 0600) })},
		{"rename", nil, 3, each(func(name string) error { return unix.Rename(name, name+"y") })},
		{"rename back", nil, 3, each(func(name string) error { return unix.Rename(name+"y", name) })},
		{"tar x", func() { run("tar", "cf", d+"/t.tar", "-C", d, "dir")() }, 8.5, run("tar", "xf", d+"/t.tar", "--one-top-level="+d+"/tar")},
		{"rm -r, nothing known", forget, 2.1, run("rm", "-r", d+"/tar")},
		{"unlink", func() { walk() }, 2, each(os.Remove)},
	} {
		if row.before != nil {
			row.before()
		}
		c.take()
		if row.what == "make, write, close" {
			os.Mkdir(d+"/dir", 0755)
		}
		if err := row.do(); err != nil {
			t.Fatalf("%s: %v", row.what, err)
		}
		var parts []string
		total := 0.0
		of := c.take()
		for _, op := range slices.Sorted(maps.Keys(of)) {
			if strings.HasSuffix(op, "FORGET") || op == "INTERRUPT" {
				continue
			}
			part := float64(of[op]) / n
			total += part
			parts = append(parts, fmt.Sprintf("%s %.2f", op, part))
		}
		t.Logf("%-34s %5.2f: %s", row.what, total, strings.Join(parts, ", "))
		if slack := 0.15; total > row.most+slack {
			t.Errorf("%s: %.2f requests for each file; want at most %.2f: %s", row.what, total, row.most, parts)
		}
	}
}
