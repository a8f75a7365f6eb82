//go:build e2e && linux

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// These tests are about an engine that is stopped. A boot takes long, so each takes the engine as it is: what one does
// to the disk of a stopped one shows in the volume `kept` when another has started it.

// stopped has the engine stopped, with the volume on its disk.
func stopped(t *testing.T) {
	t.Helper()
	if phase() == "running" {
		keep(t)
		output(t, cove("stop"))
	}
}

func TestZ10AlienDataDiskIsNotTouched(t *testing.T) {
	stopped(t)
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
}

func TestZ06TwoStartsAtOnceAndACallThatWaits(t *testing.T) {
	stopped(t)
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

// The backup is what the next test starts.
func TestZ12ABackupOfTheDiskComesBack(t *testing.T) {
	stopped(t)
	disk := filepath.Join(world.home, "vm", "default", "data.raw")
	backup := filepath.Join(world.work, "backup.qcow2")
	output(t, command("qemu-img", "convert", "-O", "qcow2", disk, backup))
	out, _ := failure(t, cove("disk", "import", backup))
	contains(t, "an import over a disk that is there", out, disk)
	if err := os.Remove(disk); err != nil {
		t.Fatal(err)
	}
	output(t, cove("disk", "import", backup))
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

func TestZ12AnImportWhileTheEngineRunsIsRefused(t *testing.T) {
	output(t, cove("start"))
	kept(t)
	file := filepath.Join(t.TempDir(), "other.qcow2")
	output(t, command("qemu-img", "create", "-f", "qcow2", file, "1G"))
	out, _ := failure(t, cove("disk", "import", file))
	contains(t, "an import while the engine runs", out, "cove stop")
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
