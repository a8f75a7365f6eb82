package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/client"
	"github.com/spf13/cobra"
)

// maxValue is more than the API takes.
const maxValue = 1 << 20

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Show and change the settings",
		Long: "Show and change the settings, which are in settings.json in Cove's folder. engine.KEY is a key of the\nengine's daemon.json.",
		Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var asJSON, dry bool
	list := &cobra.Command{
		Use: "list", Short: "All settings with their ranges", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return configured(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				all, err := c.Settings(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(os.Stdout, all)
				}
				w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
				for _, s := range all {
					from := "default"
					if s.Set {
						from = "set"
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n\t\t\t%s\n", s.Key, s.Value, from, s.Allowed, s.Description)
				}
				return w.Flush()
			})
		},
	}
	get := &cobra.Command{
		Use: "get KEY", Short: "One setting", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return configured(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				s, err := c.Setting(ctx, args[0])
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(os.Stdout, s)
				}
				fmt.Println(s.Value)
				return nil
			})
		},
	}
	set := &cobra.Command{
		Use: "set KEY VALUE", Short: "Change a setting",
		Long: "Change a setting. A VALUE of - is read from the standard input: a password in it is then in no list of processes\nand no shell's history.",
		Args: exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			value := args[1]
			if value == "-" {
				b, err := io.ReadAll(io.LimitReader(os.Stdin, maxValue))
				if err != nil {
					return fmt.Errorf("read the value: %w", err)
				}
				value = strings.TrimSpace(string(b))
			}
			return changed(cmd.Context(), asJSON, func(ctx context.Context, c *client.Client) (api.SettingChange, error) {
				return c.Set(ctx, args[0], value, dry)
			})
		},
	}
	unset := &cobra.Command{
		Use: "unset KEY", Short: "Give a setting its default again", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changed(cmd.Context(), asJSON, func(ctx context.Context, c *client.Client) (api.SettingChange, error) {
				return c.Unset(ctx, args[0], dry)
			})
		},
	}
	cmd.PersistentFlags().BoolVar(&asJSON, "json", false, "for programs")
	for _, c := range []*cobra.Command{set, unset} {
		c.Flags().BoolVar(&dry, "dry-run", false, "change nothing: say what the change would restart")
	}
	cmd.AddCommand(list, get, set, unset)
	return cmd
}

func configured(ctx context.Context, f func(context.Context, *client.Client) error) error {
	c, err := connect(ctx, true)
	if err != nil {
		return err
	}
	return f(ctx, c)
}

func changed(ctx context.Context, asJSON bool, f func(context.Context, *client.Client) (api.SettingChange, error)) error {
	return configured(ctx, func(ctx context.Context, c *client.Client) error {
		s, err := f(ctx, c)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(os.Stdout, s)
		}
		fmt.Println(strings.Join(consequences(s), "\n"))
		return nil
	})
}

// consequences are what a change came to, or would come to, in sentences.
func consequences(s api.SettingChange) []string {
	restart := "`cove restart`"
	switch {
	case s.Stops == 1:
		restart += ", which stops 1 running container"
	case s.Stops > 1:
		restart += fmt.Sprintf(", which stops %d running containers", s.Stops)
	}
	var out []string
	switch {
	case s.DryRun && s.Value == s.Before:
		return []string{fmt.Sprintf("%s is %s already: nothing would change.", s.Key, shown(s.Value))}
	case s.DryRun && s.Restart:
		out = []string{fmt.Sprintf("%s would be %s in place of %s.", s.Key, shown(s.Value), shown(s.Before)), "It would hold after " + restart + "."}
	case s.DryRun:
		out = []string{fmt.Sprintf("%s would be %s in place of %s.", s.Key, shown(s.Value), shown(s.Before)), "Nothing would be restarted."}
	case s.Restart:
		out = []string{fmt.Sprintf("%s is now %s.", s.Key, shown(s.Value)), "It holds after " + restart + "."}
	default:
		out = []string{fmt.Sprintf("%s is now %s.", s.Key, shown(s.Value))}
	}
	if s.Note != "" {
		out = append(out, s.Note)
	}
	return out
}

// shown is a value that people can see, also where it is empty.
func shown(value string) string {
	if value == "" {
		return `""`
	}
	return value
}
