package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"

	"github.com/covedesk/cove/app/api"
	"github.com/spf13/cobra"
)

func portsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ports", Short: "Show the ports of this machine that lead to containers", Args: exactly(0),
		Long: "Show the ports of this machine that lead to containers, with the connections that they have now and had\nsince they were published. Each connection's client is in `cove logs coved`.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd.Context(), false)
			if err != nil {
				return err
			}
			all, err := c.Ports(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(os.Stdout, all)
			}
			if len(all) == 0 {
				fmt.Println("No port is published. `docker run -p 8080:80 IMAGE` publishes one.")
				return nil
			}
			return listPorts(os.Stdout, all)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs: docs/api.md describes it")
	return cmd
}

func listPorts(out io.Writer, all []api.Port) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head, faulty := "ADDRESS\tPROTOCOL\tCONTAINER\tTARGET\tOPEN\tTOTAL\tIN\tOUT", slices.ContainsFunc(all, func(p api.Port) bool { return p.Fault != "" })
	if faulty {
		head += "\tFAULT"
	}
	fmt.Fprintln(w, head)
	for _, p := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s", addresses(p), p.Protocol, containerOf(p), p.Target, p.Open, p.Total, size(p.BytesIn), size(p.BytesOut))
		if faulty {
			fmt.Fprintf(w, "\t%s", cmp.Or(printable(p.Fault), "-"))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func addresses(p api.Port) string {
	if p.Also == "" {
		return p.Address
	}
	return p.Address + ", " + p.Also
}

func containerOf(p api.Port) string {
	switch {
	case p.Container == nil:
		return "-"
	case p.Container.Name == "":
		return printable(p.Container.ID)
	}
	return printable(p.Container.Name)
}
