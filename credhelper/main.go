package credhelper

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/covedesk/cove/credhelper/keystore"
	"github.com/docker/docker-credential-helpers/credentials"
)

const usage = `Usage: docker-credential-cove COMMAND

The protocol of credential helpers, for docker and other clients:
  store, get, erase, list, version

For people:
  status [--json]                which keystores work here, and which is used
  use NAME|auto [--json]         choose one; "auto" takes the first that passes the test
      [--passphrase | --no-passphrase]   with "file": protect the encrypted file, or no longer
  unlock                         ask for the passphrase of the encrypted file, once until logout or "lock"
  lock                           forget it

unlock and use --passphrase read the passphrase from the terminal, or a line of the standard input.
`

// maxInput is far more than a server's address or a token has, and bounds what we hold of a stream
// without end. The library takes lines of up to 64 KiB.
const maxInput = 1 << 20

// Main runs the program and gives its exit status. Errors of the protocol go to the standard output, as
// clients expect, all others to the standard error.
func Main(args []string, in *os.File, out, errOut io.Writer) int {
	credentials.Name, credentials.Package = Name, "github.com/covedesk/cove/credhelper"
	if len(args) == 0 {
		fmt.Fprint(out, usage)
		return 1
	}
	dir, err := Folder()
	if err != nil {
		fmt.Fprintf(errOut, "%s: find Cove's folder: %v. Set COVE_HOME.\n", Name, err)
		if args[0] == credentials.ActionGet {
			fmt.Fprintln(out, credentials.NewErrCredentialsNotFound())
		}
		return 1
	}
	h := New(dir, errOut)
	switch args[0] {
	case "status", "use", "unlock", "lock":
		p := &people{h: h, file: keystore.NewAgeFile(dir), in: in, out: out, errOut: errOut}
		if err := p.run(args[0], args[1:]); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return 2
			}
			fmt.Fprintf(errOut, "%s: %s\n", Name, oneLine(err))
			return 1
		}
		return 0
	case "help", "--help", "-h":
		fmt.Fprint(out, usage)
		return 0
	case "--version", "-v":
		args = []string{credentials.ActionVersion}
	}
	if len(args) != 1 {
		fmt.Fprint(out, usage)
		return 1
	}
	return protocol(h, args[0], in, out)
}

// protocol answers one action, in one line when it is an error.
func protocol(h credentials.Helper, action string, in io.Reader, out io.Writer) int {
	err := credentials.HandleCommand(h, action, io.LimitReader(in, maxInput), out)
	if errors.Is(err, bufio.ErrTooLong) {
		err = errors.New("the input has a line of more than 64 KiB")
	}
	if err != nil {
		fmt.Fprintln(out, oneLine(err))
		return 1
	}
	return 0
}

// oneLine: clients show what they get in one.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// people are the commands beyond the protocol.
type people struct {
	h           *Helper
	file        *keystore.AgeFile
	in          *os.File
	out, errOut io.Writer
}

func (p *people) run(command string, args []string) error {
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	flags.SetOutput(p.errOut)
	flags.Usage = func() { fmt.Fprint(p.errOut, usage) }
	asJSON, protect, open, wanted := false, false, false, 0
	switch command {
	case "status":
		flags.BoolVar(&asJSON, "json", false, "")
	case "use":
		flags.BoolVar(&asJSON, "json", false, "")
		flags.BoolVar(&protect, "passphrase", false, "")
		flags.BoolVar(&open, "no-passphrase", false, "")
		wanted = 1
	}
	// Flags may stand before the name and after it.
	slices.SortStableFunc(args, func(a, b string) int { return flagFirst(a) - flagFirst(b) })
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp // it has printed the usage
	}
	if flags.NArg() != wanted {
		flags.Usage()
		return flag.ErrHelp
	}
	switch command {
	case "status":
		return p.status(asJSON)
	case "use":
		return p.use(flags.Arg(0), protect, open, asJSON)
	case "unlock":
		return p.unlock()
	default:
		if err := p.file.LockAgain(); err != nil {
			return err
		}
		if has, err := p.file.HasPassphrase(); err == nil && !has {
			fmt.Fprintln(p.out, "The encrypted file has no passphrase, so it is open. Give it one: "+Name+" use file --passphrase.")
			return nil
		}
		fmt.Fprintln(p.out, "The encrypted file is locked.")
		return nil
	}
}

func flagFirst(arg string) int {
	if strings.HasPrefix(arg, "-") {
		return 0
	}
	return 1
}

func (p *people) status(asJSON bool) error {
	st := p.h.Status()
	if asJSON {
		e := json.NewEncoder(p.out)
		e.SetIndent("", "  ")
		return e.Encode(st)
	}
	if st.Problem != "" {
		fmt.Fprintln(p.out, st.Problem)
	}
	for _, k := range st.Keystores {
		state := "does not work"
		switch {
		case k.Usable:
			state = "works"
		case k.Locked:
			state = "locked"
		}
		mark := " "
		if k.Chosen {
			mark = "*"
		}
		fmt.Fprintf(p.out, "%s %-15s %-14s %s\n", mark, k.Name, state, strings.TrimSpace(k.Why+" "+k.Remedy))
	}
	switch st.Choice.By {
	case "user":
		fmt.Fprintf(p.out, "\n%s is used: you chose it.\n", st.Choice.Keystore)
	case "test":
		fmt.Fprintf(p.out, "\n%s is used: it was the first that passed the test when something was first stored.\n", st.Choice.Keystore)
	default:
		fmt.Fprintln(p.out, "\nNone is chosen yet: the first that passes the test is, when something is stored.")
	}
	return nil
}

func (p *people) use(name string, protect, open, asJSON bool) error {
	if (protect || open) && name != keystore.File || protect && open {
		return fmt.Errorf("--passphrase and --no-passphrase are for the keystore %s, one of them", keystore.File)
	}
	if protect || open {
		passphrase := ""
		var err error
		if protect {
			if passphrase, err = p.newPassphrase(); err != nil {
				return err
			}
		}
		if err := p.file.SetPassphrase(passphrase); err != nil {
			return err
		}
	}
	before, _ := p.h.choice()
	c, err := p.h.Use(name)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(p.out).Encode(c)
	}
	fmt.Fprintf(p.out, "Credentials are kept in %s from now on.\n", c.Keystore)
	if before.Keystore != "" && before.Keystore != c.Keystore {
		fmt.Fprintf(p.out, "Those in %s stay there and are not used: log in again where it matters.\n", before.Keystore)
	}
	return nil
}

func (p *people) unlock() error {
	has, err := p.file.HasPassphrase()
	if err != nil {
		return err
	}
	if !has {
		fmt.Fprintln(p.out, "The encrypted file has no passphrase: there is nothing to unlock.")
		return nil
	}
	passphrase, err := p.ask("Passphrase of the encrypted file: ")
	if err != nil {
		return err
	}
	if err := p.file.Unlock(passphrase); err != nil {
		return err
	}
	fmt.Fprintln(p.out, "The encrypted file is unlocked until logout, or "+Name+" lock.")
	return nil
}

// minPassphrase is no measure of strength: it keeps out the slip of a finger.
const minPassphrase = 8

func (p *people) newPassphrase() (string, error) {
	first, err := p.ask("New passphrase: ")
	if err != nil {
		return "", err
	}
	if len(first) < minPassphrase {
		return "", fmt.Errorf("a passphrase has %d characters or more", minPassphrase)
	}
	if !isTerminal(p.in) {
		return first, nil
	}
	again, err := p.ask("The same again: ")
	if err != nil {
		return "", err
	}
	if again != first {
		return "", errors.New("the two are not the same; nothing was changed")
	}
	return first, nil
}

// ask reads a line: from a terminal after a prompt and unseen, from anything else as it is.
func (p *people) ask(prompt string) (string, error) {
	if isTerminal(p.in) {
		fmt.Fprint(p.errOut, prompt)
		line, err := readUnseen(p.in)
		fmt.Fprintln(p.errOut)
		return line, err
	}
	line, err := bufio.NewReader(io.LimitReader(p.in, maxInput)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the passphrase: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}
