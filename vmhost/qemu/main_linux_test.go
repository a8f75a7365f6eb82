package qemu_test

import (
	"os"
	"testing"

	"github.com/covedesk/cove/vmhost/qemu"
)

// TestMain lets the tests' program be the guard of the machines that they start.
func TestMain(m *testing.M) {
	if qemu.Guard() {
		return
	}
	os.Exit(m.Run())
}
