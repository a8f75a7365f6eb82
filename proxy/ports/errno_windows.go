package ports

import (
	"errors"

	"golang.org/x/sys/windows"
)

func inUse(err error) bool     { return errors.Is(err, windows.WSAEADDRINUSE) }
func noAddress(err error) bool { return errors.Is(err, windows.WSAEADDRNOTAVAIL) }
func denied(err error) bool    { return errors.Is(err, windows.WSAEACCES) }
func refused(err error) bool {
	return errors.Is(err, windows.WSAECONNREFUSED) || errors.Is(err, windows.WSAECONNRESET)
}
