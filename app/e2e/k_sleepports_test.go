//go:build e2e && linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// suspend suspends the engine: there is no VM after it.
func suspend(t *testing.T) {
	t.Helper()
	output(t, cove("suspend"))
	if p := processes("qemu-system"); p != "" || phase() != "suspended" {
		t.Fatalf("after cove suspend the engine is %s, and there is %q", phase(), p)
	}
}

// begun says when a container was started: a wake starts none again.
func begun(t *testing.T, id string) string {
	t.Helper()
	return output(t, docker("inspect", "--format", "{{.State.StartedAt}}", id))
}

type portLine struct {
	Address, Protocol, Fault string
	Container                struct{ Name string }
	Total, Open, Dropped     int
}

func portLines(t *testing.T) (all []portLine) {
	t.Helper()
	if err := json.Unmarshal([]byte(output(t, cove("ports", "--json"))), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestConnectionsToAPublishedPortWakeTheEngine(t *testing.T) {
	id := published(t, "echo", "--name", "sleeper", "-p", "7")
	at, was := hostPort(t, id, "tcp"), begun(t, id)
	answers(t, "tcp", at)
	before, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	before.SetDeadline(time.Now().Add(patience))
	io.WriteString(before, "half")
	if _, err := io.ReadFull(before, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	suspend(t)
	if _, err := io.ReadAll(before); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection from before the sleep ended with %v; want a reset", err)
	}
	if l := portLines(t); len(l) != 1 || l[0].Address != at || l[0].Container.Name != "sleeper" || phase() != "suspended" {
		t.Errorf("while it sleeps the ports are %+v, and the engine is %s after that question", l, phase())
	}
	started := time.Now()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			text := strings.Repeat(fmt.Sprint("client ", i, " "), 1000)
			if got, err := echoed("tcp", at, text); err != nil || got != text {
				t.Errorf("client %d of a sleeping engine got %d of %d bytes, %v", i, len(got), len(text), err)
			}
		})
	}
	wg.Wait()
	t.Logf("50 connections served %.1f s after the first", time.Since(started).Seconds())
	if now := begun(t, id); now != was {
		t.Errorf("the container was started at %s, and before the sleep at %s", now, was)
	}
}

func TestDatagramsToAPublishedPortWakeTheEngine(t *testing.T) {
	id := published(t, "echo-udp", "-p", "7/udp")
	at := hostPort(t, id, "udp")
	answers(t, "udp", at)
	suspend(t)
	c, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	const n = 60
	for i := range n {
		fmt.Fprintf(c, "datagram %d", i)
	}
	buf := make([]byte, 100)
	for i := range n {
		m, err := c.Read(buf)
		if want := fmt.Sprint("datagram ", i); err != nil || string(buf[:m]) != want {
			t.Fatalf("answer %d is %q, %v; want %q", i, buf[:m], err, want)
		}
	}
	if l := portLines(t); len(l) != 1 || l[0].Dropped != 0 {
		t.Errorf("ports are %+v; want one, and nothing dropped", l)
	}
}

// A daemon that is started over a suspended engine holds its ports; it does not have to be the one that
// suspended it.
func TestAnotherDaemonHoldsThePortsOfASuspendedEngine(t *testing.T) {
	var at []string
	for range 2 {
		id := published(t, "echo", "-p", "127.0.0.1:"+unused(t)+":7")
		at = append(at, hostPort(t, id, "tcp"))
		answers(t, "tcp", at[len(at)-1])
	}
	suspend(t)
	old := one(t, "bin/coved")
	syscall.Kill(old, syscall.SIGKILL)
	eventually(t, "the daemon's end", func() bool { return gone(old) })
	taken, err := net.Listen("tcp", at[1])
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	coved := exec.Command(bin("coved"))
	coved.Env, coved.Dir = environ(), filepath.Dir(world.home)
	if err := coved.Start(); err != nil {
		t.Fatal(err)
	}
	go coved.Wait() // `cove quit` ends it
	faults := func() (all string) {
		for _, l := range portLines(t) {
			if l.Fault != "" {
				all += l.Address + ": " + l.Fault + "\n"
			}
		}
		return all
	}
	eventually(t, "another daemon", func() bool { return cove("status").Run() == nil })
	if phase() != "suspended" || !strings.Contains(faults(), at[1]) || strings.Contains(faults(), at[0]) {
		t.Errorf("over a daemon's restart the engine is %s, with faults %q; want suspended, and %s taken", phase(), faults(), at[1])
	}
	contains(t, "cove status", output(t, cove("status")), at[1]+"/tcp: address already in use")
	if got, err := echoed("tcp", at[0], "wake up"); got != "wake up" {
		t.Errorf("the port that is free answered %q, %v", got, err)
	}
	taken.Close()
	answers(t, "tcp", at[1])
	if f := faults(); f != "" {
		t.Errorf("faults are still %q", f)
	}
}

// What was saved cannot be used: the engine boots, and the container that it starts again gets who waits.
func TestAWakeThatTurnsIntoABootServesWhoWaits(t *testing.T) {
	id := published(t, "echo", "--restart", "always", "-p", "127.0.0.1:"+unused(t)+":7")
	at := hostPort(t, id, "tcp")
	answers(t, "tcp", at)
	suspend(t)
	saved := filepath.Join(world.home, "vm", "default", "saved")
	files, err := os.ReadDir(saved)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() != "coved.json" {
			if err := os.Truncate(filepath.Join(saved, f.Name()), 100); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, err := echoed("tcp", at, "from before the boot"); got != "from before the boot" {
		t.Errorf("who woke it got %q, %v", got, err)
	}
	contains(t, "cove status", output(t, cove("status")), "boots anew")
}
