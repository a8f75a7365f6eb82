//go:build cgo

package keystore

/*
#cgo LDFLAGS: -framework Security
#include <Security/Security.h>

// The default keychain's status; asking for it shows no window.
static int cove_keychain_locked(void) {
	SecKeychainStatus status = 0;
	if (SecKeychainGetStatus(NULL, &status) != errSecSuccess) return 0;
	return (status & kSecUnlockStateStatus) == 0;
}
*/
import "C"

import (
	"errors"

	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/docker/docker-credential-helpers/osxkeychain"
)

// keychain is macOS's, the same entries as docker-credential-osxkeychain.
type keychain struct {
	ask bool
	lib osxkeychain.Osxkeychain
}

func newKeychain(ask bool) Store { return keychain{ask: ask} }

func (keychain) Name() string  { return Keychain }
func (keychain) Title() string { return "the keychain" }

// ready keeps the system from asking for the keychain's password where that is not wanted.
func (k keychain) ready() error {
	if !k.ask && C.cove_keychain_locked() != 0 {
		return keychainProblem(osxkeychain.ErrInteractionNotAllowed)
	}
	return nil
}

func (k keychain) Add(c *credentials.Credentials) error {
	if err := k.ready(); err != nil {
		return err
	}
	return keychainProblem(k.lib.Add(c))
}

func (k keychain) Delete(server string) error {
	if err := k.ready(); err != nil {
		return err
	}
	if err := k.lib.Delete(server); !credentials.IsErrCredentialsNotFound(err) {
		return keychainProblem(err)
	}
	return nil
}

func (k keychain) Get(server string) (username, secret string, err error) {
	if err := k.ready(); err != nil {
		return "", "", err
	}
	username, secret, err = k.lib.Get(server)
	return username, secret, keychainProblem(err)
}

func (k keychain) List() (map[string]string, error) {
	if err := k.ready(); err != nil {
		return nil, err
	}
	users, err := k.lib.List()
	return users, keychainProblem(err)
}

func keychainProblem(err error) error {
	switch {
	case err == nil || credentials.IsErrCredentialsNotFound(err):
		return err
	case errors.Is(err, osxkeychain.ErrInteractionNotAllowed):
		return &Problem{
			Why:    "The keychain is locked, or this session (ssh, for example) may not ask for its password.",
			Remedy: "Run security unlock-keychain, or use the encrypted file: docker-credential-cove use file.",
			Locked: true,
		}
	}
	return &Problem{Why: "The keychain refused.", Remedy: "Look at the cause in brackets, or use the encrypted file: docker-credential-cove use file.", Err: err}
}
