//go:build cgo

package vz

import (
	"errors"
	"fmt"
	"strings"

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

func (f *framework) pause() error {
	if !f.vm.CanPause() {
		return fmt.Errorf("the framework does not offer to pause it in state %s", f.vm.State())
	}
	return plain(f.vm.Pause())
}

func (f *framework) goOn() error               { return plain(f.vm.Resume()) }
func (f *framework) save(path string) error    { return plain(f.vm.SaveMachineStateToPath(path)) }
func (f *framework) restore(path string) error { return plain(f.vm.RestoreMachineStateFromURL(path)) }

// plain is what the framework says, as a clause of a sentence.
func plain(err error) error {
	var said *vz.NSError
	if !errors.As(err, &said) {
		return err
	}
	return fmt.Errorf("the Virtualization framework says: %s (%s %d)", strings.TrimSuffix(said.LocalizedDescription, "."), said.Domain, said.Code)
}
