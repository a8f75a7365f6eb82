package keystore

import (
	"fmt"
	"os"
	"time"
)

// lockPatience is for a hundred others that came before, on a slow machine.
const lockPatience = 2 * time.Minute

// Lock takes the lock that a file stands for, among processes; the file is made when it is not there, and
// stays. The lock is let go by unlock, and by the end of the process.
func Lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	locked := make(chan error, 1)
	go func() { locked <- lockFile(f) }()
	select {
	case err := <-locked:
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return func() { f.Close() }, nil
	case <-time.After(lockPatience): // the file stays open: the goroutine has it
		return nil, fmt.Errorf("lock %s: another process has held it for %v", path, lockPatience)
	}
}
