package keystore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"
	"github.com/moby/sys/atomicwriter"
)

// ErrPassphrase says that a passphrase is not the one.
var ErrPassphrase = errors.New("that is not the passphrase")

// HasPassphrase says whether the identity is encrypted with a passphrase.
func (f *AgeFile) HasPassphrase() (bool, error) {
	text, err := os.ReadFile(f.path(identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return bytes.HasPrefix(text, []byte(ageHeader)), err
}

// SetPassphrase gives the file a new identity that is encrypted with a passphrase and is unlocked for now,
// or with an empty one a new identity in the clear. The entries stay. A process that dies within leaves a
// file that the old identity still opens, or the new one.
func (f *AgeFile) SetPassphrase(passphrase string) error {
	err := f.locked(func() error {
		s, err := f.read()
		if err != nil {
			return err
		}
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return err
		}
		text := []byte(id.String() + "\n")
		kept := text
		if passphrase != "" {
			r, err := age.NewScryptRecipient(passphrase)
			if err != nil {
				return err
			}
			r.SetWorkFactor(f.work)
			if kept, err = seal(text, r); err != nil {
				return err
			}
			if _, err := f.runtime(); err != nil {
				return err // before anything has changed
			}
		}
		old, err := f.identity()
		switch {
		case err == nil && len(s.Servers) > 0:
			if err := f.write(s, old.Recipient(), id.Recipient()); err != nil {
				return err
			}
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
		if err := atomicwriter.WriteFile(f.path(identityFile), kept, 0o600); err != nil {
			return err
		}
		if passphrase == "" {
			err = f.LockAgain()
		} else {
			err = f.keepUnlocked(text)
		}
		if err != nil {
			return err
		}
		if len(s.Servers) == 0 {
			return nil
		}
		return f.write(s, id.Recipient())
	})
	if err != nil {
		return f.problem("change the passphrase of", err)
	}
	return nil
}

// Unlock keeps the identity in memory, for every process of this user, until LockAgain or logout. Without
// a passphrase there is nothing to do. A wrong one is ErrPassphrase.
func (f *AgeFile) Unlock(passphrase string) error {
	sealed, err := os.ReadFile(f.path(identityFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !bytes.HasPrefix(sealed, []byte(ageHeader)) {
		return nil
	}
	if err != nil {
		return f.problem("unlock", err)
	}
	with, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return ErrPassphrase // it is empty
	}
	text, err := open(sealed, with)
	var wrong *age.NoIdentityMatchError
	if errors.As(err, &wrong) {
		return ErrPassphrase
	}
	if err == nil {
		_, err = parseIdentity(text)
	}
	if err == nil {
		err = f.keepUnlocked(text)
	}
	if err != nil {
		return f.problem("unlock", err)
	}
	return nil
}

// LockAgain forgets what Unlock has kept.
func (f *AgeFile) LockAgain() error {
	path, err := f.unlockedPath()
	if err != nil {
		return nil // no place for it, so it is not there
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.problem("lock", err)
	}
	return nil
}

// unlockedPath is where the identity lies while it is unlocked. Each folder has its own.
func (f *AgeFile) unlockedPath() (string, error) {
	memory, err := f.runtime()
	if err != nil {
		return "", err
	}
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		return "", err
	}
	of := sha256.Sum256([]byte(dir))
	return filepath.Join(memory, "cove-identity-"+hex.EncodeToString(of[:8])), nil
}

func (f *AgeFile) keepUnlocked(text []byte) error {
	path, err := f.unlockedPath()
	if err != nil {
		return err
	}
	return atomicwriter.WriteFile(path, text, 0o600)
}

func (f *AgeFile) unlocked() ([]byte, error) {
	waits := &Problem{
		Why:    "The encrypted file is locked.",
		Remedy: "Run docker-credential-cove unlock, which asks for its passphrase.",
		Locked: true,
	}
	path, err := f.unlockedPath()
	if err != nil {
		waits.Err = err
		return nil, waits
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, waits
	}
	if err != nil {
		return nil, fmt.Errorf("read the unlocked identity: %w", err)
	}
	return text, nil
}
