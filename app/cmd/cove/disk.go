package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/covedesk/cove/app/api"
	"github.com/spf13/cobra"
)

func diskCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "disk", Short: "The data disk", Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var asJSON bool
	usage := &cobra.Command{
		Use: "usage", Short: "What the data disk holds, and what it takes on the host", Args: exactly(0),
		Long: "What the data disk holds, and what it takes on the host. What the engine keeps is shown while it runs, as the\nengine counts it: images share layers, so that the parts may come to more than the whole.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd.Context(), true)
			if err != nil {
				return err
			}
			u, err := c.DiskUsage(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(os.Stdout, u)
			}
			printDiskUsage(u)
			return nil
		},
	}
	compact := &cobra.Command{
		Use: "compact", Short: "Give what is free in the data disk back to the host", Args: exactly(0),
		Long: "Give what is free in the data disk back to the host. The engine does so by itself as things are deleted; this\nfinds what was missed. To have more to give, delete first: `docker system prune`.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd.Context(), true)
			if err != nil {
				return err
			}
			d, err := c.CompactDisk(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(os.Stdout, d)
			}
			fmt.Printf("%s came back to the host. The data disk takes %s of it now.\n", size(max(0, d.Before-d.Allocated)), size(d.Allocated))
			return nil
		},
	}
	bring := &cobra.Command{
		Use: "import FILE", Short: "Make the data disk of a backup of one", Args: exactly(1),
		Long: "Make the data disk of a copy of one: a raw, qcow2 or vmdk image. The engine must be stopped, and there\nmust be no data disk yet; FILE is only read. Use it to move Cove's data to another machine.",
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			c, err := connect(cmd.Context(), true)
			if err != nil {
				return err
			}
			d, err := c.ImportDisk(cmd.Context(), path)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(os.Stdout, d)
			}
			fmt.Printf("The data disk is %s now: %s, %s of it used on the host.\n", d.Path, size(d.Size), size(d.Allocated))
			return nil
		},
	}
	for _, c := range []*cobra.Command{usage, compact, bring} {
		c.Flags().BoolVar(&asJSON, "json", false, "for programs")
		cmd.AddCommand(c)
	}
	return cmd
}

func printDiskUsage(u api.DiskUsage) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(w, strings.Join(cells, "\t")) }
	if len(u.Engine) > 0 {
		row("WHAT", "COUNT", "IN USE", "SIZE", "RECLAIMABLE")
		for _, k := range u.Engine {
			row(strings.ReplaceAll(k.Kind, "-", " "), fmt.Sprint(k.Count), fmt.Sprint(k.Active), size(k.Size), size(k.Reclaimable))
		}
		w.Flush()
		fmt.Println()
	}
	if g := u.Guest; g != nil {
		row("in the VM", fmt.Sprintf("%s of %s used", size(g.Used), size(g.Size)))
	}
	row("on the host", fmt.Sprintf("%s of %s taken, %s more are free", size(u.Allocated), size(u.Size), size(u.HostFree)))
	row("file", u.Path)
	w.Flush()
	if u.Guest == nil {
		fmt.Println("What it holds is known while the engine runs: `cove start`.")
	}
}
