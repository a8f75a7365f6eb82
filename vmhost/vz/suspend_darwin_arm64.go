//go:build cgo

package vz

import (
	"errors"
	"fmt"

	"github.com/Code-Hex/vz/v3"
)

var _ saver = (*framework)(nil)

// saver is the machine's, where the framework can save and restore what the configuration says. The error says
// why it cannot.
func (f *framework) saver(c *vz.VirtualMachineConfiguration) (saver, error) {
	// vz raises an exception in place of an error where macOS, or the SDK that this program was built with, is
	// older than 14. A keyboard of that version is made by the same rule, with an error.
	if _, err := vz.NewMacKeyboardConfiguration(); err != nil {
		return nil, fmt.Errorf("it takes macOS 14, and a Cove that was built for it: %w", err)
	}
	can, err := c.ValidateSaveRestoreSupport()
	if err == nil && !can {
		err = errors.New("the framework does not say why")
	}
	if err != nil {
		return nil, plain(err)
	}
	return f, nil
}

func (f *framework) save(path string) error    { return plain(f.vm.SaveMachineStateToPath(path)) }
func (f *framework) restore(path string) error { return plain(f.vm.RestoreMachineStateFromURL(path)) }
