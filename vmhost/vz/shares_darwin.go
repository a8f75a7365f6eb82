//go:build cgo

package vz

import (
	"fmt"
	"strconv"

	"github.com/Code-Hex/vz/v3"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/vmhost"
)

// addShares gives the guest the host's folders in one device, each named by its index, as guestd expects
// them. The framework serves them itself.
func addShares(c *vz.VirtualMachineConfiguration, shares []vmhost.Share) error {
	if len(shares) == 0 {
		return nil
	}
	folders := map[string]*vz.SharedDirectory{}
	for i, s := range shares {
		folder, err := vz.NewSharedDirectory(s.Path, s.ReadOnly)
		if err != nil {
			return fmt.Errorf("share %s: %w", s.Path, err)
		}
		folders[strconv.Itoa(i)] = folder
	}
	all, err := vz.NewMultipleDirectoryShare(folders)
	if err != nil {
		return fmt.Errorf("share folders: %w", err)
	}
	device, err := vz.NewVirtioFileSystemDeviceConfiguration(protocol.ShareTag)
	if err != nil {
		return fmt.Errorf("share folders: %w", err)
	}
	device.SetDirectoryShare(all)
	c.SetDirectorySharingDevicesVirtualMachineConfiguration([]vz.DirectorySharingDeviceConfiguration{device})
	return nil
}
