//go:build linux

// Command guestd is the first process of the guest. It boots it, supervises the engine, and serves the
// host; it ends by switching the machine off. By other words it does small jobs in the guest.
package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/covedesk/cove/guestd/internal/bench"
	"github.com/covedesk/cove/guestd/internal/guest"
)

func main() {
	if os.Getpid() == 1 {
		// Half the default growth: memory that the guest's first process holds is nobody else's.
		debug.SetGCPercent(50)
		os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin") // the kernel gives one without /usr
		guest.New().Run()
		guest.PowerOff()
	}
	if len(os.Args) > 1 && os.Args[1] == "bench" {
		if err := bench.Run(os.Args[2:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "guestd bench:", err)
			os.Exit(1)
		}
		return
	}
	fmt.Fprintln(os.Stderr, "guestd is the first process of Cove's guest and does nothing outside of it.")
	os.Exit(2)
}
