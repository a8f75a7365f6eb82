package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/client"
	"github.com/covedesk/cove/app/internal/credentials"
	"github.com/covedesk/cove/app/internal/hostproxy"
	"github.com/covedesk/cove/app/internal/registry"
	"github.com/covedesk/cove/app/internal/secret"
	"github.com/covedesk/cove/app/internal/trust"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpproxy"
	"golang.org/x/term"
)

func registryCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "registry", Short: "Registries: logins, certificates, whether they can be used", Args: exactly(0),
		Long: "Registries of images: which are known, logging in and out, and whether one can be used, from this machine and\nfrom the engine. Mirrors, insecure registries and certificates are settings: docs/registries.md.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(registryList(), registryLogin(), registryLogout(), registryTest())
	return cmd
}

// registries is what the commands need to know.
type registries struct {
	client   *client.Client
	setup    credentials.Setup
	insecure trust.Insecure
	mirrors  map[string][]string // by registry
	trust    trust.Found
}

func knownRegistries(ctx context.Context) (*registries, error) {
	c, err := connect(ctx, true)
	if err != nil {
		return nil, err
	}
	k := &registries{client: c, mirrors: map[string][]string{}}
	if k.setup, err = credentials.New(c.Home().Dir); err != nil {
		return nil, err
	}
	value := map[string][]string{}
	for _, key := range []string{"registry.insecure", "registry.mirrors", "registry.ca"} {
		s, err := c.Setting(ctx, key)
		if err != nil {
			return nil, err
		}
		value[key] = strings.FieldsFunc(s.Value, func(r rune) bool { return r == ',' })
	}
	k.insecure = value["registry.insecure"]
	for _, m := range value["registry.mirrors"] {
		host, mirror := "docker.io", m
		if before, after, is := strings.Cut(m, "="); is && !strings.Contains(before, "/") {
			host, mirror = before, after
		}
		k.mirrors[host] = append(k.mirrors[host], mirror)
	}
	k.trust = trust.Find(trust.Here(k.setup.Docker.Dir), value["registry.ca"], time.Now(), protocol.MaxTrust)
	return k, nil
}

// lookup gives what a name has on this machine.
func lookup(name string) []netip.Addr {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	all, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	return all
}

func (k *registries) checker() *registry.Checker {
	c := &registry.Checker{Trust: k.trust, Insecure: func(host string) bool { return k.insecure.Has(host, lookup) }}
	// What a proxy setting has for a password is not shown to us, so this is the host's own.
	if p, err := hostproxy.Host(os.Getenv); err == nil && !p.IsZero() {
		find := (&httpproxy.Config{HTTPProxy: p.HTTP.RevealURL(), HTTPSProxy: p.HTTPS.RevealURL(), NoProxy: p.No + "," + hostproxy.HostName}).ProxyFunc()
		c.Proxy = func(r *http.Request) (*url.URL, error) { return find(r.URL) }
	}
	return c
}

// knownRegistry is a line of `cove registry list`.
type knownRegistry struct {
	Registry     string   `json:"registry"`
	User         string   `json:"user,omitempty"`   // who is logged in
	Helper       string   `json:"helper,omitempty"` // the credential helper that has the login, or makes it
	Plain        bool     `json:"plain,omitempty"`  // the password stands in docker's config.json
	Insecure     bool     `json:"insecure,omitempty"`
	Mirrors      []string `json:"mirrors,omitempty"`
	Certificates string   `json:"certificates,omitempty"` // the folder of its own ones
}

// registryFault is something that keeps a certificate or a helper from being used.
type registryFault struct {
	Path  string `json:"path,omitempty"`
	Error string `json:"error"`
}

func (k *registries) list(ctx context.Context) ([]*knownRegistry, []registryFault) {
	var out []*knownRegistry
	at := func(host string) *knownRegistry {
		if i := slices.IndexFunc(out, func(r *knownRegistry) bool { return r.Registry == host }); i >= 0 {
			return out[i]
		}
		out = append(out, &knownRegistry{Registry: host})
		return out[len(out)-1]
	}
	var faults []registryFault
	logins, err := k.setup.Logins(ctx)
	if err != nil {
		faults = append(faults, registryFault{Error: err.Error()})
	}
	for _, l := range logins {
		r := at(registry.OfServer(l.Server))
		r.User, r.Helper, r.Plain = l.User, l.Helper, l.Helper == ""
	}
	for _, host := range k.insecure {
		at(host).Insecure = true
	}
	for host, urls := range k.mirrors {
		at(host).Mirrors = urls
	}
	for _, c := range k.trust.Registries {
		at(c.Host).Certificates = c.Folder
	}
	for _, f := range k.trust.Faults {
		faults = append(faults, registryFault{f.Path, f.Err.Error()})
	}
	slices.SortFunc(out, func(a, b *knownRegistry) int { return strings.Compare(a.Registry, b.Registry) })
	return out, faults
}

func registryList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "The registries that there is a login, a setting or a certificate for", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, err := knownRegistries(cmd.Context())
			if err != nil {
				return err
			}
			all, faults := k.list(cmd.Context())
			if asJSON {
				return printJSON(os.Stdout, struct {
					Registries  []*knownRegistry `json:"registries"`
					Authorities int              `json:"authorities"` // that count for all of them
					Faults      []registryFault  `json:"faults,omitempty"`
				}{all, len(k.trust.Authorities), faults})
			}
			w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "REGISTRY\tLOGIN\tALSO")
			for _, r := range all {
				login := "-"
				switch {
				case r.Plain:
					login = r.User + ", readable in config.json"
				case r.User != "":
					login = r.User + ", by " + r.Helper
				case r.Helper != "":
					login = "by " + r.Helper
				}
				var also []string
				if r.Insecure {
					also = append(also, "insecure")
				}
				if len(r.Mirrors) > 0 {
					also = append(also, "mirrors: "+strings.Join(r.Mirrors, " "))
				}
				if r.Certificates != "" {
					also = append(also, "certificates: "+r.Certificates)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\n", r.Registry, printable(login), strings.Join(also, "; "))
			}
			w.Flush()
			fmt.Printf("%d authorities that were added to this machine, or to registry.ca, count for all.\n", len(k.trust.Authorities))
			for _, f := range faults {
				if f.Path != "" {
					f.Error = "not used: " + f.Path + ": " + f.Error
				}
				fmt.Println(colour(os.Stdout, amber, printable(f.Error)))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	return cmd
}

func registryLogin() *cobra.Command {
	var user string
	var stdin bool
	cmd := &cobra.Command{
		Use: "login [REGISTRY]", Short: "Try a login, and keep it where docker looks for it", Args: wrong(cobra.MaximumNArgs(1)),
		Long: "Try a login at a registry, docker.io where none is named, and keep it where docker looks for it: with the\ncredential helper that docker's settings name, else with Cove's. Nothing is kept that the registry does not take.",
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := registry.Parse(firstOr(args, "docker.io"))
			if err != nil {
				return usageError{err}
			}
			if stdin && user == "" {
				return usageError{errors.New("--password-stdin needs --username")}
			}
			ctx := cmd.Context()
			k, err := knownRegistries(ctx)
			if err != nil {
				return err
			}
			login, err := askLogin(ctx, n, user, stdin)
			if err != nil {
				return err
			}
			var last registry.Step
			if !k.checker().Check(ctx, n, &login, func(s registry.Step) { last = s }) {
				return errors.Join(ctx.Err(), stepError(n, last))
			}
			helper, err := k.setup.Login(ctx, n.Server, login.User, login.Password)
			if err != nil {
				return err
			}
			fmt.Printf("%s: %s. It is kept by docker-credential-%s.\n", n.Host, last.Detail, helper)
			return nil
		},
	}
	cmd.Flags().StringVarP(&user, "username", "u", "", "who logs in")
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from the standard input")
	return cmd
}

func firstOr(args []string, other string) string {
	if len(args) > 0 {
		return args[0]
	}
	return other
}

// stepError is a step that failed, for people.
func stepError(n registry.Name, s registry.Step) error {
	return &api.Error{Failure: api.Failure{Cause: s.Cause, Summary: fmt.Sprintf("%s cannot be used: %s.", n.Host, printable(s.Detail)), Remedy: s.Remedy}}
}

// maxPassword is longer than any token; some are JSON files of a cloud's.
const maxPassword = 64 << 10

func askLogin(ctx context.Context, n registry.Name, user string, stdin bool) (registry.Credential, error) {
	none := registry.Credential{}
	if stdin {
		b, err := io.ReadAll(io.LimitReader(os.Stdin, maxPassword+1))
		password := strings.TrimRight(string(b), "\r\n")
		switch {
		case err != nil:
			return none, fmt.Errorf("read the password: %w", err)
		case password == "":
			return none, errors.New("the standard input has no password")
		case len(b) > maxPassword:
			return none, fmt.Errorf("the password has more than %d KiB", maxPassword>>10)
		}
		return registry.Credential{User: user, Password: secret.New(password)}, nil
	}
	if !isTerminal(os.Stdin) {
		return none, usageError{errors.New("there is no terminal to ask for the password; give it by --password-stdin")}
	}
	if user == "" {
		line, err := asked(ctx, "User at "+n.Host+": ", func() (string, error) {
			line, err := bufio.NewReader(os.Stdin).ReadString('\n')
			return strings.TrimSpace(line), err
		})
		if err != nil {
			return none, err
		}
		if user = line; user == "" {
			return none, errors.New("nobody was named")
		}
	}
	password, err := asked(ctx, "Password or token (it is not shown): ", func() (string, error) {
		b, err := term.ReadPassword(int(os.Stdin.Fd()))
		fmt.Fprintln(os.Stderr)
		return string(b), err
	})
	if err == nil && password == "" {
		err = errors.New("no password was given")
	}
	return registry.Credential{User: user, Password: secret.New(password)}, err
}

// asked asks the user for a line, until the context ends; the terminal is then as it was.
func asked(ctx context.Context, question string, read func() (string, error)) (string, error) {
	was, err := term.GetState(int(os.Stdin.Fd()))
	if err != nil {
		return "", err
	}
	fmt.Fprint(os.Stderr, question)
	type answer struct {
		line string
		err  error
	}
	answers := make(chan answer, 1)
	go func() { line, err := read(); answers <- answer{line, err} }() // ends with the program, where nobody answers
	select {
	case a := <-answers:
		return a.line, a.err
	case <-ctx.Done():
		term.Restore(int(os.Stdin.Fd()), was)
		fmt.Fprintln(os.Stderr)
		return "", ctx.Err()
	}
}

func registryLogout() *cobra.Command {
	return &cobra.Command{
		Use: "logout [REGISTRY]", Short: "Forget the login at a registry", Args: wrong(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := registry.Parse(firstOr(args, "docker.io"))
			if err != nil {
				return usageError{err}
			}
			s, err := setup()
			if err != nil {
				return err
			}
			there, err := s.Logout(cmd.Context(), n.Server)
			if err != nil {
				return err
			}
			if there {
				fmt.Printf("The login at %s is forgotten.\n", n.Host)
			} else {
				fmt.Printf("There was no login at %s.\n", n.Host)
			}
			return nil
		},
	}
}

func registryTest() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "test [REGISTRY]", Short: "Whether a registry can be used, step by step", Args: wrong(cobra.MaximumNArgs(1)),
		Long: "Whether a registry can be used, step by step, from this machine and, where the engine runs, from there: its\nname, the connection, its certificate, whether it is a registry, and whether it takes the login that docker has\nfor it. The exit status is 1 when a step failed.",
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := registry.Parse(firstOr(args, "docker.io"))
			if err != nil {
				return usageError{err}
			}
			ctx := cmd.Context()
			k, err := knownRegistries(ctx)
			if err != nil {
				return err
			}
			var steps []registry.Step
			told := func(s registry.Step) {
				steps = append(steps, s)
				if !asJSON {
					printStep(s)
				}
			}
			ok := k.test(ctx, n, told)
			if err := ctx.Err(); err != nil {
				return err
			}
			if asJSON {
				err = printJSON(os.Stdout, struct {
					Registry string          `json:"registry"`
					OK       bool            `json:"ok"`
					Steps    []registry.Step `json:"steps"`
				}{n.Host, ok, steps})
			}
			if err == nil && !ok {
				err = exitError(exitFailure)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	return cmd
}

// test takes all steps. What cannot be known, because the engine does not run, is no failure.
func (k *registries) test(ctx context.Context, n registry.Name, told func(registry.Step)) bool {
	var login *registry.Credential
	kept, has, err := k.setup.Find(ctx, n.Server)
	switch {
	case err != nil:
		told(registry.Step{From: "host", Name: registry.StepLogin, Cause: registry.CauseOther, Detail: "docker's login cannot be read: " + err.Error(), Remedy: "See `cove credentials doctor`."})
	case has && kept.User == credentials.TokenUser:
		login = &registry.Credential{Identity: kept.Secret}
	case has:
		login = &registry.Credential{User: kept.User, Password: kept.Secret}
	}
	ok := k.checker().Check(ctx, n, login, told) && err == nil
	status, err := k.client.Status(ctx)
	if err != nil || !there[status.Phase] {
		told(registry.Step{From: "engine", Name: registry.StepEngine, Skipped: true, Detail: "not asked: the engine does not run (`cove start`)"})
		return ok
	}
	s := registry.CheckEngine(ctx, k.client.Home().DockerHost(), n, login)
	told(s)
	return ok && s.OK
}

func printStep(s registry.Step) {
	mark := colour(os.Stdout, green, "ok  ")
	switch {
	case s.Skipped:
		mark = "-   "
	case !s.OK:
		mark = colour(os.Stdout, red, "fail")
	}
	fmt.Printf("%s  %-6s  %-7s  %s\n", mark, s.From, s.Name, printable(s.Detail))
	if s.Remedy != "" {
		fmt.Println("      " + s.Remedy)
	}
}
