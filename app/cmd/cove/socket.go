package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/covedesk/cove/app/api"
	"github.com/spf13/cobra"
)

// usual is where tools look that know no contexts.
const usual = "/var/run/docker.sock"

func socketCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "socket", Short: "Show where docker.sock is, and link it to " + usual, Args: exactly(0),
		Long: "Show where docker.sock is. Some tools only look at " + usual + ": `cove socket link` makes that a\nlink to Cove's. It is never made unasked.",
		RunE: func(*cobra.Command, []string) error {
			home, err := api.FindHome()
			if err != nil {
				return err
			}
			fmt.Println(home.Docker())
			if to, err := os.Readlink(usual); err == nil {
				fmt.Printf("%s leads to %s\n", usual, to)
			} else if _, err := os.Lstat(usual); err == nil {
				fmt.Printf("%s is there and not ours\n", usual)
			} else if runtime.GOOS != "windows" {
				fmt.Printf("%s is not there; `cove socket link` makes it lead here\n", usual)
			}
			return nil
		},
	}
	cmd.AddCommand(&cobra.Command{Use: "link", Short: "Make " + usual + " lead to Cove's docker.sock", Args: exactly(0), RunE: func(*cobra.Command, []string) error { return linkUsual() }},
		&cobra.Command{Use: "unlink", Short: "Remove that link", Args: exactly(0), RunE: func(*cobra.Command, []string) error { return unlinkUsual() }})
	return cmd
}

func problem(cause, summary, remedy string) error {
	return &api.Error{Failure: api.Failure{Cause: cause, Summary: summary, Remedy: remedy}}
}

func linkUsual() error {
	if runtime.GOOS == "windows" {
		return problem(api.CauseInvalid, "There is no such link on Windows.", `Tools use the pipe by DOCKER_HOST, or the docker context cove.`)
	}
	home, err := api.FindHome()
	if err != nil {
		return err
	}
	to, err := os.Readlink(usual)
	switch {
	case err == nil && to == home.Docker():
		fmt.Printf("%s leads to %s already.\n", usual, to)
		return nil
	case err == nil || !errors.Is(err, os.ErrNotExist):
		return problem(api.CauseInvalid, fmt.Sprintf("%s is there and not ours; another engine may use it.", usual), "Remove it yourself if nothing needs it, then try again.")
	}
	err = os.Symlink(home.Docker(), usual)
	if errors.Is(err, os.ErrPermission) {
		return problem(api.CauseForbidden, fmt.Sprintf("Only root may make %s.", usual), fmt.Sprintf("Run: sudo ln -s %s %s", home.Docker(), usual))
	}
	if err != nil {
		return fmt.Errorf("link docker.sock: %w", err)
	}
	fmt.Printf("%s leads to %s now.\n", usual, home.Docker())
	return nil
}

func unlinkUsual() error {
	home, err := api.FindHome()
	if err != nil {
		return err
	}
	to, err := os.Readlink(usual)
	if err != nil || to != home.Docker() {
		fmt.Printf("%s does not lead to Cove; nothing was changed.\n", usual)
		return nil
	}
	err = os.Remove(usual)
	if errors.Is(err, os.ErrPermission) {
		return problem(api.CauseForbidden, fmt.Sprintf("Only root may remove %s.", usual), "Run: sudo rm "+usual)
	}
	if err != nil {
		return fmt.Errorf("unlink docker.sock: %w", err)
	}
	fmt.Printf("%s is gone.\n", usual)
	return nil
}
