//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// shares runs the same work with files on a shared folder, on the guest's own disk, and on the host's.
func (b *bench) shares(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "==> shares")
	// In the folder of this run, which lies in /tmp and so is shared: the guest starts it from there.
	program := filepath.Join(b.work, "files")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, "./app/internal/bench/files")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build files: %w: %s", err, out)
	}
	host, err := exec.CommandContext(ctx, program, filepath.Join(b.work, "host")).Output()
	if err != nil {
		return fmt.Errorf("on the host: %w", err)
	}
	disk, err := b.cove(ctx, "shell", "--", program, "/var/tmp/bench")
	if err != nil {
		return err
	}
	shared, err := b.cove(ctx, "shell", "--", program, filepath.Join(b.work, "shared"))
	if err != nil {
		return err
	}
	var h, d, s map[string]float64
	for text, into := range map[string]*map[string]float64{string(host): &h, disk: &d, shared: &s} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			return fmt.Errorf("what was measured: %w", err)
		}
	}
	for _, row := range []struct{ key, what string }{
		{"write", "share: 256 MiB written and synced"}, {"read", "share: 256 MiB read"},
		{"create", "share: 10,000 files of 2 KiB created"}, {"list", "share: the same listed"}, {"stat", "share: the same listed with their states"}, {"remove", "share: the same removed"},
		{"git status, first", "share: `git status` of 5,000 files, nothing cached"}, {"git status, again", "share: `git status` again"},
		{"install", "share: an install tree of 4,400 files made"}, {"load", "share: the same read"},
	} {
		b.row(row.what, fmt.Sprintf("%.2f s", s[row.key]), fmt.Sprintf("%.2f s on the guest's disk, %.2f s on the host", d[row.key], h[row.key]), fmt.Sprintf("%.0f %% of the disk's speed", 100*d[row.key]/s[row.key]))
	}
	return nil
}
