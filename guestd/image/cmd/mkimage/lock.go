package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// lockCache waits until no other mkimage works in the cache, and keeps others out until unlock is called. What the
// other one built is then found.
func lockCache(ctx context.Context, cache string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for said := false; ; {
		locked, err := tryLock(f)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if locked {
			return func() { f.Close() }, nil
		}
		if !said {
			fmt.Println("==> waiting for another mkimage")
			said = true
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
