package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/covedesk/cove/app/client"
	"github.com/spf13/cobra"
)

var logNames = []string{"coved", "console", "guestd", "containerd", "dockerd", "kernel"}

func logsCommand() *cobra.Command {
	var tail int
	var follow bool
	cmd := &cobra.Command{
		Use: "logs NAME", Short: "Show a log: coved, console, guestd, containerd, dockerd, kernel",
		Args: exactly(1), ValidArgs: logNames,
		Long: "Show a log. coved and console (what the guest prints while it boots) are there without a VM;\nguestd, containerd, dockerd and kernel are the guest's.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if tail < 0 {
				return usageError{errors.New("--tail must not be negative")}
			}
			c, err := connect(cmd.Context(), false)
			if err != nil {
				return err
			}
			err = c.Logs(cmd.Context(), os.Stdout, args[0], tail, follow)
			if errors.Is(err, client.ErrNoDaemon) {
				files := map[string]string{"coved": c.Home().Dir("log", "coved.log"), "console": c.Home().Dir("vm", "default", "console.log")}
				if path := files[args[0]]; path != "" {
					return cat(path)
				}
			}
			return err
		},
	}
	cmd.Flags().IntVarP(&tail, "tail", "n", 0, "the last so many lines; 0 means all that are kept")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "and what comes")
	return cmd
}

// cat shows a log of a coved that is gone.
func cat(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	defer f.Close()
	_, err = io.Copy(os.Stdout, f)
	return err
}
