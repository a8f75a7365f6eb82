//go:build unix

package ports

import (
	"errors"

	"golang.org/x/sys/unix"
)

func inUse(err error) bool     { return errors.Is(err, unix.EADDRINUSE) }
func noAddress(err error) bool { return errors.Is(err, unix.EADDRNOTAVAIL) }
func denied(err error) bool    { return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) }
func refused(err error) bool   { return errors.Is(err, unix.ECONNREFUSED) }
