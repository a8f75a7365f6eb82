package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/covedesk/cove/app/internal/build"
	"github.com/spf13/cobra"
)

// versions is what `cove version --json` prints.
type versions struct {
	Cove   string `json:"cove"`
	OS     string `json:"os"`
	Arch   string `json:"arch"`
	Coved  string `json:"coved,omitempty"`  // while it runs
	Engine string `json:"engine,omitempty"` // while it runs
	API    string `json:"api,omitempty"`    // the engine's
}

func versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "version", Short: "Versions of Cove and of the engine", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Cove: build.Version, OS: runtime.GOOS, Arch: runtime.GOARCH}
			c, err := connect(cmd.Context(), false)
			if err != nil {
				return err
			}
			if s, err := c.Status(cmd.Context()); err == nil {
				v.Coved = s.Daemon.Version
				if s.Engine != nil {
					v.Engine, v.API = s.Engine.Version, s.Engine.APIVersion
				}
			}
			if asJSON {
				return printJSON(os.Stdout, v)
			}
			fmt.Printf("cove %s %s/%s\n", v.Cove, v.OS, v.Arch)
			if v.Coved != "" && v.Coved != v.Cove {
				fmt.Printf("coved %s (another version runs: `cove quit`, then `cove start`)\n", v.Coved)
			}
			if v.Engine != "" {
				fmt.Printf("engine %s, API %s\n", v.Engine, v.API)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	return cmd
}
