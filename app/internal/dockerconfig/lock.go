package dockerconfig

import (
	"errors"
	"io/fs"
	"sync"
	"time"
)

// lockPatience is how long another process of ours may take; it needs milliseconds.
const lockPatience = 10 * time.Second

// now stands here for tests that count backups.
var now = time.Now

// here is for those of this process, who would not see each other's lock on every system.
var here sync.Mutex

// lock is for those of ours who read config.json and replace it: two at once would lose a change.
func lock(dir string) (unlock func(), err error) {
	here.Lock()
	for end := time.Now().Add(lockPatience); ; time.Sleep(10 * time.Millisecond) {
		open, taken, err := tryLock(dir)
		switch {
		case err != nil:
			here.Unlock()
			return nil, err
		case !taken:
			return func() { open(); here.Unlock() }, nil
		case time.Now().After(end):
			here.Unlock()
			return nil, errors.New("another program of Cove's is changing them and does not come to an end; try again")
		}
	}
}

func ignoreNone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
