//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/covedesk/cove/app/api"
	"golang.org/x/sys/unix"
)

// awaitEnd waits until coved has let go of its folder, which is the last thing it does.
func awaitEnd(ctx context.Context) error {
	home, err := api.FindHome()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(home.Dir("run", "coved.lock"), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("wait for coved's end: %w", err)
	}
	defer f.Close()
	for unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}
