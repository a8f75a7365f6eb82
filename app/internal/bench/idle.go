//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// idleFor is how long coved is watched doing nothing.
const idleFor = 30 * time.Second

func (b *bench) idle(ctx context.Context) error {
	fmt.Fprintf(os.Stderr, "==> idle for %s\n", idleFor)
	// What the rows before needed is given back first.
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(10 * time.Second):
	}
	s, err := b.Status(ctx)
	if err != nil {
		return err
	}
	before, err := ticks(s.Daemon.PID)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(idleFor):
	}
	after, err := ticks(s.Daemon.PID)
	if err != nil {
		return err
	}
	b.row("coved's processor time when idle", fmt.Sprintf("%.2f %%", float64(after-before)/100/idleFor.Seconds()*100), "one CPU", "")
	own, err := b.memory(ctx)
	if err != nil {
		return err
	}
	b.row("coved's own memory", fmt.Sprintf("%.0f MB", float64(own)/1e6), "anonymous and file, after the rows above", "")
	out, err := b.cove(ctx, "shell", "--", "cat", "/proc/meminfo")
	if err != nil {
		return err
	}
	total, available := meminfo(out, "MemTotal"), meminfo(out, "MemAvailable")
	b.row("memory that the guest uses when idle", fmt.Sprintf("%d MB", (total-available)>>20), fmt.Sprintf("of %d MB", total>>20), "")
	return nil
}

// ticks is a process's processor time in hundredths of a second: proc(5), stat.
func ticks(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(f))
	}
	user, err := strconv.ParseInt(f[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(f[12], 10, 64)
	return user + system, err
}

func meminfo(text, name string) int64 {
	for line := range strings.Lines(text) {
		var n int64
		if k, _ := fmt.Sscanf(line, name+": %d kB", &n); k == 1 {
			return n << 10
		}
	}
	return 0
}

// shellInput runs a command line in the guest with input.
func (b *bench) shellInput(ctx context.Context, in io.Reader, line string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "cove"), "shell", "--", "sh", "-c", line)
	cmd.Env = b.environ()
	cmd.Stdin = in
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cove shell %s: %w: %s", line, err, out)
	}
	return nil
}
