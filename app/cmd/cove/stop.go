package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/client"
	"github.com/spf13/cobra"
)

func stopCommand() *cobra.Command {
	return &cobra.Command{
		Use: "stop", Short: "Stop the engine and its VM in order", Args: exactly(0),
		Long: "Stop the containers, the engine and the VM in order, and wait until they are gone. coved stays, and\ndocker.sock answers with how to start again. If nothing runs, nothing happens.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return without(cmd.Context(), (*client.Client).Stop, "The engine is stopped.")
		},
	}
}

func quitCommand() *cobra.Command {
	return &cobra.Command{
		Use: "quit", Short: "Stop the engine and end coved", Args: exactly(0),
		Long: "Stop the engine, end coved, and give docker the context back that was current before.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := without(cmd.Context(), (*client.Client).Quit, "Cove has quit.")
			if err != nil {
				return err
			}
			return awaitEnd(cmd.Context())
		},
	}
}

// without does something that a coved that does not run has done already.
func without(ctx context.Context, do func(*client.Client, context.Context) error, then string) error {
	c, err := connect(ctx, false)
	if err != nil {
		return err
	}
	end := showNotices(ctx, c)
	err = do(c, ctx)
	end()
	if err != nil && !errors.Is(err, client.ErrNoDaemon) {
		return err
	}
	fmt.Println(then)
	return nil
}

// showNotices prints what people are told from now on, until the function that it gives is called.
func showNotices(ctx context.Context, c *client.Client) (end func()) {
	shown := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		c.Events(ctx, func(e api.Event) {
			if e.Status == nil {
				return
			}
			for _, n := range e.Status.Notices {
				if n.Time.After(shown) {
					shown = n.Time
					fmt.Fprintln(os.Stderr, colour(os.Stderr, amber, printable(n.Text)))
				}
			}
		})
	})
	return func() { cancel(); wg.Wait() }
}

func restartCommand() *cobra.Command {
	return &cobra.Command{
		Use: "restart", Short: "Stop the engine and start it again", Args: exactly(0),
		Long: "Stop the engine and its VM in order and start them again, with the settings as they are now.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd.Context(), true)
			if err != nil {
				return err
			}
			if err := c.Stop(cmd.Context()); err != nil {
				return err
			}
			return start(cmd.Context(), c)
		},
	}
}
