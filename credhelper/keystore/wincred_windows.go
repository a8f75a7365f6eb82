package keystore

import (
	"errors"
	"fmt"

	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/docker/docker-credential-helpers/wincred"
	"golang.org/x/sys/windows"
)

// credentialManager is Windows' credential manager, the same entries as docker-credential-wincred.
type credentialManager struct{ lib wincred.Wincred }

// maxBlob is CRED_MAX_CREDENTIAL_BLOB_SIZE of wincred.h, in bytes.
const maxBlob = 5 * 512

func (credentialManager) Name() string  { return Wincred }
func (credentialManager) Title() string { return "the Windows credential manager" }

func (m credentialManager) Add(c *credentials.Credentials) error {
	if len(c.Secret) > maxBlob {
		return &Problem{
			Why:    fmt.Sprintf("The Windows credential manager holds secrets of %d bytes, and this one has %d.", maxBlob, len(c.Secret)),
			Remedy: "Use the encrypted file: docker-credential-cove use file.",
		}
	}
	return wincredProblem(m.lib.Add(c))
}

func (m credentialManager) Delete(server string) error { return wincredProblem(m.lib.Delete(server)) }

func (m credentialManager) Get(server string) (username, secret string, err error) {
	username, secret, err = m.lib.Get(server)
	return username, secret, wincredProblem(err)
}

func (m credentialManager) List() (map[string]string, error) {
	users, err := m.lib.List()
	if errors.Is(err, windows.ERROR_NOT_FOUND) {
		return map[string]string{}, nil
	}
	return users, wincredProblem(err)
}

func wincredProblem(err error) error {
	switch {
	case err == nil || credentials.IsErrCredentialsNotFound(err):
		return err
	case errors.Is(err, windows.ERROR_NO_SUCH_LOGON_SESSION):
		return &Problem{
			Why:    "The credential manager is closed to this session, as over ssh.",
			Remedy: "Log in at the machine or by remote desktop, or use the encrypted file: docker-credential-cove use file.",
			Err:    err,
		}
	}
	return &Problem{Why: "The Windows credential manager refused.", Remedy: "Look at the cause in brackets, or use the encrypted file: docker-credential-cove use file.", Err: err}
}
