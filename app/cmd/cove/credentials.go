package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/internal/credentials"
	"github.com/spf13/cobra"
)

func credentialsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "credentials", Short: "How docker keeps logins at registries", Args: exactly(0),
		Long: "Where docker keeps the passwords of registries, and what is wrong with that. These commands need no coved.\nThey change docker's settings (config.json) only with your consent, and keep a copy of them without passwords.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(credentialsStatus(), credentialsUse(), credentialsRestore(), credentialsDoctor(), credentialsShim())
	return cmd
}

// setup is where the user's credentials are.
func setup() (credentials.Setup, error) {
	home, err := api.FindHome()
	if err != nil {
		return credentials.Setup{}, err
	}
	return credentials.New(home.Dir)
}

func credentialsStatus() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "status", Short: "Which helper and keystore hold the logins, and whether they work", Args: exactly(0),
		Long: "Which credential helpers docker's settings name and whether they work, which registries have a login in them,\nand which keystore Cove's helper uses. Each keystore is tested by storing, reading and erasing an entry. No password\nis shown.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := setup()
			if err != nil {
				return err
			}
			st := s.Status(cmd.Context())
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			if asJSON {
				return printJSON(os.Stdout, st)
			}
			printCredentials(st)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	return cmd
}

func printCredentials(st credentials.Status) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	row := func(name string, values ...string) {
		fmt.Fprintln(w, strings.Join(append([]string{name}, values...), "\t"))
	}
	row("docker's settings", st.Config)
	switch {
	case st.Error != "":
		row("logins", "nobody knows where: "+printable(st.Error))
	case st.Effective == "":
		row("logins", "in plain text: "+st.Why)
	default:
		row("logins", "docker-credential-"+printable(st.Effective)+": "+st.Why)
	}
	if p := st.Previous; p != nil && st.Store == "cove" {
		before := "no credsStore"
		if *p != "" {
			before = "credsStore " + printable(*p)
		}
		row("before Cove", before+"; `cove credentials restore` puts it back")
	}
	w.Flush()
	for _, h := range st.Helpers {
		of := "not used by docker"
		switch {
		case len(h.Registries) > 0 && h.Store:
			of = "for all registries, by credHelpers for " + strings.Join(h.Registries, ", ")
		case len(h.Registries) > 0:
			of = "for " + strings.Join(h.Registries, ", ")
		case h.Store:
			of = "for all registries without one of their own"
		}
		state := colour(os.Stdout, green, string(h.State))
		if h.State != credentials.Works {
			state = colour(os.Stdout, red, string(h.State)) + ": " + printable(h.Error)
		}
		fmt.Printf("\n%s  %s\n", colour(os.Stdout, bold, printable(h.Program)), printable(of))
		row("  state", state)
		if h.Path != "" {
			row("  program", h.Path)
		}
		if h.Version != "" {
			row("  version", h.Version)
		}
		for _, l := range h.Logins {
			row("  login", printable(l.User+" at "+l.Server))
		}
		if h.State == credentials.Works && len(h.Logins) == 0 && !h.Cloud {
			row("  login", "none")
		}
		w.Flush()
	}
	fmt.Printf("\n%s\n", colour(os.Stdout, bold, "Cove's keystores"))
	if st.OwnError != "" {
		row("  unknown", printable(st.OwnError))
	}
	for _, k := range st.Keystores.Keystores {
		state := "does not work"
		switch {
		case k.Usable:
			state = "works"
		case k.Locked:
			state = "locked"
		}
		mark := "  "
		if k.Chosen {
			mark = "* "
		}
		row(mark+k.Name, state, printable(strings.TrimSpace(k.Why+" "+k.Remedy)))
	}
	w.Flush()
	switch by := st.Keystores.Choice.By; {
	case st.OwnError != "":
	case st.Keystores.Problem != "":
		fmt.Println(printable(st.Keystores.Problem))
	case by == "user":
		fmt.Println("* is used, because you chose it.")
	case by == "test":
		fmt.Println("* is used: it was the first to pass the test when a login was first stored.")
	default:
		fmt.Println("The first that works is used when a login is first stored.")
	}
	for _, a := range st.Plain {
		why := "its password is in docker's settings, for everybody to read who can read the file"
		if a.Wrong != "" {
			why = a.Wrong
		}
		fmt.Println(colour(os.Stdout, amber, printable(a.Server+": "+why+". See `cove credentials doctor`.")))
	}
}

func credentialsUse() *cobra.Command {
	var yes, move bool
	cmd := &cobra.Command{
		Use: "use [KEYSTORE|auto]", Short: "Let docker keep logins in this system's keystore, by Cove's helper",
		Long: "Set credsStore to cove in docker's settings, so that `docker login` stores passwords in a keystore of this system.\nWith a name, that keystore is used; with auto, or the first time, the first one that passes a test: see `cove\ncredentials status`. Logins whose passwords are in docker's settings are moved into it: each is read back before it\nleaves the file. What docker's settings said before is remembered for `cove credentials restore`.",
		Args: wrong(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := setup()
			if err != nil {
				return err
			}
			keystore := ""
			if len(args) == 1 {
				keystore = args[0]
			}
			p, err := s.Plan(cmd.Context(), keystore)
			if err != nil {
				return credentialsProblem(err)
			}
			if !move {
				p.Leave, p.Move = append(p.Leave, p.Move...), nil
			}
			printPlan(p)
			if !p.Nothing() && !yes {
				if err := consent(cmd.Context(), "Go on?"); err != nil {
					return err
				}
			}
			if keystore != "" {
				if err := s.Choose(cmd.Context(), keystore); err != nil {
					return err
				}
			}
			if err := s.Use(cmd.Context(), p); err != nil {
				return err
			}
			fmt.Println("docker keeps logins by docker-credential-cove.")
			if p.Previous != "" && p.Previous != "cove" {
				fmt.Printf("Logins that docker-credential-%s kept stay there; where docker does not find one now, log in again.\n", printable(p.Previous))
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&move, "move", true, "move the passwords in docker's settings into the keystore")
	return cmd
}

func printPlan(p credentials.Plan) {
	if p.Previous != "cove" {
		before := "it is not set now"
		if p.Previous != "" {
			before = "it is " + p.Previous + " now"
		}
		fmt.Printf("- credsStore in docker's settings becomes cove; %s.\n", printable(before))
	}
	if p.Link.At != "" {
		fmt.Printf("- %s becomes a link to %s, for docker to find it.\n", p.Link.At, p.Link.To)
	}
	for _, h := range p.Dead {
		fmt.Printf("- %s leaves docker-credential-%s, which docker cannot run: %s.\n", printable(strings.Join(h.Registries, ", ")), printable(h.Name), printable(h.Error))
	}
	for _, a := range p.Move {
		fmt.Printf("- The password of %s at %s moves from docker's settings into the keystore.\n", printable(a.User), printable(a.Server))
	}
	for _, a := range p.Leave {
		why := "you said so, and docker does not use it any more"
		if a.Wrong != "" {
			why = a.Wrong
		}
		fmt.Printf("- The login at %s stays in docker's settings: %s.\n", printable(a.Server), printable(why))
	}
}

// consent asks on a terminal; elsewhere nobody can give it.
func consent(ctx context.Context, question string) error {
	if !isTerminal(os.Stdin) {
		return usageError{errors.New("nobody is here to ask; say --yes to go on")}
	}
	fmt.Fprint(os.Stderr, question+" [y/N] ")
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(os.Stderr)
		return ctx.Err()
	case a := <-answer:
		if a == "y" || a == "yes" {
			return nil
		}
		fmt.Fprintln(os.Stderr, "Nothing was changed.")
		return exitError(exitFailure)
	}
}

// credentialsProblem makes a problem for people of what keeps docker from using our helper.
func credentialsProblem(err error) error {
	var path *credentials.PathError
	if errors.As(err, &path) {
		return problem("helper-not-in-path", path.Why+" docker's settings were left alone: every pull would fail.", path.Remedy)
	}
	return err
}

func credentialsRestore() *cobra.Command {
	return &cobra.Command{
		Use: "restore", Short: "Give docker the credsStore back that it had before Cove", Args: exactly(0),
		Long: "Take Cove's helper out of docker's settings, and put back what they said before. No login is moved. Cove does not set them again by itself. Run it before you remove Cove.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := setup()
			if err != nil {
				return err
			}
			r, err := s.Restore(cmd.Context())
			if err != nil {
				return err
			}
			switch {
			case !r.Done && len(r.Taken) > 0:
			case !r.Done && r.Store == "":
				fmt.Println("docker does not use Cove's helper; nothing was changed.")
			case !r.Done:
				fmt.Printf("docker uses docker-credential-%s; nothing was changed.\n", printable(r.Store))
			case r.Gone != "":
				fmt.Printf("credsStore is taken out of docker's settings. It was %s before Cove, and docker would not find docker-credential-%s now.\n", printable(r.Gone), printable(r.Gone))
			case r.Store == "":
				fmt.Println("credsStore is taken out of docker's settings, as it was before Cove.")
			default:
				fmt.Printf("credsStore is %s again.\n", printable(r.Store))
			}
			for _, registry := range r.Helpers {
				fmt.Printf("%s has its own helper again.\n", printable(registry))
			}
			if len(r.Taken) > 0 {
				fmt.Printf("The entries of credHelpers that gave %s to Cove's helper are taken out.\n", printable(strings.Join(r.Taken, ", ")))
			}
			if n := len(r.Logins); n > 0 {
				servers := make([]string, 0, n)
				for _, l := range r.Logins {
					servers = append(servers, l.Server)
				}
				fmt.Printf("Cove's keystore still has the logins at %s. docker does not look there now: log in again, or `cove credentials use`.\n", printable(strings.Join(servers, ", ")))
			}
			return nil
		},
	}
}

func credentialsDoctor() *cobra.Command {
	var fix, asJSON bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Find what is wrong with docker's logins, and mend it", Args: exactly(0),
		Long: "Find helpers that docker's settings name and that are not there, cannot be run or do not answer, passwords in plain\ntext, and settings that docker cannot read. On a terminal it offers to mend what it can; --fix does so without\nasking. The exit status is 0 when nothing is wrong (any more), 1 when something is.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			s, err := setup()
			if err != nil {
				return err
			}
			found := s.Examine(ctx)
			if err := ctx.Err(); err != nil {
				return err
			}
			mendable := 0
			for _, p := range found {
				if p.Mend != "" {
					mendable++
				}
			}
			if !asJSON {
				printProblems(found)
				if mendable > 0 && !fix && isTerminal(os.Stdin) && isTerminal(os.Stdout) {
					if err := consent(ctx, "Mend what can be mended?"); err != nil {
						return err
					}
					fix = true
				}
			}
			left := len(found)
			if fix && mendable > 0 {
				s.Mend(ctx, found)
				left = len(s.Examine(ctx))
				if err := ctx.Err(); err != nil {
					return err
				}
			}
			switch {
			case asJSON:
				if found == nil {
					found = []credentials.Problem{}
				}
				err = printJSON(os.Stdout, map[string]any{"problems": found, "left": left})
			case fix && mendable > 0:
				printMended(found)
				if left > 0 {
					fmt.Println("Not everything is right yet; `cove credentials doctor` says what is left.")
				}
			case mendable > 0:
				fmt.Println("`cove credentials doctor --fix` mends what is marked so.")
			}
			if err == nil && left > 0 {
				err = exitError(exitFailure)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&fix, "fix", false, "mend what can be mended, without asking")
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	return cmd
}

func printProblems(found []credentials.Problem) {
	if len(found) == 0 {
		fmt.Println(colour(os.Stdout, green, "Nothing is wrong with docker's logins."))
	}
	for _, p := range found {
		fmt.Println(colour(os.Stdout, amber, printable(p.Summary)))
		can := ""
		if p.Mend != "" {
			can = " (can be mended)"
		}
		fmt.Println("    " + printable(p.Remedy) + can)
	}
}

// printMended says once what each way of mending came to.
func printMended(found []credentials.Problem) {
	said := map[credentials.Mend]bool{"": true}
	for _, p := range found {
		switch {
		case said[p.Mend]:
		case p.Mended:
			fmt.Println(colour(os.Stdout, green, "Mended:"), string(p.Mend)+".")
		default:
			fmt.Println(colour(os.Stdout, red, "Not mended:"), printable(p.Error))
		}
		said[p.Mend] = true
	}
}

func credentialsShim() *cobra.Command {
	cmd := &cobra.Command{
		Use: "shim", Short: "Answer in place of docker-credential-desktop", Args: exactly(0),
		Long: "A link named docker-credential-desktop to Cove's helper, for settings that name that one and cannot be changed, such\nas ones that are copied onto many machines. One that is there already is never replaced.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{Use: "install", Short: "Make the link, in a folder of yours that is in PATH", Args: exactly(0), RunE: func(*cobra.Command, []string) error {
		s, err := setup()
		if err != nil {
			return err
		}
		l, err := s.InstallShim()
		if err != nil {
			return credentialsProblem(err)
		}
		fmt.Printf("%s answers by Cove's helper.\n", l.At)
		return nil
	}}, &cobra.Command{Use: "remove", Short: "Remove that link", Args: exactly(0), RunE: func(*cobra.Command, []string) error {
		s, err := setup()
		if err != nil {
			return err
		}
		at, err := s.RemoveShim()
		switch {
		case err != nil:
			return err
		case at == "":
			fmt.Println("There is no docker-credential-desktop of Cove's; nothing was changed.")
		default:
			fmt.Printf("%s is gone.\n", at)
		}
		return nil
	}})
	return cmd
}
