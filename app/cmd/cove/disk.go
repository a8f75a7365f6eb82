package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func diskCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "disk", Short: "The data disk", Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var asJSON bool
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
	bring.Flags().BoolVar(&asJSON, "json", false, "for programs")
	cmd.AddCommand(bring)
	return cmd
}
