//go:build linux

package boot

import (
	"errors"
	"io/fs"
	"os"
)

// reportedOrder is the size of free memory from which it is given back to the host, as a power of two of
// pages: 128 KiB. The kernel's own choice, 2 MiB, leaves a quarter of the free memory of a guest
// that has run for a while with it, in smaller pieces.
const reportedOrder = "5"

// ReportFreeMemory has the kernel give back what is free, in pieces of reportedOrder. A guest whose machine
// takes nothing back has nothing to set.
func ReportFreeMemory() error {
	err := os.WriteFile("/sys/module/page_reporting/parameters/page_reporting_order", []byte(reportedOrder), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
