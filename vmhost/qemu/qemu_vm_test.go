//go:build e2e && linux

package qemu_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/disk"
	"github.com/covedesk/cove/vmhost/guestimage"
	"github.com/covedesk/cove/vmhost/qemu"
	"github.com/covedesk/cove/vmhost/vmtest"
)

// TestContract boots the guest image in the folder COVE_IMAGE_DIR about seven times: some minutes without
// hardware virtualisation. COVE_ACCELERATOR may name one, so that none has to be tried.
func TestContract(t *testing.T) {
	dir := os.Getenv("COVE_IMAGE_DIR")
	if dir == "" {
		t.Skip("COVE_IMAGE_DIR names no folder with a guest image")
	}
	image, err := guestimage.Open(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	answers := filepath.Join(t.TempDir(), "accelerators.json")
	vmtest.Run(t, func(t *testing.T) (vmhost.Driver, vmhost.Spec) {
		run, err := os.MkdirTemp("", "cove") // a test's own folder may be too long for a socket
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(run) })
		data := filepath.Join(run, "data.raw")
		if _, err := disk.Ensure(context.Background(), data, 8<<30); err != nil {
			t.Fatal(err)
		}
		log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
		return qemu.New(qemu.Options{Answers: answers, Log: log}), vmhost.Spec{
			Name: "vmtest", CPUs: 2, Memory: 1 << 30, Accelerator: os.Getenv("COVE_ACCELERATOR"),
			Kernel: image.Kernel(), Initrd: image.Initrd(), Root: image.Root(), Data: data, RunDir: run,
		}
	})
}
