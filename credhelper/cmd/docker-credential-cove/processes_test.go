package main_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// A hundred processes store at once on a machine where no keystore is chosen yet: they choose the same
// one, and none undoes what another has stored.
func TestHundredStoresLoseNothing(t *testing.T) {
	m := headless(t)
	if runtime.GOOS != "linux" {
		m.run("", "use", "file") // elsewhere a machine has a keystore of its own, and the tester's entries are in it
	}
	const n = 100
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			a := m.store(fmt.Sprintf("r%d.example.com", i), fmt.Sprintf("user%d", i), fmt.Sprintf("secret %d", i))
			if a.code != 0 {
				t.Errorf("%s: %d, %q, %q", a.call, a.code, a.out, a.errOut)
			}
		})
	}
	wg.Wait()
	for i := range n {
		server := fmt.Sprintf("r%d.example.com", i)
		m.run(server, "get").is(t, credential(server, fmt.Sprintf("user%d", i), fmt.Sprintf("secret %d", i)), "", 0)
	}
	for i := range n {
		wg.Go(func() {
			if i%2 == 0 {
				m.run(fmt.Sprintf("r%d.example.com", i), "erase").is(t, "", "", 0)
			} else {
				m.store(fmt.Sprintf("more%d.example.com", i), "u", "s").is(t, "", "", 0)
			}
		})
	}
	wg.Wait()
	var users map[string]string
	if err := json.Unmarshal([]byte(m.run("", "list").out), &users); err != nil || len(users) != n {
		t.Errorf("list gives %d entries, %v; want %d", len(users), err, n)
	}
}

// A process that is killed leaves the file as it was, or with its entry; what others stored stays.
func TestKilledStoreDamagesNothing(t *testing.T) {
	m := headless(t)
	m.run("", "use", "file")
	stored := map[string]bool{}
	for i := range 40 {
		server := fmt.Sprintf("r%d.example.com", i)
		cmd := m.command(program, "store")
		cmd.Stdin = strings.NewReader(strings.TrimSpace(credential(server, "u", "secret")))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Somewhere within its life, which is a few milliseconds.
		kill := time.AfterFunc(time.Duration(rand.IntN(12000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
		if cmd.Wait() == nil {
			stored[server] = true
		}
		kill.Stop()
	}
	a := m.run("", "list")
	var users map[string]string
	if err := json.Unmarshal([]byte(a.out), &users); err != nil || a.code != 0 || a.errOut != "" {
		t.Fatalf("list gives %q, %q, %v", a.out, a.errOut, err)
	}
	for server := range stored {
		if users[server] != "u" {
			t.Errorf("%s was stored and is gone", server)
		}
	}
	m.store("last.example.com", "u", "s").is(t, "", "", 0)
	t.Logf("%d of 40 were not killed; %d entries", len(stored), len(users))
}
