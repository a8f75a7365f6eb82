//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// soakCycles is how often the engine sleeps and wakes where SOAK does not say; `make soak` does it 1,000 times.
const soakCycles = 30

const soakCompose = `
services:
  web:
    image: cove/test:latest
    command: ["/bin/probe", "echo", "7"]
    ports: ["127.0.0.1:%s:7"]
  worker:
    image: cove/test:latest
    command: ["sh", "-c", "exec 3>>/work/lines; while true; do read at </work/from-host; echo $$at >&3; sleep 0.1; done"]
    working_dir: /work
    volumes: ["%s:/work"]
`

// An application of compose on a shared folder sleeps and wakes again and again while a client asks all the time.
// No call fails, and nothing is left over: no process, descriptor or file.
func TestSoak(t *testing.T) {
	cycles := soakCycles
	if n, err := strconv.Atoi(os.Getenv("SOAK")); err == nil {
		cycles = n
	}
	dir, err := os.MkdirTemp(filepath.Join(world.work), "soak") // below TMPDIR, which is shared
	if err != nil {
		t.Fatal(err)
	}
	port := unused(t)
	file := filepath.Join(dir, "compose.yaml")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("compose.yaml", fmt.Sprintf(soakCompose, port, dir))
	write("from-host", "0\n")
	output(t, docker("compose", "-p", "soak", "-f", file, "up", "-d"))
	t.Cleanup(func() { docker("compose", "-p", "soak", "-f", file, "down", "-v", "-t", "1").Run() })
	started := output(t, docker("inspect", "--format", "{{.State.StartedAt}}", "soak-web-1", "soak-worker-1"))

	var calls, failed atomic.Int64
	polling, stop := context.WithCancel(t.Context())
	defer stop()
	go poll(polling, func(err error) {
		calls.Add(1)
		if err != nil && polling.Err() == nil {
			failed.Add(1)
			t.Errorf("GET /containers/json: %v", err)
		}
	})
	var first left
	for i := range cycles {
		suspend(t)
		if i == 1 {
			first = remains(t)
		}
		if i > 1 && i == cycles-1 {
			last := remains(t)
			t.Logf("asleep for the second time there are %+v, for the %dth time %+v", first, i+1, last)
			if last.more(first) {
				t.Errorf("asleep for the %dth time there are %+v; for the second time there were %+v", i+1, last, first)
			}
		}
		said := fmt.Sprint(i + 1)
		write("from-host", said+"\n")
		switch i % 3 {
		case 0:
			if got, err := echoed("tcp", "127.0.0.1:"+port, said); err != nil || got != said {
				t.Errorf("cycle %d: a connection gets %q, %v", i, got, err)
			}
		case 1:
			output(t, docker("exec", "soak-worker-1", "true"))
		case 2:
			output(t, cove("start"))
		}
		eventually(t, "the worker writes what the host wrote", func() bool {
			b, err := os.ReadFile(filepath.Join(dir, "lines"))
			return err == nil && strings.HasSuffix(string(b), "\n"+said+"\n")
		})
	}
	if now := output(t, docker("inspect", "--format", "{{.State.StartedAt}}", "soak-web-1", "soak-worker-1")); now != started {
		t.Errorf("the containers were started at\n%s; want\n%s", now, started)
	}
	t.Logf("%d cycles, %d calls meanwhile, %d failed", cycles, calls.Load(), failed.Load())
	if calls.Load() < int64(cycles) {
		t.Errorf("only %d calls were made meanwhile", calls.Load())
	}
}

// poll lists containers until the context ends, each time by a connection of its own.
func poll(ctx context.Context, did func(error)) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket())
	}}}
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/containers/json", nil)
		if err == nil {
			var resp *http.Response
			if resp, err = c.Do(req); err == nil {
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					err = fmt.Errorf("status %s", resp.Status)
				}
			}
		}
		did(err)
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// left is what a sleeping engine has on the host, and coved of memory of its own.
type left struct{ processes, descriptors, files, threads, mebibytes int }

// more allows for what comes and goes, such as the poller's connection, and what Go has not given back yet.
func (l left) more(than left) bool {
	return l.processes > than.processes || l.descriptors > than.descriptors+4 || l.files > than.files ||
		l.threads > than.threads+16 || l.mebibytes > than.mebibytes+32
}

func remains(t *testing.T) (l left) {
	t.Helper()
	l.processes = len(pids(world.work + "/"))
	coved := one(t, "coved")
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", coved))
	if err != nil {
		t.Fatal(err)
	}
	l.descriptors = len(fds)
	about, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", coved))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(about)) { // proc(5), status
		var n int
		if _, err := fmt.Sscanf(line, "Threads: %d", &n); err == nil {
			l.threads = n
		}
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &n); err == nil {
			l.mebibytes = n >> 10
		}
	}
	filepath.WalkDir(world.home, func(string, os.DirEntry, error) error { l.files++; return nil })
	return l
}
