package daemon

import (
	"fmt"
	"net"
	"os"
	"os/user"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

// lock takes the home for this process. It is let go by the process's end, however that comes.
func lock(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock Cove's folder: %w", err)
	}
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("another coved serves this folder already (%s): %w", path, err)
	}
	return func() { f.Close() }, nil
}

// listenLocal makes a named pipe that only the user can connect to. Message mode is what gives a pipe
// half-close.
func listenLocal(path string) (net.Listener, error) {
	u, err := user.Current()
	if err != nil {
		return nil, err
	}
	return winio.ListenPipe(path, &winio.PipeConfig{SecurityDescriptor: "D:P(A;;GA;;;" + u.Uid + ")", MessageMode: true, InputBufferSize: 64 << 10, OutputBufferSize: 64 << 10})
}
