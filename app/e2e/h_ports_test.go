//go:build e2e && linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// published runs a container that echoes on port 7 and gives its id. It is removed at the test's end.
func published(t *testing.T, probe string, args ...string) string {
	t.Helper()
	id := strings.TrimSpace(output(t, docker(append(append([]string{"run", "-d"}, args...), image, "/bin/probe", probe, "7")...)))
	t.Cleanup(func() { docker("rm", "-f", "-v", id).Run() })
	return id
}

// echoed sends a text to an address of the host, ends its side, and gives what comes back.
func echoed(network, address, text string) (string, error) {
	c, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if network == "udp" {
		buf := make([]byte, 65535)
		for range 20 { // the container may not listen yet, and datagrams may be lost
			io.WriteString(c, text)
			c.SetReadDeadline(time.Now().Add(3 * time.Second))
			var n int
			if n, err = c.Read(buf); err == nil {
				return string(buf[:n]), nil
			}
		}
		return "", err
	}
	c.SetDeadline(time.Now().Add(patience))
	// A reset is told once, and may be told to the write: a read after it sees a plain end.
	_, wrote := io.WriteString(c, text)
	shut := c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	return string(b), errors.Join(wrote, shut, err)
}

// answers waits until a published container echoes: it counts as started before its program listens.
func answers(t *testing.T, network, address string) {
	t.Helper()
	text := "to " + address
	eventually(t, "an echo from "+address, func() bool { got, err := echoed(network, address, text); return err == nil && got == text })
}

// free says whether the host's port can be bound now.
func free(network, address string) error {
	if network == "udp" {
		c, err := net.ListenPacket("udp4", address)
		if err == nil {
			c.Close()
		}
		return err
	}
	l, err := net.Listen("tcp4", address)
	if err == nil {
		l.Close()
	}
	return err
}

// hostPort is where docker says that the container's port 7 is.
func hostPort(t *testing.T, id, proto string) string {
	t.Helper()
	return strings.TrimSpace(output(t, docker("port", id, "7/"+proto)))
}

// unused is a port that nobody has on loopback, and that nobody takes before the test does.
func unused(t *testing.T) string {
	t.Helper()
	for range 100 {
		// Not one that the system gives to connections: another may have it a moment later.
		port := strconv.Itoa(20000 + rand.IntN(12000))
		if free("tcp", "127.0.0.1:"+port) == nil {
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

func TestPublishedPortsAreOnTheHost(t *testing.T) {
	port := unused(t)
	published(t, "echo", "--name", "echo-tcp", "-p", port+":7")
	for _, host := range []string{"127.0.0.1", "::1"} {
		answers(t, "tcp", net.JoinHostPort(host, port))
	}
	contains(t, "docker port", hostPort(t, "echo-tcp", "tcp"), "127.0.0.1:"+port)
	big := strings.Repeat("0123456789abcdef", 1<<16)
	if got, err := echoed("tcp", "127.0.0.1:"+port, big); err != nil || got != big {
		t.Errorf("1 MiB through the port: %d bytes came back, %v", len(got), err)
	}
	contains(t, "cove ports", output(t, cove("ports")), "127.0.0.1:"+port+", [::1]:"+port, "echo-tcp")
	var list []struct {
		Address   string
		Container struct{ Name string }
		Total     int
		BytesIn   int
	}
	if err := json.Unmarshal([]byte(output(t, cove("ports", "--json"))), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Container.Name != "echo-tcp" || list[0].Total < 3 || list[0].BytesIn < len(big) {
		t.Errorf("cove ports --json: %+v; want one port of echo-tcp with its connections and bytes", list)
	}
	contains(t, "coved's log", output(t, cove("logs", "coved")), "at=127.0.0.1:"+port+" client=127.0.0.1:", "client=[::1]:")
}

func TestPublishedDatagramsGoBothWays(t *testing.T) {
	id := published(t, "echo-udp", "-p", "7/udp")
	at := hostPort(t, id, "udp")
	answers(t, "udp", at)
	big := strings.Repeat("x", 8000)
	if got, err := echoed("udp", at, big); err != nil || got != big {
		t.Errorf("a datagram of 8000 bytes: %d came back, %v", len(got), err)
	}
}

func TestATakenPortFailsAndLeavesNothing(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	at := taken.Addr().String()
	other := unused(t)
	args := []string{"run", "--rm", "-p", "127.0.0.1:" + other + ":8", "-p", at + ":7", image, "true"}
	out, _ := failure(t, docker(args...))
	contains(t, "docker run on a taken port", out, at+"/tcp", "address already in use")
	eventually(t, "the other port free again", func() bool { return free("tcp", "127.0.0.1:"+other) == nil })
	taken.Close()
	output(t, docker(args...))
}

func TestRangesAndRandomPortsSkipWhatTheHostHas(t *testing.T) {
	var taken []net.Listener
	var first int
	for len(taken) < 2 { // two neighbours with a free one after them
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		first = l.Addr().(*net.TCPAddr).Port
		m, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", first+1))
		if err != nil || free("tcp", fmt.Sprintf("127.0.0.1:%d", first+2)) != nil {
			l.Close()
			continue
		}
		taken = []net.Listener{l, m}
	}
	for _, l := range taken {
		defer l.Close()
	}
	id := published(t, "echo", "-p", fmt.Sprintf("%d-%d:7", first, first+2))
	want := fmt.Sprintf("127.0.0.1:%d", first+2)
	if got := hostPort(t, id, "tcp"); got != want {
		t.Errorf("of a range with two taken ports docker took %s; want %s", got, want)
	}
	answers(t, "tcp", want)
	out, _ := failure(t, docker("run", "--rm", "-p", fmt.Sprintf("%d-%d:7", first, first+1), image, "true"))
	contains(t, "docker run on a range that is taken whole", out, "failed to bind host port 127.0.0.1:", "address already in use")
	id = published(t, "echo", "-p", "7")
	answers(t, "tcp", hostPort(t, id, "tcp"))
}

func TestAddressesOfTheHost(t *testing.T) {
	port := unused(t)
	published(t, "echo", "-p", "127.0.0.2:"+port+":7")
	answers(t, "tcp", "127.0.0.2:"+port)
	if err := free("tcp", "127.0.0.1:"+port); err != nil {
		t.Errorf("a port on 127.0.0.2 takes 127.0.0.1 too: %v", err)
	}
	published(t, "echo", "-p", "[::1]:"+port+":7")
	answers(t, "tcp", "[::1]:"+port)
	out, _ := failure(t, docker("run", "--rm", "-p", "192.0.2.7:"+port+":7", image, "true"))
	contains(t, "docker run on a foreign address", out, "192.0.2.7:"+port, "cannot assign requested address")
	out, _ = failure(t, docker("run", "--rm", "-p", port+":7/sctp", image, "true"))
	contains(t, "docker run with sctp", out, "sctp")
}

func TestACustomNetworkPublishesOnLoopback(t *testing.T) {
	output(t, docker("network", "create", "ports-net"))
	t.Cleanup(func() { docker("network", "rm", "ports-net").Run() })
	id := published(t, "echo", "--network", "ports-net", "-p", "7")
	at := hostPort(t, id, "tcp")
	contains(t, "docker port", at, "127.0.0.1:")
	answers(t, "tcp", at)
}

// The port is there when docker run has returned, and gone when docker stop has.
func TestPortsComeAndGoInStep(t *testing.T) {
	at := "127.0.0.1:" + unused(t)
	output(t, docker("create", "--name", "in-step", "--stop-timeout", "0", "-p", at+":7", image, "/bin/probe", "echo", "7"))
	t.Cleanup(func() { docker("rm", "-f", "in-step").Run() })
	for i := range 10 {
		output(t, docker("start", "in-step"))
		c, err := net.DialTimeout("tcp", at, patience)
		if err != nil {
			t.Fatalf("start %d: connect: %v", i, err)
		}
		output(t, docker("stop", "in-step"))
		if err := free("tcp", at); err != nil {
			t.Fatalf("stop %d: the port is not free: %v", i, err)
		}
		c.Close()
	}
}

// What docker run made is gone when Ctrl-C has ended it.
func TestCtrlCLeavesNothing(t *testing.T) {
	at := "127.0.0.1:" + unused(t)
	run := docker("run", "--rm", "--name", "interrupted", "-p", at+":7", image, "/bin/probe", "echo", "7")
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	answers(t, "tcp", at)
	run.Process.Signal(os.Interrupt)
	run.Wait()
	if err := free("tcp", at); err != nil {
		t.Errorf("after Ctrl-C the port is not free: %v", err)
	}
	if left := output(t, docker("ps", "-aq", "--filter", "name=interrupted")); left != "" {
		t.Errorf("after Ctrl-C there is still %s", left)
	}
}

// coved hangs. In the VM the engine stops a container with a port all the same; from the host its socket hangs with it,
// and when it goes on the call does, and no port is left.
func TestAStopDoesNotHangOnAHungDaemon(t *testing.T) {
	var ids, at []string
	for range 2 {
		id := published(t, "echo", "--stop-timeout", "0", "-p", "127.0.0.1:"+unused(t)+":7")
		ids, at = append(ids, id), append(at, hostPort(t, id, "tcp"))
		answers(t, "tcp", at[len(at)-1])
	}
	// It stops the first, and then writes to the disk, which is seen on the host without coved.
	stopper := ran(t, "-v", "/var/run/docker.sock:/docker.sock", "-v", "/data", image, "sh", "-c",
		"echo ready; sleep 3; probe engine-post /docker.sock /containers/"+ids[0]+"/stop; dd if=/dev/urandom of=/data/done bs=1M count=128; sync; sleep 1d")
	eventually(t, "who stops it", func() bool { return strings.Contains(output(t, docker("logs", stopper)), "ready") })
	coved, before := one(t, "bin/coved"), settled(t)
	if err := syscall.Kill(coved, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(coved, syscall.SIGCONT)
	remove := docker("rm", "-f", ids[1])
	if err := remove.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of a stop while coved hangs", func() bool { return taken(t) > before+48*mib })
	syscall.Kill(coved, syscall.SIGCONT)
	if err := remove.Wait(); err != nil {
		t.Errorf("docker rm -f over a time when coved hung: %v", err)
	}
	if err := free("tcp", at[1]); err != nil {
		t.Errorf("after docker rm -f the port is not free: %v", err)
	}
	said := output(t, docker("logs", stopper))
	_, took, _ := strings.Cut(said, "answered after ")
	seconds, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(took), " s"), 64)
	if err != nil || seconds > 60 {
		t.Errorf("in the VM a stop while coved hung says %q; want an answer in a minute", said)
	}
	t.Logf("in the VM a stop while coved hung took %.1f s", seconds)
	eventually(t, "the stopped container's port free", func() bool { return free("tcp", at[0]) == nil })
	if got := strings.TrimSpace(output(t, docker("inspect", "--format", "{{.State.Running}}", ids[0]))); got != "false" {
		t.Errorf("the container that was stopped runs: %s", got)
	}
	answers(t, "tcp", hostPort(t, published(t, "echo", "-p", "7"), "tcp"))
}

func TestAPortBelow1024SaysWhatToDo(t *testing.T) {
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err != nil || strings.TrimSpace(string(b)) == "0" || os.Getuid() == 0 {
		t.Skip("this system lets this user have low ports")
	}
	out, _ := failure(t, docker("run", "--rm", "-p", "81:7", image, "true"))
	contains(t, "docker run on port 81", out, "127.0.0.1:81", "permission denied")
	contains(t, "cove status", output(t, cove("status")), "ip_unprivileged_port_start")
}

func TestPublishedPortsWithinTheGuest(t *testing.T) {
	id := published(t, "echo", "-p", "7")
	at := hostPort(t, id, "tcp")
	answers(t, "tcp", at)
	got := output(t, docker("run", "--rm", "--network", "host", image, "/bin/probe", "ask", at, "from within"))
	contains(t, "the host network's way to a published port", got, "from within")
}

func TestAPortsEndIsNoticedHoweverItComes(t *testing.T) {
	id := published(t, "echo", "--restart", "always", "-p", "127.0.0.1:"+unused(t)+":7")
	at := hostPort(t, id, "tcp")
	answers(t, "tcp", at)
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	output(t, cove("shell", "--", "sh", "-c", "kill -9 $(pidof docker-proxy)"))
	eventually(t, "the port of a killed proxy free", func() bool { return free("tcp", at) == nil })
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("its connection lives on")
	}
	output(t, docker("restart", "-t", "0", id))
	answers(t, "tcp", at)

	output(t, cove("shell", "--", "sh", "-c", "kill -9 $(pidof dockerd)"))
	eventually(t, "the port again after dockerd was killed", func() bool { got, err := echoed("tcp", at, "again"); return err == nil && got == "again" })
}

func TestAServedPortOutlivesNobody(t *testing.T) {
	at := hostPort(t, published(t, "echo", "--rm", "-p", "7"), "tcp")
	answers(t, "tcp", at)
	err := free("tcp", at)
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("while it is published, binding %s gives %v; want that it is in use", at, err)
	}
}

// BuildKit's containers inherit the filter by which published ports wait for the host: their own ports must
// not, even one that the host has given away.
func TestABuildsOwnPortsAreNotPublished(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+image+"\nRUN [\"/bin/probe\", \"bind\", \""+port+"\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := docker("build", "--progress=plain", "--no-cache", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("docker build: %v\n%s", err, out)
	}
	contains(t, "the build", string(out), "bound "+port)
}
