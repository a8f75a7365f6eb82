//go:build !linux

package share

import (
	"context"
	"errors"
	"io"
	"syscall"
)

// FS is not served on this system: its hypervisor shares folders itself.
type FS struct{}

// New says that nothing is served here.
func New([]Share, Options) (*FS, error) { return nil, errors.ErrUnsupported }

// HandleRequest answers nothing.
func (*FS) HandleRequest(_, _ [][]byte) (int, syscall.Errno) { return 0, syscall.ENOSYS }

// Close does nothing.
func (*FS) Close() error { return nil }

// Replay ends at once.
func (*FS) Replay(context.Context, io.ReadWriteCloser) error { return errors.ErrUnsupported }

// Settle has nothing to do.
func (*FS) Settle(context.Context) (func(), error) { return func() {}, nil }
