//go:build !cgo

package keystore

import "github.com/docker/docker-credential-helpers/credentials"

// keychain says that it is missing: Security.framework needs cgo.
type keychain struct{}

func newKeychain(bool) Store { return keychain{} }

var errNoCgo = &Problem{
	Why:    "This docker-credential-cove was built without cgo and cannot reach the keychain.",
	Remedy: "Build it on a Mac with CGO_ENABLED=1, or use the encrypted file: docker-credential-cove use file.",
}

func (keychain) Name() string                       { return Keychain }
func (keychain) Title() string                      { return "the keychain" }
func (keychain) Add(*credentials.Credentials) error { return errNoCgo }
func (keychain) Delete(string) error                { return errNoCgo }
func (keychain) Get(string) (string, string, error) { return "", "", errNoCgo }
func (keychain) List() (map[string]string, error)   { return nil, errNoCgo }
