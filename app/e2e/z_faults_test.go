//go:build e2e && linux

package e2e

import (
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests kill things. Each leaves the engine as it found it: running, with `kept` still there.

func one(t *testing.T, name string) int {
	t.Helper()
	all := pids(name)
	if len(all) != 1 {
		t.Fatalf("%d processes %q; want one: %v", len(all), name, all)
	}
	pid, err := strconv.Atoi(all[0])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func gone(pid int) bool { return syscall.Kill(pid, 0) == syscall.ESRCH }

func phase() string {
	out, _ := cove("status", "--json").Output()
	_, rest, _ := strings.Cut(string(out), `"phase":`)
	rest = strings.TrimLeft(rest, ` "`)
	word, _, _ := strings.Cut(rest, `"`)
	return word
}

func keep(t *testing.T) {
	t.Helper()
	output(t, docker("run", "--rm", "-v", "kept:/data", image, "sh", "-c", "echo precious > /data/x"))
}

func kept(t *testing.T) {
	t.Helper()
	if got := output(t, docker("run", "--rm", "-v", "kept:/data", image, "cat", "/data/x")); got != "precious\n" {
		t.Errorf("the volume holds %q; want precious", got)
	}
}

func TestZ01EngineKilledComesBack(t *testing.T) {
	keep(t)
	output(t, cove("shell", "--", "sh", "-c", "kill -9 $(pidof dockerd)"))
	eventually(t, "dockerd back", func() bool { return pingOnce() == nil })
	kept(t)
	output(t, cove("shell", "--", "sh", "-c", "kill -9 $(pidof containerd)"))
	eventually(t, "a container after containerd was killed", func() bool {
		return docker("run", "--rm", image, "true").Run() == nil
	})
	kept(t)
}

func TestZ02ASecondDaemonSaysWhoHoldsTheHome(t *testing.T) {
	out, code := failure(t, command(bin("coved")))
	contains(t, "a second coved", out, strconv.Itoa(one(t, "bin/coved")))
	if code != 1 {
		t.Errorf("exit status %d; want 1", code)
	}
}

func TestZ03HypervisorKilledRestartsOnce(t *testing.T) {
	keep(t)
	// What was written must be on the disk: a killed hypervisor is a pulled plug for the guest.
	output(t, cove("shell", "--", "sync"))
	pid := one(t, "qemu-system")
	hung := docker("run", "--rm", "--name", "hung", "-p", "7", image, "/bin/probe", "echo", "7")
	if err := hung.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the container that will be cut off", func() bool {
		out, err := docker("ps", "-q", "--filter", "name=hung", "--filter", "status=running").Output()
		return err == nil && len(out) > 0
	})
	at := hostPort(t, "hung", "tcp")
	answers(t, "tcp", at)
	cut, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	cut.SetDeadline(time.Now().Add(patience))
	io.WriteString(cut, "half")
	if _, err := io.ReadFull(cut, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	if err := hung.Wait(); err == nil {
		t.Error("a docker run whose VM was killed ended well")
	}
	if _, err := io.ReadAll(cut); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("an answer whose VM was killed ended with %v; want a reset", err)
	}
	eventually(t, "the engine after the hypervisor was killed", func() bool { return pingOnce() == nil })
	if again := one(t, "qemu-system"); again == pid {
		t.Error("the hypervisor is the killed one")
	}
	kept(t)
}

func TestZ04GuestPanicRestarts(t *testing.T) {
	eventually(t, "running", func() bool { return phase() == "running" })
	pid := one(t, "qemu-system")
	keep(t)
	// For the disk a panic is a pulled plug, and the engine does not sync the images that it unpacks.
	output(t, cove("shell", "--", "sync"))
	cove("shell", "--", "sh", "-c", "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger").Run()
	eventually(t, "the hypervisor's end after a panic", func() bool { return gone(pid) })
	if phase() == "failed" || docker("version").Run() != nil {
		status, _ := cove("status").CombinedOutput()
		contains(t, "cove status after a panic", string(status), "panic")
		output(t, cove("start"))
	}
	contains(t, "the console kept from the panic", output(t, cove("logs", "console")), "sysrq")
	kept(t)
}

// The promise: however coved dies, the guest stops its engine in order and QEMU is gone in 30 s; a new
// coved waits for that.
func TestZ08DaemonKilled(t *testing.T) {
	keep(t)
	coved, vm := one(t, "bin/coved"), one(t, "qemu-system")
	syscall.Kill(coved, syscall.SIGKILL)
	killed := time.Now()
	output(t, cove("start"))
	if !gone(vm) {
		t.Error("the old hypervisor is still there")
	}
	t.Logf("back %.1f s after the kill", time.Since(killed).Seconds())
	// In order, not by the guard's hand.
	contains(t, "the guest's log of its last life", output(t, cove("shell", "--", "cat", "/var/log/cove/guestd.log")), "host is gone")
	kept(t)
	one(t, "qemu-system")
}

// A container with a port is being stopped meanwhile: nobody lets go of it for the host, and the guest ends in time.
func TestZ09StaleSocketsAreReplaced(t *testing.T) {
	keep(t)
	vm := one(t, "qemu-system")
	at := "127.0.0.1:" + unused(t)
	id := ran(t, "-p", at+":7", image, "sh", "-c", "trap '' TERM; while true; do sleep 1; done")
	stop := docker("stop", "-t", "2", id)
	if err := stop.Start(); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(one(t, "bin/coved"), syscall.SIGKILL)
	if _, err := os.Lstat(socket()); err != nil {
		t.Fatal("a killed coved left no socket behind; this test shows nothing")
	}
	killed := time.Now()
	eventually(t, "QEMU's end", func() bool { return gone(vm) })
	// 30 s is the promise; a loaded machine gets as much again before this is called broken.
	if took := time.Since(killed); took > time.Minute {
		t.Errorf("QEMU was gone after %v; want 30 s", took)
	}
	stop.Wait()
	output(t, cove("start"))
	kept(t)
	if got := output(t, docker("inspect", "--format", "{{.State.Running}}", id)); got != "false\n" {
		t.Errorf("the container that was being stopped runs: %s", got)
	}
	if err := free("tcp", at); err != nil {
		t.Errorf("the port of the container that was being stopped is not free: %v", err)
	}
}
