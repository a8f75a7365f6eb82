package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/covedesk/cove/app/internal/secret"
	"github.com/docker/docker-credential-helpers/client"
	"github.com/docker/docker-credential-helpers/credentials"
)

const (

	// storePatience is for helpers that ask a person for a password first.
	storePatience = 2 * time.Minute
	// maxSaid is how much of what a helper says is shown.
	maxSaid = 300
)

// askPatience bounds a question to a helper that nobody has to answer. Google's is a Python program.
var askPatience = 10 * time.Second

// State is how a helper is.
type State string

const (
	Works   State = "works"
	Missing State = "missing" // docker does not find it in PATH
	Broken  State = "broken"  // it is there and cannot be run
	Hangs   State = "hangs"   // it does not answer
	Fails   State = "fails"   // it runs and says that it cannot
)

// Helper is a credential helper that docker's settings name.
type Helper struct {
	Name       string   `json:"name"`
	Program    string   `json:"program"`
	Path       string   `json:"path,omitempty"`
	Version    string   `json:"version,omitempty"`
	State      State    `json:"state"`
	Error      string   `json:"error,omitempty"`
	Cloud      bool     `json:"cloud,omitempty"`      // it makes its credentials from an account of its own
	Store      bool     `json:"store,omitempty"`      // it is the credsStore
	Registries []string `json:"registries,omitempty"` // those that credHelpers gives it
	Logins     []Login  `json:"logins,omitempty"`     // what it holds; never the secret
}

// Login is an entry of a helper.
type Login struct {
	Server string `json:"server"`
	User   string `json:"user"`
}

func programOf(helper string) string { return "docker-credential-" + helper }

// lookPath stands here for tests on systems where PATH is not all.
var lookPath = exec.LookPath

// check finds out how a helper is: a store has to list what it holds, one of a cloud, which would ask its
// account for that, has to run.
func check(ctx context.Context, name string) Helper {
	h := Helper{Name: name, Program: programOf(name), Cloud: IsCloud(name)}
	var err error
	if h.Path, err = lookPath(h.Program); err != nil {
		h.State, h.Error = Missing, "docker does not find "+h.Program+" in PATH"
		return h
	}
	out, said, err := run(ctx, h.Path, "version", askPatience)
	if err == nil {
		h.Version = firstLine(out)
	}
	if h.State = stateOf(err); h.State == Broken || h.State == Hangs || h.Cloud {
		if h.State == Fails {
			h.State = Works // not every one knows version
		}
		h.Error = errorText(h.State, err, out, said)
		return h
	}
	out, said, err = run(ctx, h.Path, "list", askPatience)
	var logins map[string]string
	if h.State = stateOf(err); h.State == Works && json.Unmarshal(out, &logins) != nil {
		h.State, h.Error = Fails, "its list is not what docker expects: "+firstLine(out)
		return h
	}
	h.Error = errorText(h.State, err, out, said)
	for server, user := range logins {
		h.Logins = append(h.Logins, Login{server, user})
	}
	slices.SortFunc(h.Logins, func(a, b Login) int { return strings.Compare(a.Server, b.Server) })
	return h
}

// checkAll checks several at a time.
func checkAll(ctx context.Context, names []string) map[string]Helper {
	out := map[string]Helper{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, n := range names {
		wg.Go(func() {
			h := check(ctx, n)
			mu.Lock()
			defer mu.Unlock()
			out[n] = h
		})
	}
	wg.Wait()
	return out
}

// run asks a helper something that needs no input and no person.
func run(ctx context.Context, path, action string, patience time.Duration, more ...string) (out, said []byte, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errPatience)
	defer cancel()
	var stderr bytes.Buffer
	p := program(ctx, path, &stderr)(append([]string{action}, more...)...).(*call)
	p.cmd.Env = append(os.Environ(), "COVE_ASK=no") // ours shows no window then for a keyring that is locked
	out, err = p.Output()
	return out, stderr.Bytes(), err
}

var errPatience = errors.New("it does not answer")

func stateOf(err error) State {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return Works
	case errors.Is(err, errPatience):
		return Hangs
	case errors.As(err, &exit) && exit.ExitCode() != 126 && exit.ExitCode() != 127: // those two are a shell's, for what it cannot run
		return Fails
	}
	return Broken
}

func errorText(s State, err error, out, said []byte) string {
	switch s {
	case Works:
		return ""
	case Hangs:
		return fmt.Sprintf("it does not answer within %s", askPatience)
	case Fails:
		for _, b := range [][]byte{out, said} { // the protocol has errors on the standard output
			if l := firstLine(b); l != "" {
				return l
			}
		}
	}
	var path *os.PathError
	if errors.As(err, &path) {
		return "it cannot be run: " + path.Err.Error()
	}
	return "it cannot be run: " + err.Error()
}

// firstLine is one line for people of what a program said.
func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	line = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, line)
	return line[:min(len(line), maxSaid)]
}

// program runs a helper by the protocol, until the context ends.
func program(ctx context.Context, path string, stderr io.Writer) client.ProgramFunc {
	return func(args ...string) client.Program {
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Stderr = stderr
		cmd.WaitDelay = time.Second // for its children, who keep its output open
		return &call{ctx, cmd}
	}
}

type call struct {
	ctx context.Context
	cmd *exec.Cmd
}

func (c *call) Input(in io.Reader) { c.cmd.Stdin = in }

func (c *call) Output() ([]byte, error) {
	out, err := c.cmd.Output()
	if err != nil && c.ctx.Err() != nil {
		err = context.Cause(c.ctx)
	}
	return out, err
}

// store puts a login into a helper and reads it back.
func store(ctx context.Context, path string, a Auth) error {
	ctx, cancel := context.WithTimeoutCause(ctx, storePatience, errPatience)
	defer cancel()
	hide := func(err error) error { // a helper may say what it was given
		return errors.New(strings.ReplaceAll(err.Error(), a.secret.RevealSecret(), "[secret]"))
	}
	p := program(ctx, path, os.Stderr)
	if err := client.Store(p, &credentials.Credentials{ServerURL: a.Server, Username: a.User, Secret: a.secret.RevealSecret()}); err != nil {
		return hide(err)
	}
	got, err := client.Get(p, a.Server)
	if err != nil {
		return fmt.Errorf("read back what was stored: %w", hide(err))
	}
	if got.Username != a.User || got.Secret != a.secret.RevealSecret() {
		return errors.New("what was stored reads back as something else")
	}
	return nil
}

// holds gives what a helper has for a server.
func holds(ctx context.Context, path, server string) (user string, s secret.Text, there bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, storePatience, errPatience)
	defer cancel()
	got, err := client.Get(program(ctx, path, os.Stderr), server)
	switch {
	case credentials.IsErrCredentialsNotFound(err):
		return "", secret.Text{}, false, nil
	case err != nil:
		return "", secret.Text{}, false, err
	}
	return got.Username, secret.New(got.Secret), true, nil
}

// own is our helper's program beside us, or else in PATH; empty if there is none.
func (s Setup) own() string {
	path := filepath.Join(s.Beside, programOf(cove)+suffix())
	if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
		return path
	}
	path, _ = lookPath(programOf(cove))
	return path
}

func suffix() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}
