package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/client"
)

// memoryStatus prints the account of the VM's memory.
func memoryStatus(ctx context.Context, c *client.Client, asJSON bool) error {
	m, err := c.Memory(ctx)
	var e *api.Error
	switch {
	case errors.Is(err, client.ErrNoDaemon):
		fmt.Fprintln(os.Stderr, "coved is not running: there is no VM to look at.")
		return exitError(exitNotRunning)
	case errors.As(err, &e) && e.Cause == api.CauseNotRunning:
		fmt.Fprintln(os.Stderr, printable(e.Summary))
		return exitError(exitNotRunning)
	case err != nil:
		return err
	case asJSON:
		return printJSON(os.Stdout, m)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	row := func(name string, bytes int64, what string) { fmt.Fprintf(w, "%s\t%s\t%s\n", name, size(bytes), what) }
	row("guest", m.Size, "of the VM, in all")
	row("  used", m.Used, "by containers, the engine and the kernel")
	row("  cached", m.Cached, "of files; given up when somebody needs the room, and when nobody uses them")
	row("  free", m.Free, "")
	if m.Withheld > 0 {
		row("  withheld", m.Withheld, "by the setting memory")
	}
	row("swap", m.SwapUsed, "of "+size(m.SwapTotal))
	row("host", m.Resident, "held for the VM")
	row("given back", m.GivenBack, "or never asked for: the host has it for others")
	return w.Flush()
}
