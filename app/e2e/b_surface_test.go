//go:build e2e && linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// S04 of the security notes: what the host shows of us.
func TestFoldersAndSocketsAreTheUsersOnly(t *testing.T) {
	err := filepath.WalkDir(world.home, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return nil // gone meanwhile
		}
		mode := info.Mode()
		switch {
		case mode&fs.ModeSymlink != 0:
		case strings.HasPrefix(path, filepath.Join(world.home, "images")+"/"):
			// Public content, guarded by its digest; nobody else may write it.
			if mode.Perm()&0o022 != 0 {
				t.Errorf("%s has mode %v; others may write it", path, mode)
			}
		case mode.Perm()&0o077 != 0:
			t.Errorf("%s has mode %v; want nothing for others", path, mode)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNothingListensOnTheNetwork(t *testing.T) {
	for _, pid := range append(pids("coved"), pids("qemu-system")...) {
		out, err := exec.Command("ss", "-Hltunp").Output()
		if err != nil {
			t.Skip("no ss on this machine")
		}
		for line := range strings.Lines(string(out)) {
			// A UDP or TCP socket with a peer is a connection, not a listener.
			if strings.Contains(line, "pid="+pid+",") && strings.Contains(line, "LISTEN") {
				t.Errorf("process %s listens: %s", pid, line)
			}
		}
	}
	unix, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(unix)) {
		if strings.Contains(line, "@") && strings.Contains(strings.ToLower(line), "cove") {
			t.Errorf("an abstract socket of ours: %s", line)
		}
	}
}

func pids(name string) []string {
	var out []string
	for line := range strings.Lines(processes(name)) {
		out = append(out, strings.Fields(line)[0])
	}
	return out
}

func TestTheSecretIsNotOnTheKernelCommandLine(t *testing.T) {
	line := output(t, cove("shell", "--", "cat", "/proc/cmdline"))
	t.Log(line)
	if strings.Contains(strings.ToLower(line), "secret") || strings.Contains(line, "token") {
		t.Errorf("the kernel command line holds a secret: %s", line)
	}
}

func TestAContainerAndTheTransport(t *testing.T) {
	// One container tries all; each try prints a line.
	tries := []string{"vsock-squat 1023"}
	for _, port := range []string{"1", "1023", "1024", "2375"} {
		tries = append(tries, "vsock-connect 2 "+port)
	}
	for _, cid := range []string{"1", "3"} {
		tries = append(tries, "vsock-connect "+cid+" 1023")
	}
	said := strings.Split(strings.TrimSpace(output(t, docker("run", "--rm", "--privileged", "--network", "host", image, "sh", "-c", "probe "+strings.Join(tries, "; probe ")))), "\n")
	if len(said) != len(tries) {
		t.Fatalf("%d tries print %q; want a line each", len(tries), said)
	}
	for i, try := range tries {
		got := said[i]
		switch {
		case try == tries[0]:
			if !strings.Contains(got, "in use") && !strings.Contains(got, "permitted") && !strings.Contains(got, "denied") {
				t.Errorf("a container could listen where guestd does: %s", got)
			}
		case strings.HasPrefix(try, "vsock-connect 2 "):
			// The host listens nowhere: whatever a container asks of it over vsock is refused.
			if strings.Contains(got, "connected") {
				t.Errorf("a container reached the host over vsock, by %s: %s", try, got)
			}
		default:
			// guestd's own listener is for the host alone.
			if strings.Contains(got, "connected") && !strings.Contains(got, "read 0 bytes") && !strings.Contains(got, "reset") {
				t.Errorf("a container got an answer from guestd, by %s: %s", try, got)
			}
		}
	}
	// The control port belongs to guestd and is busy.
	unprivileged := output(t, docker("run", "--rm", image, "sh", "-c", "ls /dev | grep vport || echo none"))
	if strings.TrimSpace(unprivileged) != "none" {
		t.Errorf("an ordinary container sees the control port: %s", unprivileged)
	}
}

func TestStatusAndTimeline(t *testing.T) {
	var status map[string]any
	if err := json.Unmarshal([]byte(output(t, cove("status", "--json"))), &status); err != nil {
		t.Fatal(err)
	}
	if status["phase"] != "running" {
		t.Errorf("phase is %v; want running", status["phase"])
	}
	text := output(t, cove("status"))
	t.Log(text)
	contains(t, "cove status", text, "running", "tcg", "vsock")
	timeline := output(t, cove("status", "--timeline"))
	t.Log(timeline)
	contains(t, "cove status --timeline", timeline, "kernel", "dockerd", "containerd")
}

func TestImageInfo(t *testing.T) {
	info := output(t, cove("image", "info"))
	t.Log(info)
	contains(t, "cove image info", info, "sha256:", "containerd", "runc", "linux")
}

func TestShell(t *testing.T) {
	if got := output(t, cove("shell", "--", "id", "-u")); got != "0\n" {
		t.Errorf("id -u printed %q; want 0", got)
	}
	cmd := cove("shell", "--", "sh", "-c", "cat; exit 5")
	cmd.Stdin = strings.NewReader("through")
	out, _ := cmd.Output()
	if string(out) != "through" || cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("printed %q with status %d; want through, 5", out, cmd.ProcessState.ExitCode())
	}
	contains(t, "the guest's resolv.conf", output(t, cove("shell", "--", "cat", "/etc/resolv.conf")), "nameserver")
	contains(t, "the guest's hosts", output(t, cove("shell", "--", "cat", "/etc/hosts", "/etc/hostname")), "localhost", "cove")
	contains(t, "the guest's root", output(t, cove("shell", "--", "mount")), "erofs (ro", "/var type ext4 (rw", "discard")
}

func TestLogs(t *testing.T) {
	contains(t, "cove logs console", output(t, cove("logs", "console")), "--- start at")
	contains(t, "cove logs kernel", output(t, cove("logs", "kernel")), "Linux version")
	contains(t, "cove logs dockerd", output(t, cove("logs", "dockerd")), "API listen on")
	contains(t, "cove logs containerd", output(t, cove("logs", "containerd")), "containerd successfully booted")
	output(t, cove("logs", "kernel", "--tail", "5"))
	output(t, cove("logs", "coved", "--tail", "5"))
}

func TestSettings(t *testing.T) {
	contains(t, "cove config list", output(t, cove("config", "list")), "cpus", "memory", "disk")
	out, code := failure(t, cove("config", "set", "cpus", "0"))
	if code == 0 {
		t.Error("cpus=0 was taken")
	}
	contains(t, "cove config set cpus 0", out, "cpus", "1")
	out, _ = failure(t, cove("config", "set", "no.such.key", "1"))
	contains(t, "an unknown key", out, "no.such.key")
	output(t, cove("config", "set", "memory", "3GiB"))
	contains(t, "cove config get memory", output(t, cove("config", "get", "memory")), "3")
	output(t, cove("config", "unset", "memory"))
}

func TestLocalAPIWithCurlAndABrowser(t *testing.T) {
	client := http.Client{Transport: &http.Transport{Dial: func(string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(world.home, "run", "cove.sock"))
	}}}
	get := func(host, origin string) int {
		req, _ := http.NewRequest("GET", "http://cove/v1/status", nil)
		req.Host = host
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := get("localhost", ""); got != 200 {
		t.Errorf("a plain client got %d; want 200", got)
	}
	for _, bad := range [][2]string{{"evil.example", ""}, {"localhost", "https://evil.example"}, {"evil.example:80", "http://evil.example"}} {
		if got := get(bad[0], bad[1]); got != 403 {
			t.Errorf("Host %q, Origin %q got %d; want 403", bad[0], bad[1], got)
		}
	}
}

func TestTheDockerContext(t *testing.T) {
	cmd := docker("context", "inspect", "cove")
	contains(t, "docker context inspect cove", output(t, cmd), socket())
	ps := docker("--context", "cove", "ps")
	ps.Env = append(ps.Env, "DOCKER_HOST=")
	output(t, ps)
}

func TestAThousandConnections(t *testing.T) {
	const n = 1000
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed := map[string]int{}
	gate := make(chan struct{})
	for range n {
		wg.Go(func() {
			<-gate
			if err := pingOnce(); err != nil {
				mu.Lock()
				failed[err.Error()]++
				mu.Unlock()
			}
		})
	}
	close(gate)
	wg.Wait()
	if len(failed) > 0 {
		t.Errorf("of %d connections at once these failed: %v", n, failed)
	}
}

func pingOnce() error {
	conn, err := net.Dial("unix", socket())
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(conn); err != nil {
		return err
	}
	if !strings.HasPrefix(answer.String(), "HTTP/1.1 200") || !strings.HasSuffix(answer.String(), "OK") {
		return fmt.Errorf("answered %.40q", answer.String())
	}
	return nil
}
