//go:build !windows

package keystore

import (
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/docker/docker-credential-helpers/pass"
)

// passStore is pass, the same entries as docker-credential-pass.
type passStore struct {
	ask    bool // whether gpg may ask for the passphrase of its key
	within time.Duration
	lib    pass.Pass
}

func newPass(ask bool) *passStore {
	if ask {
		return &passStore{ask: ask, within: askPatience}
	}
	return &passStore{ask: ask, within: callPatience}
}

func (p *passStore) Name() string  { return Pass }
func (p *passStore) Title() string { return "pass" }

const chooseOther = "Choose another keystore: docker-credential-cove use NAME."

// ready says why pass cannot serve before it is run.
func (p *passStore) ready() error {
	if _, err := exec.LookPath("pass"); err != nil {
		return &Problem{Why: "The program pass is not in PATH.", Remedy: "Install it, or choose another keystore: docker-credential-cove use NAME."}
	}
	if !passInitialised() {
		return &Problem{Why: "pass has no key yet.", Remedy: "Run pass init with the id of a gpg key, or choose another keystore: docker-credential-cove use NAME."}
	}
	return nil
}

func passInitialised() bool {
	_, err := os.Stat(filepath.Join(passFolder(), ".gpg-id"))
	return err == nil
}

// passFolder is where pass keeps its files.
func passFolder() string {
	if dir := os.Getenv("PASSWORD_STORE_DIR"); dir != "" {
		return dir
	}
	home, _ := os.UserHomeDir()
	return filepath.Join(home, ".password-store")
}

// entriesOf are the files of a server's users, as the library names them.
func entriesOf(server string) ([]os.DirEntry, error) {
	entries, err := os.ReadDir(filepath.Join(passFolder(), pass.PASS_FOLDER, base64.URLEncoding.EncodeToString([]byte(server))))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// run bounds what the library does, which has no bounds of its own: gpg may wait for a passphrase. What
// it has started then ends when the user answers, or with our end of its pipes.
func (p *passStore) run(do func() error) error {
	if err := p.ready(); err != nil {
		return err
	}
	if !p.ask {
		const gpgOptions = "PASSWORD_STORE_GPG_OPTS"
		old, had := os.LookupEnv(gpgOptions)
		os.Setenv(gpgOptions, strings.TrimSpace(old+" --pinentry-mode=error"))
		defer func() {
			if had {
				os.Setenv(gpgOptions, old)
			} else {
				os.Unsetenv(gpgOptions)
			}
		}()
	}
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return passProblem(err)
	case <-time.After(p.within):
		return &Problem{
			Why:    "pass did not answer within " + p.within.String() + "; gpg may be waiting for the passphrase of its key.",
			Remedy: "Unlock the key (for example with pass show of any entry in a terminal) and try again, or choose another keystore: docker-credential-cove use NAME.",
		}
	}
}

func passProblem(err error) error {
	switch {
	case err == nil || credentials.IsErrCredentialsNotFound(err):
		return err
	case strings.Contains(err.Error(), "decryption failed") && haveSecretKey():
		return &Problem{
			Why:    "The gpg key of pass is locked, and its passphrase could not be asked for.",
			Remedy: "Unlock it in a terminal (export GPG_TTY=$(tty), then pass show of any entry) and try again, or choose another keystore: docker-credential-cove use NAME.",
			Locked: true,
			Err:    oneLine(err),
		}
	case strings.Contains(err.Error(), "decryption failed"):
		return &Problem{Why: "gpg does not have the secret key that pass encrypts to.", Remedy: "Import the key, or run pass init with the id of one that is there.", Err: oneLine(err)}
	case strings.Contains(err.Error(), "encryption failed"):
		return &Problem{Why: "gpg cannot encrypt to the key that pass was initialised with.", Remedy: "Run pass init with the id of a key that is there and has not expired.", Err: oneLine(err)}
	}
	return &Problem{Why: "pass failed.", Remedy: "Run pass ls in a terminal to see more, or choose another keystore: docker-credential-cove use NAME.", Err: oneLine(err)}
}

// haveSecretKey says whether gpg has a key that pass encrypts to. gpg's words for one that is locked and one
// that is not there are the same.
func haveSecretKey() bool {
	ids, err := os.ReadFile(filepath.Join(passFolder(), ".gpg-id"))
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), callPatience)
	defer cancel()
	for _, id := range strings.Fields(string(ids)) {
		if exec.CommandContext(ctx, "gpg", "--batch", "--list-secret-keys", "--", id).Run() == nil {
			return true
		}
	}
	return false
}

// oneLine keeps the message of a program in the one line that we print.
func oneLine(err error) error { return errors.New(strings.Join(strings.Fields(err.Error()), " ")) }

func (p *passStore) Add(c *credentials.Credentials) error {
	if strings.ContainsAny(c.Username, `/\`) || c.Username == "." || c.Username == ".." {
		return &Problem{Why: "pass cannot keep a user whose name has a slash in it.", Remedy: chooseOther}
	}
	return p.run(func() error {
		if err := p.lib.Add(c); err != nil {
			return err
		}
		// The library leaves the entry of another user of this server, and finds it first perhaps. What
		// was added above shows that gpg works, before anything is removed.
		users, err := entriesOf(c.ServerURL)
		if err != nil || len(users) < 2 {
			return err
		}
		if err := p.lib.Delete(c.ServerURL); err != nil {
			return err
		}
		return p.lib.Add(c)
	})
}

func (p *passStore) Delete(server string) error {
	users, err := entriesOf(server)
	if err != nil {
		return passProblem(err)
	}
	if len(users) == 0 {
		return nil // pass calls that an error
	}
	return p.run(func() error { return p.lib.Delete(server) })
}

func (p *passStore) Get(server string) (username, secret string, err error) {
	users, err := entriesOf(server)
	if err == nil && len(users) == 0 {
		return "", "", credentials.NewErrCredentialsNotFound() // no program is started for what is not there
	}
	var u, pw string
	if err := p.run(func() (err error) { u, pw, err = p.lib.Get(server); return err }); err != nil {
		return "", "", err // and leave the two to a library that may still be at them
	}
	return u, pw, nil
}

func (p *passStore) List() (map[string]string, error) {
	users, err := p.lib.List() // it reads folders alone
	return users, passProblem(err)
}
