//go:build !darwin || !cgo

package main

import (
	"log/slog"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/qemu"
)

// guard is another life of this program: see qemu.Guard.
func guard() bool { return qemu.Guard() }

func newDriver(home api.Home, log *slog.Logger) vmhost.Driver {
	return qemu.New(qemu.Options{Answers: home.Dir("accelerators.json"), Log: log})
}
