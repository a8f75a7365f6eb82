//go:build !linux

package qemu

import (
	"context"
	"errors"

	"github.com/covedesk/cove/vmhost"
)

var errElsewhere = errors.New("machines on QEMU are started on Linux hosts only")

// Guard returns false: there are no guards on this system.
func Guard() bool { return false }

// Start is for Linux hosts.
func (d *Driver) Start(context.Context, vmhost.Spec) (vmhost.Machine, error) {
	return nil, errElsewhere
}

func (d *Driver) trial(context.Context, string, string) error { return errElsewhere }

func unavailable(string) string { return errElsewhere.Error() }

func hostIdentity() string { return "" }
