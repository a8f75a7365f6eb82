//go:build linux

// Command guestd is the first process of the guest. It boots it, supervises the engine, and serves the
// host; it ends by switching the machine off. By other words it does small jobs in the guest.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/covedesk/cove/guestd/internal/bench"
	"github.com/covedesk/cove/guestd/internal/guest"
	"github.com/covedesk/cove/guestd/internal/ports"
)

func main() {
	if os.Getpid() == 1 {
		// Half the default growth: memory that the guest's first process holds is nobody else's.
		debug.SetGCPercent(50)
		os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin") // the kernel gives one without /usr
		guest.New().Run()
		guest.PowerOff()
	}
	if filepath.Base(os.Args[0]) == ports.UserlandName {
		os.Exit(ports.Userland(os.Args[1:]))
	}
	word := ""
	if len(os.Args) > 1 {
		word = os.Args[1]
	}
	var err error
	switch word {
	case "bench":
		err = bench.Run(os.Args[2:], os.Stdout)
	case ports.LaunchWord:
		err = ports.Launch(os.Args[2:])
	default:
		usage()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "guestd %s: %v\n", word, err)
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "guestd is the first process of Cove's guest and does nothing outside of it.")
	os.Exit(2)
}
