// Package keystore puts the credentials of registries where this system keeps secrets: the keychain, the
// credential manager, the Secret Service, pass, or a file that is encrypted. Every keystore keeps one
// user for a server, removes what is not there without an error, answers within bounds, and says in words
// for people why it does not serve.
package keystore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/docker/docker-credential-helpers/credentials"
)

// Names of the keystores, as people choose them.
const (
	SecretService = "secret-service"
	Pass          = "pass"
	Keychain      = "keychain"
	Wincred       = "wincred"
	File          = "file"
)

// Store is one keystore. Get of what is not there is credentials.NewErrCredentialsNotFound, Delete of it
// is no error. Every other error is a *Problem, and none has a secret in it.
type Store interface {
	credentials.Helper
	Name() string
	Title() string // for people
}

// Options are what the keystores of a system need to know.
type Options struct {
	Dir string // of the encrypted file
	Ask bool   // whether a keystore that is locked may ask the user, in a window; else it is Locked
}

// Problem is why a keystore does not serve: two sentences, each with its full stop.
type Problem struct {
	Why    string
	Remedy string
	Locked bool  // nothing is broken: the user has to unlock it
	Err    error // nil where Why says it all
}

func (p *Problem) Error() string {
	if p.Err == nil {
		return p.Why + " " + p.Remedy
	}
	return fmt.Sprintf("%s %s (%v)", p.Why, p.Remedy, p.Err)
}

func (p *Problem) Unwrap() error { return p.Err }

// IsLocked says whether a keystore only waits to be unlocked.
func IsLocked(err error) bool {
	var p *Problem
	return errors.As(err, &p) && p.Locked
}

const (
	// callPatience bounds one answer of a program or service: starting one that sleeps is in it.
	callPatience = 10 * time.Second
	// askPatience is for a person to find a window and type a password. Where nobody sees the window, a
	// pull is held up so long.
	askPatience = 30 * time.Second
)

// ProbeServer is the server of the probe's entry. It cannot be a registry: .invalid is nobody's (RFC 2606).
const ProbeServer = "https://probe.cove.invalid"

// Probe finds out whether a keystore serves: it stores an entry, reads it back and erases it. Nothing of
// it stays. Two probes of one keystore at a time disturb each other.
func Probe(s Store) (err error) {
	secret := rand.Text()
	broken := func(what string) error {
		return &Problem{Why: s.Title() + " " + what + ".", Remedy: "Choose another keystore: docker-credential-cove use NAME."}
	}
	defer func() {
		if e := s.Delete(ProbeServer); err == nil && e != nil {
			err = e
			return
		}
		if err == nil {
			if _, _, e := s.Get(ProbeServer); !credentials.IsErrCredentialsNotFound(e) {
				err = broken("keeps what is erased")
			}
		}
	}()
	if err := s.Add(&credentials.Credentials{ServerURL: ProbeServer, Username: "probe", Secret: secret}); err != nil {
		return err
	}
	user, got, err := s.Get(ProbeServer)
	switch {
	case credentials.IsErrCredentialsNotFound(err):
		return broken("loses what is stored")
	case err != nil:
		return err
	case user != "probe" || got != secret:
		return broken("gives back something else than was stored")
	}
	return nil
}
