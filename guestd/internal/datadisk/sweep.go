//go:build linux

package datadisk

import (
	"context"
	"log/slog"
	"time"
)

const (
	// sweepFirst is the first trim after a boot, when the engine has had its time: what was freed just before
	// a crash was never told.
	sweepFirst = 10 * time.Minute
	sweepEvery = time.Hour
)

// Sweep trims now and then until the context ends.
func (d *Disk) Sweep(ctx context.Context) {
	for wait := sweepFirst; ; wait = sweepEvery {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if n, err := d.Trim(ctx, trimRest); err != nil {
			slog.Warn("give free blocks back", "err", err)
		} else {
			slog.Info("free blocks were told to the host", "bytes", n)
		}
	}
}
