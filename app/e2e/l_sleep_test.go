//go:build e2e && linux

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/covedesk/cove/app/api"
)

func status(t *testing.T) (s api.Status) {
	t.Helper()
	out, err := cove("status", "--json").Output()
	if err = json.Unmarshal(out, &s); err != nil {
		t.Fatalf("cove status --json: %v\n%s", err, out)
	}
	return s
}

// ran runs a container for the test and gives its id.
func ran(t *testing.T, args ...string) string {
	t.Helper()
	id := strings.TrimSpace(output(t, docker(append([]string{"run", "-d"}, args...)...)))
	t.Cleanup(func() { docker("rm", "-f", "-v", id).Run() })
	return id
}

// count is a counter that a container prints, from its last line.
func count(t *testing.T, id string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(output(t, docker("logs", "--tail", "1", id))))
	if err != nil {
		t.Fatal("the counter's log:", err)
	}
	return n
}

const counter = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.2; done"

// What a person had before is there after: processes, exec sessions, networks, volumes, the log.
func TestASuspendedEngineComesBackAsItWas(t *testing.T) {
	output(t, docker("network", "create", "sleepers"))
	t.Cleanup(func() { docker("network", "rm", "sleepers").Run() })
	counting := ran(t, "--name", "counting", "--network", "sleepers", image, "sh", "-c", counter)
	peer := ran(t, "--network", "sleepers", "-v", "/data", image, "/bin/probe", "echo", "7")
	healthy := ran(t, "--health-cmd", "true", "--health-interval", "2s", image, "sleep", "100000")
	output(t, docker("exec", "-d", peer, "sh", "-c", "echo kept >/data/file; exec sleep 12345"))
	eventually(t, "a healthy container", func() bool {
		return strings.TrimSpace(output(t, docker("inspect", "--format", "{{.State.Health.Status}}", healthy))) == "healthy"
	})
	boot := output(t, docker("exec", peer, "cat", "/proc/sys/kernel/random/boot_id"))
	started := begun(t, counting) + begun(t, peer) + begun(t, healthy)
	events := docker("events", "--filter", "container="+peer, "--format", "{{.Action}}")
	told, err := events.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := events.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { events.Process.Kill(); events.Wait() }()

	suspend(t)
	if s := status(t); s.Saved == nil || s.Saved.Bytes == 0 {
		t.Errorf("status %+v; want what is saved", s)
	}
	dir := filepath.Join(world.home, "vm", "default", "saved")
	filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, %v; want it to be the user's alone", path, info.Mode(), err)
		}
		return nil
	})
	for _, args := range [][]string{{"ps"}, {"images"}, {"version"}, {"info"}, {"inspect", peer}, {"network", "ls"}, {"volume", "ls"}} {
		if out := output(t, docker(args...)); len(out) == 0 {
			t.Errorf("docker %v says nothing", args)
		}
	}
	if p := phase(); p != "suspended" {
		t.Fatalf("after looking at it the engine is %s; want it to sleep on", p)
	}

	woken := time.Now()
	if now := output(t, docker("exec", peer, "cat", "/proc/sys/kernel/random/boot_id")); now != boot {
		t.Errorf("the guest's boot is %s; want %s", now, boot)
	}
	t.Logf("an exec in a sleeping engine took %.1f s", time.Since(woken).Seconds())
	before := time.Now()
	text := strings.TrimSpace(output(t, docker("exec", peer, "date", "+%s")))
	if at, err := strconv.ParseInt(text, 10, 64); err != nil || time.Unix(at, 0).Before(before.Add(-2*time.Second)) || time.Unix(at, 0).After(time.Now().Add(time.Second)) {
		t.Errorf("a container's clock says %s; want a time between %d and %d", text, before.Unix(), time.Now().Unix())
	}
	if now := begun(t, counting) + begun(t, peer) + begun(t, healthy); now != started {
		t.Errorf("the containers were started at\n%s; want\n%s", now, started)
	}
	if got := output(t, docker("exec", peer, "cat", "/data/file")); got != "kept\n" {
		t.Errorf("the volume's file reads %q", got)
	}
	if got := output(t, docker("top", peer)); !strings.Contains(got, "sleep 12345") {
		t.Errorf("the exec's process is gone: %s", got)
	}
	if got := output(t, docker("run", "--rm", "--network", "sleepers", image, "/bin/probe", "ask", peer[:12]+":7", "hello")); !strings.Contains(got, "hello") {
		t.Errorf("over the network the other answers %q", got)
	}
	at := count(t, counting)
	eventually(t, "the counter goes on", func() bool { return count(t, counting) > at })
	checked := output(t, docker("inspect", "--format", "{{len .State.Health.Log}} {{(index .State.Health.Log 0).Start}}", healthy))
	eventually(t, "another health check", func() bool {
		return output(t, docker("inspect", "--format", "{{len .State.Health.Log}} {{(index .State.Health.Log 0).Start}}", healthy)) != checked
	})
	output(t, docker("exec", peer, "true"))
	in := bufio.NewScanner(told)
	for in.Scan() && !strings.HasPrefix(in.Text(), "exec_create: true") {
	}
	if in.Err() != nil {
		t.Error("events:", in.Err())
	}
	if n := len(status(t).Notices); n > 0 {
		t.Logf("notices: %+v", status(t).Notices)
	}
}

func TestAStopOfASuspendedEngineEndsContainersInOrder(t *testing.T) {
	id := ran(t, "-v", "orderly:/data", image, "sh", "-c", "trap 'echo ended >/data/end; exit' TERM; echo up; while true; do sleep 0.1; done")
	t.Cleanup(func() { docker("volume", "rm", "orderly").Run() })
	eventually(t, "the container is up", func() bool { return strings.Contains(output(t, docker("logs", id)), "up") })
	suspend(t)
	output(t, cove("stop"))
	if p := phase(); p != "stopped" {
		t.Fatalf("after cove stop the engine is %s", p)
	}
	output(t, cove("start"))
	if got := output(t, docker("run", "--rm", "-v", "orderly:/data", image, "cat", "/data/end")); got != "ended\n" {
		t.Errorf("the container left %q; want that it was told to end", got)
	}
}

// The engine sleeps when nobody uses it: a client that polls and one that listens to events keep nothing awake.
func TestAnIdleEngineSleeps(t *testing.T) {
	output(t, cove("config", "set", "sleep.after", "10s"))
	defer output(t, cove("config", "set", "sleep.after", "off"))
	events := docker("events")
	if err := events.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { events.Process.Kill(); events.Wait() }()
	eventually(t, "sleep", func() bool { output(t, docker("ps")); return phase() == "suspended" })
	contains(t, "why", status(t).Reason, "not used for")
	id := ran(t, image, "sleep", "100000") // wakes it, and keeps it awake
	awake := time.Now()
	eventually(t, "thrice sleep.after", func() bool {
		if p := phase(); p != "running" {
			t.Fatalf("with a container that runs the engine is %s", p)
		}
		return time.Since(awake) > 30*time.Second
	})
	output(t, cove("config", "set", "sleep.containers", "idle"))
	defer output(t, cove("config", "unset", "sleep.containers"))
	eventually(t, "sleep with an idle container", func() bool { return phase() == "suspended" })
	busy := time.Now()
	output(t, docker("exec", "-d", id, "sh", "-c", "while true; do true; done"))
	eventually(t, "thrice sleep.after", func() bool {
		if p := phase(); p != "running" {
			t.Fatalf("with a container that computes the engine is %s", p)
		}
		return time.Since(busy) > 30*time.Second
	})
}

// stage is a moment of a save or of a resume, known by what there is.
type stage struct {
	name   string
	resume bool
	there  func(saved string) bool
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

var stages = []stage{
	{"while the save begins", false, func(saved string) bool { return exists(saved + ".new") }},
	{"while the memory is written", false, func(saved string) bool { return exists(filepath.Join(saved+".new", "memory")) }},
	{"when all is saved", false, func(saved string) bool { return exists(saved) }},
	{"while the memory is loaded", true, func(string) bool { return processes("-incoming") != "" }},
	{"when the guest may run", true, func(saved string) bool { return !exists(saved) }},
}

// coved or QEMU may be killed at any moment: what was synced to the disk stays, and no memory is used on a disk
// that went on.
func TestKilledWhileSuspending(t *testing.T) {
	defer func() { output(t, cove("start")) }()
	saved := filepath.Join(world.home, "vm", "default", "saved")
	output(t, docker("volume", "create", "ledger"))
	t.Cleanup(func() { docker("volume", "rm", "ledger").Run() })
	line := 0
	write := func() {
		t.Helper()
		line++
		output(t, docker("run", "--rm", "-v", "ledger:/data", image, "sh", "-c", fmt.Sprintf("echo %d >>/data/lines && sync", line)))
	}
	write()
	for i, s := range stages {
		victim := []string{"coved", "qemu-system"}[i%2]
		t.Run(victim+" "+s.name, func(t *testing.T) {
			output(t, cove("start"))
			write()
			if s.resume {
				suspend(t)
			}
			var pid int
			if victim == "coved" {
				pid = one(t, "coved")
			}
			word := map[bool]string{false: "suspend", true: "start"}[s.resume]
			cmd := cove(word)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { cmd.Wait(); close(ended) }()
			for hit := false; !hit; {
				select {
				case <-ended:
					hit = true // too late; what follows must hold all the same
					t.Logf("cove %s was faster", word)
				case <-time.After(time.Millisecond):
					hit = s.there(saved)
				}
			}
			if victim == "coved" {
				syscall.Kill(pid, syscall.SIGKILL)
			} else {
				for _, one := range pids("qemu-system") {
					if pid, err := strconv.Atoi(one); err == nil {
						syscall.Kill(pid, syscall.SIGKILL)
					}
				}
			}
			<-ended
			output(t, cove("start"))
			want := ""
			for n := range line {
				want += fmt.Sprintln(n + 1)
			}
			if got := output(t, docker("run", "--rm", "-v", "ledger:/data", image, "cat", "/data/lines")); got != want {
				t.Errorf("the ledger reads %q; want %q", got, want)
			}
			if exists(saved) {
				t.Error("a saved state is there while the engine runs")
			}
		})
	}
}

// With sleep.to at memory the VM stands still: its process is there and does nothing, and the rest is as with one
// that is saved.
func TestAPausedEngine(t *testing.T) {
	output(t, cove("config", "set", "sleep.to", "memory"))
	defer output(t, cove("config", "unset", "sleep.to"))
	id := published(t, "echo", "-p", "7")
	at, started := hostPort(t, id, "tcp"), begun(t, id)
	qemu := one(t, "qemu-system")
	boot := output(t, docker("exec", id, "cat", "/proc/sys/kernel/random/boot_id"))
	counting := ran(t, image, "sh", "-c", counter)
	counted := count(t, counting)
	for range 2 {
		contains(t, "cove suspend", output(t, cove("suspend")), "paused: its memory stays")
		s := status(t)
		if s.Phase != api.Suspended || s.Paused == nil || s.Paused.Bytes == 0 || s.Saved != nil {
			t.Fatalf("status %+v; want it asleep and paused", s)
		}
		contains(t, "cove status", output(t, cove("status")), "paused: its memory stays")
		before, since := processorTime(t, qemu), time.Now()
		for range 10 {
			output(t, docker("ps"))
		}
		time.Sleep(2 * time.Second) // the time that is measured, and that the guest's clock has to make up for
		if used := processorTime(t, qemu) - before; used > time.Since(since)/10 {
			t.Errorf("a VM that stands still used %v of a processor in %v", used, time.Since(since))
		}
		if p := phase(); p != "suspended" {
			t.Fatalf("after looking at it the engine is %s; want it to sleep on", p)
		}
		woken := time.Now()
		if got, err := echoed("tcp", at, "word"); err != nil || got != "word" {
			t.Errorf("a connection gets %q, %v", got, err)
		}
		t.Logf("a connection to a paused engine was answered after %.2f s", time.Since(woken).Seconds())
		if now := one(t, "qemu-system"); now != qemu {
			t.Errorf("QEMU is process %d; want %d", now, qemu)
		}
		clock := time.Now()
		text := strings.TrimSpace(output(t, docker("exec", id, "date", "+%s")))
		if at, err := strconv.ParseInt(text, 10, 64); err != nil || time.Unix(at, 0).Before(clock.Add(-2*time.Second)) || time.Unix(at, 0).After(time.Now().Add(time.Second)) {
			t.Errorf("a container's clock says %s; want a time between %d and %d", text, clock.Unix(), time.Now().Unix())
		}
		eventually(t, "the counter goes on", func() bool { return count(t, counting) > counted })
		counted = count(t, counting)
	}
	if now := begun(t, id); now != started {
		t.Errorf("the container was started at %s; want %s", now, started)
	}
	if now := output(t, docker("exec", id, "cat", "/proc/sys/kernel/random/boot_id")); now != boot {
		t.Errorf("the guest's boot is %s; want %s", now, boot)
	}
}

// processorTime is what a process has used of the processors: proc(5), stat, in hundredths of a second.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])) // from the third on
	var sum time.Duration
	for _, text := range fields[11:13] {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(n) * 10 * time.Millisecond
	}
	return sum
}
