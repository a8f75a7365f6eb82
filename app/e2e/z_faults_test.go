//go:build e2e && linux

package e2e

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests break things. Each leaves the engine as it found it: running, with `kept` still there.

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

func TestZ05StopThenACallSaysHowToStart(t *testing.T) {
	eventually(t, "running", func() bool { return phase() == "running" })
	output(t, cove("stop"))
	if p := processes("qemu-system"); p != "" {
		t.Errorf("after cove stop: %s", p)
	}
	out, _ := failure(t, docker("ps"))
	contains(t, "docker ps after cove stop", out, "cove start")
	status := cove("status")
	text, _ := status.CombinedOutput()
	contains(t, "cove status", string(text), "stopped")
	output(t, cove("stop")) // a second time is no error
}

func TestZ06TwoStartsAtOnceAndACallThatWaits(t *testing.T) {
	first, second := cove("start"), cove("start")
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "starting", func() bool { p := phase(); return p == "starting" || p == "running" })
	// A call during the start is held, then served.
	kept(t)
	if err := first.Wait(); err != nil {
		t.Error("first start:", err)
	}
	if err := second.Wait(); err != nil {
		t.Error("second start:", err)
	}
	one(t, "qemu-system")
}

func TestZ07StopDuringStart(t *testing.T) {
	output(t, cove("stop"))
	start := cove("start")
	var said bytes.Buffer
	start.Stdout, start.Stderr = &said, &said
	if err := start.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a hypervisor", func() bool { return processes("qemu-system") != "" })
	output(t, cove("stop"))
	if err := start.Wait(); err == nil {
		t.Errorf("a start that was stopped says that it worked: %s", said.String())
	}
	if p := phase(); p != "stopped" {
		t.Errorf("phase %s; want stopped", p)
	}
	if p := processes("qemu-system"); p != "" {
		t.Errorf("left: %s", p)
	}
	output(t, cove("start"))
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

func TestZ09StaleSocketsAreReplaced(t *testing.T) {
	vm := one(t, "qemu-system")
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
	output(t, cove("start"))
	kept(t)
}

func TestZ10AlienDataDiskIsNotTouched(t *testing.T) {
	output(t, cove("quit"))
	disk := filepath.Join(world.home, "vm", "default", "data.raw")
	if err := os.Rename(disk, disk+".mine"); err != nil {
		t.Fatal(err)
	}
	alien := bytes.Repeat([]byte("somebody's data "), 1<<16)
	if err := os.WriteFile(disk, alien, 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := failure(t, cove("start"))
	contains(t, "cove start on an alien disk", out, "disk")
	if st, err := os.Stat(disk); err != nil || st.Size() != int64(len(alien)) {
		t.Fatalf("the alien disk has another size (%v)", err)
	}
	if after, err := os.ReadFile(disk); err != nil || !bytes.Equal(after, alien) {
		t.Errorf("the alien disk was changed (%v)", err)
	}
	output(t, cove("quit"))
	if err := os.Rename(disk+".mine", disk); err != nil {
		t.Fatal(err)
	}
	output(t, cove("start"))
	kept(t)
}

func TestZ11WhatCannotStartExplainsItself(t *testing.T) {
	output(t, cove("quit"))
	elsewhere := func(home string, env ...string) *exec.Cmd {
		cmd := cove("start")
		cmd.Env = append(cmd.Env, append(env, "COVE_HOME="+home)...)
		return cmd
	}
	quit := func(home string) {
		cmd := cove("quit")
		cmd.Env = append(cmd.Env, "COVE_HOME="+home)
		cmd.Run()
	}

	long := filepath.Join(world.work, strings.Repeat("long", 25))
	out, _ := failure(t, elsewhere(long))
	contains(t, "a home too long for sockets", out, "COVE_HOME")

	home := filepath.Join(world.work, "h2")
	out, _ = failure(t, elsewhere(home, "PATH=/nonexistent"))
	contains(t, "no QEMU", out, "QEMU", "install")
	quit(home)

	dir := filepath.Join(world.work, "old")
	os.Mkdir(dir, 0o755)
	os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte("#!/bin/sh\necho 'QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7)'\n"), 0o755)
	out, _ = failure(t, elsewhere(home, "PATH="+dir+":/usr/bin:/bin"))
	contains(t, "QEMU 7.2", out, "7.2", "backports")
	quit(home)

	image := filepath.Join(world.work, "damaged")
	if err := exec.Command("cp", "-a", bin("image"), image).Run(); err != nil {
		t.Fatal(err)
	}
	os.Chmod(filepath.Join(image, "root.erofs"), 0o644)
	f, err := os.OpenFile(filepath.Join(image, "root.erofs"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("damage"), 1<<20)
	f.Close()
	out, _ = failure(t, elsewhere(home, "COVE_IMAGE="+image))
	contains(t, "a damaged image", out, "root.erofs", "digest")
	quit(home)

	out, _ = failure(t, elsewhere(home, "COVE_IMAGE="+filepath.Join(world.work, "none")))
	contains(t, "no image", out, "image")
	quit(home)

	os.MkdirAll(home, 0o700)
	os.WriteFile(filepath.Join(home, "settings.json"), []byte(`{"memory": "900 TiB"}`), 0o600)
	out, _ = failure(t, elsewhere(home))
	contains(t, "more memory than there is", out, "memory")
	quit(home)
	output(t, cove("start"))
	kept(t)
}

func TestZ12ABackupOfTheDiskComesBack(t *testing.T) {
	keep(t)
	output(t, cove("stop"))
	disk := filepath.Join(world.home, "vm", "default", "data.raw")
	backup := filepath.Join(world.work, "backup.qcow2")
	output(t, command("qemu-img", "convert", "-O", "qcow2", disk, backup))
	out, _ := failure(t, cove("disk", "import", backup))
	contains(t, "an import over a disk that is there", out, disk)
	if err := os.Remove(disk); err != nil {
		t.Fatal(err)
	}
	output(t, cove("disk", "import", backup))
	output(t, cove("start"))
	kept(t)
	out, _ = failure(t, cove("disk", "import", backup))
	contains(t, "an import while the engine runs", out, "cove stop")
}

// Quit ends everything; it is the last test and TestMain checks that nothing is left.
func TestZ99QuitRestoresTheContext(t *testing.T) {
	output(t, cove("quit"))
	if p := processes("coved"); p != "" {
		t.Errorf("after cove quit: %s", p)
	}
	show := docker("context", "show")
	show.Env = append(show.Env, "DOCKER_HOST=")
	if got := strings.TrimSpace(output(t, show)); got != "default" {
		t.Errorf("the docker context after cove quit is %q; want default", got)
	}
}
