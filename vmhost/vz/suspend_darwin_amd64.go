//go:build cgo

package vz

import (
	"errors"

	"github.com/Code-Hex/vz/v3"
)

// saver is nil with the reason: the framework saves machines on Apple silicon only.
func (f *framework) saver(*vz.VirtualMachineConfiguration) (saver, error) {
	return nil, errors.New("the Virtualization framework saves machines on Apple silicon only")
}
