// Command coved is Cove's daemon: it owns the VM, docker.sock and the settings. `cove start` starts it
// when it does not run; by hand it is started without arguments, and ends in order on SIGTERM.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/internal/build"
	"github.com/covedesk/cove/app/internal/daemon"
)

func main() {
	if guard() {
		return
	}
	if len(os.Args) > 1 {
		if len(os.Args) == 2 && os.Args[1] == "--version" {
			fmt.Println("coved", build.Version)
			return
		}
		fmt.Fprintln(os.Stderr, "coved takes no arguments. COVE_HOME names its folder; see `cove help`.")
		os.Exit(2)
	}
	private()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	home, err := api.FindHome()
	if err == nil {
		err = daemon.Run(ctx, home, newDriver)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "coved:", err)
		os.Exit(1)
	}
}
