//go:build e2e && linux

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The CLI of a suspended engine: what only looks wakes nothing and says what it said before.
func TestLookingAtASuspendedEngineDoesNotWakeIt(t *testing.T) {
	project := filepath.Join(t.TempDir(), "compose.yaml")
	if err := os.WriteFile(project, []byte("name: asleep\nservices:\n  a:\n    image: "+image+"\n    command: sleep 100000\n    stop_signal: KILL\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	output(t, docker("compose", "-f", project, "up", "-d"))
	t.Cleanup(func() { docker("compose", "-f", project, "down", "-t", "0").Run() })
	id := published(t, "echo", "--name", "sleeper", "-e", "A=b", "-p", "7")
	output(t, docker("volume", "create", "sleepv"))
	t.Cleanup(func() { docker("volume", "rm", "-f", "sleepv").Run() })
	output(t, docker("network", "create", "sleepn"))
	t.Cleanup(func() { docker("network", "rm", "sleepn").Run() })
	calls := [][]string{
		{"ps", "-aq", "--no-trunc"}, {"ps", "-q"}, {"version"}, {"info", "--format", "{{.ID}} {{.Images}} {{.Containers}}"},
		{"images", "-q", "--no-trunc"}, {"network", "ls", "-q"}, {"volume", "ls", "-q"},
		{"inspect", "--format", "{{.ID}} {{.Config.Env}}", "sleeper"}, {"inspect", id[:9]}, {"inspect", "--format", "{{.Id}}", image},
		{"inspect", "--format", "{{.Name}}", "sleepv"}, {"inspect", "--format", "{{.Id}}", "sleepn"}, {"port", "sleeper"},
		{"compose", "ls", "-q"}, {"compose", "-p", "asleep", "ps", "-q"}, {"compose", "-f", project, "ps", "-aq"},
	}
	before := make([]string, len(calls))
	for i, call := range calls {
		before[i] = output(t, docker(call...))
	}
	suspend(t)
	for i, call := range calls {
		if got := output(t, docker(call...)); got != before[i] {
			t.Errorf("docker %s of a suspended engine prints\n%s; want as before\n%s", strings.Join(call, " "), got, before[i])
		}
		if p := phase(); p != "suspended" {
			t.Fatalf("docker %s: the engine is %s; want it suspended", strings.Join(call, " "), p)
		}
	}
	if text, code := failure(t, docker("container", "inspect", "nobody")); code != 1 || !strings.Contains(strings.ToLower(text), "no such container: nobody") || phase() != "suspended" {
		t.Errorf("inspect of no container = %d, %s, and the engine is %s; want the engine's words from a suspended one", code, text, phase())
	}
	if got := output(t, docker("exec", "sleeper", "echo", "woken")); got != "woken\n" || phase() != "running" {
		t.Errorf("exec = %q, and the engine is %s; want it woken", got, phase())
	}
}

// What a client of the events got over two suspends is what the engine kept, each event once.
func TestEventsOverSuspends(t *testing.T) {
	// The engine keeps few: not those of former tests.
	id := published(t, "echo", "--name", "eventful")
	begin := strings.TrimSpace(output(t, cove("shell", "--", "date", "+%s")))
	format := "{{.TimeNano}} {{.Type}} {{.Action}} {{.Actor.ID}}"
	follow := docker("events", "--format", format)
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer follow.Wait()
	defer follow.Process.Kill()
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	var got []string
	until := func(part string) {
		t.Helper()
		for timeout := time.After(patience); ; {
			select {
			case line, ok := <-lines:
				if !ok {
					t.Fatalf("the stream ended before %q; it gave\n%s", part, strings.Join(got, "\n"))
				}
				if got = append(got, line); strings.Contains(line, part) {
					return
				}
			case <-timeout:
				t.Fatalf("%q never came; it gave\n%s", part, strings.Join(got, "\n"))
			}
		}
	}
	// The stream may open after the first ones.
	eventually(t, "the stream is open", func() bool {
		output(t, docker("exec", id, "true"))
		select {
		case line := <-lines:
			got = append(got, line)
			return true
		case <-time.After(time.Second):
			return false
		}
	})
	for _, name := range []string{"eventful1", "eventful2"} {
		run := docker("rename", id, name) // one event more, and at once the suspend
		output(t, run)
		suspend(t)
		output(t, docker("exec", id, "true"))
	}
	output(t, docker("rename", id, "eventful3"))
	for range 3 {
		until("container rename")
	}
	end := got[len(got)-1]
	var kept string
	eventually(t, "the engine's clock is past the last event", func() bool {
		kept = output(t, docker("events", "--format", format, "--since", begin, "--until", "0s"))
		return strings.Contains(kept, end)
	})
	_, kept, found := strings.Cut(kept, got[0])
	kept, _, ended := strings.Cut(got[0]+kept, end)
	if kept += end; !found || !ended || kept != strings.Join(got, "\n") {
		t.Errorf("the stream gave\n%s\nand the engine kept\n%s", strings.Join(got, "\n"), kept)
	}
}

// cove suspend does not ask who uses the engine, so they are told.
func TestASuspendTellsWhoIsAtIt(t *testing.T) {
	id := published(t, "echo", "--name", "busy")
	const told = "The engine was suspended during this call"
	type call struct {
		args string
		out  bytes.Buffer
		done chan error
	}
	var calls []*call
	for _, args := range []string{"wait busy", "exec busy sleep 100000", "logs -f busy", "run --rm " + image + " sleep 100000"} {
		c := &call{args: args, done: make(chan error, 1)}
		cmd := docker(strings.Fields(args)...)
		cmd.Stdout, cmd.Stderr = &c.out, &c.out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { c.done <- cmd.Wait() }()
		calls = append(calls, c)
	}
	eventually(t, "the exec runs", func() bool {
		var c []struct{ ExecIDs []string }
		return json.Unmarshal([]byte(output(t, docker("inspect", id))), &c) == nil && len(c[0].ExecIDs) == 1
	})
	var run string
	eventually(t, "the other container runs", func() bool {
		run = strings.TrimSpace(output(t, docker("ps", "-q", "--filter", "ancestor="+image, "--filter", "status=running", "--latest")))
		return run != "" && !strings.HasPrefix(id, run)
	})
	t.Cleanup(func() { docker("rm", "-f", run).Run() })
	suspend(t)
	for _, c := range calls {
		if err := <-c.done; err == nil || !strings.Contains(c.out.String(), told) {
			t.Errorf("docker %s, when the engine is suspended, = %v, and prints %q; want it to fail and say why", c.args, err, c.out.String())
		}
	}
	if p := phase(); p != "suspended" {
		t.Errorf("the engine is %s; want that those who were told woke nothing", p)
	}
}

// An answer that is not the engine's own says so.
func TestAnswersOfASuspendedEngineSayTheirAge(t *testing.T) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, Dial: func(string, string) (net.Conn, error) { return net.Dial("unix", socket()) }}, Timeout: patience}
	header := func(uri string) http.Header {
		t.Helper()
		resp, err := c.Get("http://docker" + uri)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.Header
	}
	if h := header("/containers/json"); h.Get("Age") != "" || h.Get("Cove-Snapshot") != "" {
		t.Errorf("an engine that runs says %v; want no age", h)
	}
	suspend(t)
	t.Cleanup(func() { cove("start").Run() })
	h := header("/containers/json")
	if at, err := time.Parse(time.RFC3339, h.Get("Cove-Snapshot")); err != nil || time.Since(at) > patience || h.Get("Age") == "" {
		t.Errorf("a suspended engine says %v; want the age of what it says", h)
	}
	// A version that nobody speaks here is a question that only the engine can answer.
	if h := header("/v1.44/info"); h.Get("Cove-Snapshot") != "" || phase() != "running" {
		t.Errorf("the answer to a question that nobody asked has %v, and the engine is %s; want the engine's own", h, phase())
	}
	suspend(t)
	if h := header("/v1.44/info"); h.Get("Cove-Snapshot") == "" || phase() != "suspended" {
		t.Errorf("the answer to the same question at the next suspend has %v, and the engine is %s; want the snapshot's", h, phase())
	}
}
