package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
)

func suspendCommand() *cobra.Command {
	return &cobra.Command{
		Use: "suspend", Short: "Save the engine with its containers running, and end its VM", Args: exactly(0),
		Long: "Save the VM to the disk as it is, containers and all, and end it: it then needs no memory and no processor.\n" +
			"A VM that cannot be saved, or with the setting sleep.to at memory, is paused: its memory stays.\n" +
			"docker.sock and published ports stay open; the first call or connection brings the engine back, and so\n" +
			"does cove start. Connections that are open now end.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd.Context(), false)
			if err != nil {
				return err
			}
			begun := time.Now()
			if err := c.Suspend(cmd.Context()); err != nil {
				return err
			}
			fmt.Printf("%s after %.1f s", colour(os.Stdout, green, "The engine is suspended"), time.Since(begun).Seconds())
			if s, err := c.Status(cmd.Context()); err == nil && s.Saved != nil {
				fmt.Printf(" (%s on the disk)", size(s.Saved.Bytes))
			} else if err == nil && s.Paused != nil {
				fmt.Printf(" (%s)", stays(*s.Paused))
			}
			fmt.Println(". It comes back by itself when it is used.")
			return nil
		},
	}
}
