// Command cove is Cove's CLI: a client of coved, which it starts when it does not run.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/client"
	"github.com/spf13/cobra"
)

// Exit statuses, as the help says.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitNotRunning  = 3
	exitInterrupted = 130
)

const long = `Cove runs the container engine in a small VM and serves it on a local docker.sock.

Exit statuses: 0 it worked, 1 it did not, 2 the command line is wrong, 3 the engine does not run
(cove status), 130 interrupted; cove shell gives the status of its command.

COVE_HOME moves everything of Cove's elsewhere (default ~/.cove). NO_COLOR switches colours off.`

// exitError ends the program with a status and no further word.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usageError is a wrong command line.
type usageError struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	root := &cobra.Command{
		Use: "cove", Short: "Containers on your machine", Long: long,
		SilenceUsage: true, SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("there is no command %q; see `cove help`", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(startCommand(), suspendCommand(), stopCommand(), restartCommand(), quitCommand(), statusCommand(), logsCommand(),
		shellCommand(), configCommand(), credentialsCommand(), registryCommand(), diskCommand(), portsCommand(), imageCommand(), socketCommand(), versionCommand())
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit exitError
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command"):
		fmt.Fprintln(os.Stderr, "cove:", err)
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "cove: interrupted")
		return exitInterrupted
	}
	explain(os.Stderr, err)
	return exitFailure
}

// exactly, atMost and atLeast check how many words a command has.
func exactly(n int) cobra.PositionalArgs { return wrong(cobra.ExactArgs(n)) }

func wrong(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; usage: %s", err, cmd.UseLine())}
		}
		return nil
	}
}

// connect is a client of the user's home; with ensure it starts coved.
func connect(ctx context.Context, ensure bool) (*client.Client, error) {
	home, err := api.FindHome()
	if err != nil {
		return nil, err
	}
	c := client.New(home)
	if ensure {
		if err := os.MkdirAll(string(home), 0o700); err != nil {
			return nil, fmt.Errorf("make Cove's folder: %w", err)
		}
		return c, c.Ensure(ctx)
	}
	return c, nil
}
