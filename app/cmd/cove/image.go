package main

import (
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func imageCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "The guest image, and signatures of the engine's images", Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var asJSON bool
	info := &cobra.Command{
		Use: "info", Short: "The guest image: its digest, its size, and the version of each component", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd.Context(), true)
			if err != nil {
				return err
			}
			i, err := c.Image(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(os.Stdout, i)
			}
			w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "digest\t%s\n", i.Digest)
			fmt.Fprintf(w, "size\t%s, %s as it is distributed\n", size(i.Size), size(i.Compressed))
			fmt.Fprintf(w, "for\tlinux/%s, kernel %s, %d packages of the distribution\n", i.Arch, i.Kernel, i.Packages)
			fmt.Fprintf(w, "in\t%s\n", i.Dir)
			for _, c := range i.Components {
				stands := ""
				if c.Stands != "" {
					stands = " (stands for " + c.Stands + ")"
				}
				fmt.Fprintf(w, "%s\t%s%s\t%s\n", c.Name, c.Version, stands, c.Source)
			}
			return w.Flush()
		},
	}
	info.Flags().BoolVar(&asJSON, "json", false, "for programs")
	cmd.AddCommand(info, verifyCommand(), trustCommand())
	return cmd
}
