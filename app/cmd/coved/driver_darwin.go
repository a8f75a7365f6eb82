//go:build cgo

package main

import (
	"log/slog"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/vz"
)

// guard does nothing: the machine lives in this process.
func guard() bool { return false }

func newDriver(_ api.Home, log *slog.Logger) vmhost.Driver { return vz.New(log) }
