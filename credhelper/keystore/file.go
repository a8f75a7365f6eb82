package keystore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"filippo.io/age"
	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/moby/sys/atomicwriter"
)

// Files of the encrypted file's folder.
const (
	secretsFile  = "secrets.age"  // the entries, encrypted to the identity
	identityFile = "identity"     // the identity: its text, or that encrypted with a passphrase
	lockName     = "secrets.lock" // who changes either holds it
)

// AgeFile keeps the entries in one file, encrypted with age to an identity that lies beside it: in the
// clear, for this user alone, or encrypted with a passphrase and then in the clear only in memory, from
// Unlock to LockAgain or logout. Processes may store at the same time, nothing is lost.
type AgeFile struct {
	dir     string
	runtime func() (string, error) // the folder in memory that an unlocked identity lies in
	work    int                    // scrypt's factor for a passphrase, as a power of two
}

// scryptWork is age's own default: about a second for each guess.
const scryptWork = 18

// NewAgeFile keeps its files in dir, which is made with the first of them.
func NewAgeFile(dir string) *AgeFile {
	return &AgeFile{dir: dir, runtime: memoryFolder, work: scryptWork}
}

func (f *AgeFile) Name() string  { return File }
func (f *AgeFile) Title() string { return "the encrypted file" }

// secrets is what is in the file.
type secrets struct {
	Version int              `json:"version"`
	Servers map[string]entry `json:"servers"`
}

type entry struct {
	Username string `json:"username"`
	Secret   string `json:"secret"`
}

// Format keeps the secret out of whatever prints one.
func (entry) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[secret]") }

const secretsVersion = 1

func (f *AgeFile) Add(c *credentials.Credentials) error {
	return f.change("store in", func(s *secrets) { s.Servers[c.ServerURL] = entry{c.Username, c.Secret} })
}

func (f *AgeFile) Delete(server string) error {
	if _, err := os.Stat(f.path(secretsFile)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return f.change("erase from", func(s *secrets) { delete(s.Servers, server) })
}

func (f *AgeFile) Get(server string) (username, secret string, err error) {
	s, err := f.readSteady()
	if err != nil {
		return "", "", f.problem("read", err)
	}
	e, ok := s.Servers[server]
	if !ok {
		return "", "", credentials.NewErrCredentialsNotFound()
	}
	return e.Username, e.Secret, nil
}

func (f *AgeFile) List() (map[string]string, error) {
	s, err := f.readSteady()
	if err != nil {
		return nil, f.problem("read", err)
	}
	users := map[string]string{}
	for server, e := range s.Servers {
		users[server] = e.Username
	}
	return users, nil
}

func (f *AgeFile) path(name string) string { return filepath.Join(f.dir, name) }

// change replaces the file by one with the change in it.
func (f *AgeFile) change(doing string, change func(*secrets)) error {
	err := f.locked(func() error {
		s, err := f.read()
		if err != nil {
			return err
		}
		change(s)
		if len(s.Servers) == 0 {
			return f.clear()
		}
		id, err := f.identity()
		if errors.Is(err, fs.ErrNotExist) {
			id, err = f.newIdentity()
		}
		if err != nil {
			return err
		}
		return f.write(s, id.Recipient())
	})
	if err != nil {
		return f.problem(doing, err)
	}
	return nil
}

func (f *AgeFile) locked(do func() error) error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	unlock, err := Lock(f.path(lockName))
	if err != nil {
		return err
	}
	defer unlock()
	return do()
}

// clear leaves nothing but an identity with a passphrase, which people have to type the same again.
func (f *AgeFile) clear() error {
	if err := os.Remove(f.path(secretsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if sealed, err := f.HasPassphrase(); err != nil || sealed {
		return err
	}
	if err := os.Remove(f.path(identityFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// readSteady reads without the lock, so that a folder that is read-only serves. An error may come of a
// change between the file and its identity, and then is gone under the lock. Windows replaces no file that
// somebody reads.
func (f *AgeFile) readSteady() (s *secrets, err error) {
	if _, none := os.Stat(f.path(secretsFile)); none != nil || runtime.GOOS != "windows" {
		if s, err = f.read(); err == nil || IsLocked(err) {
			return s, err
		}
	}
	locked := f.locked(func() error { s, err = f.read(); return err })
	if err == nil {
		err = locked // the lock itself; after an error without it, that one says more
	}
	return s, err
}

// read gives what is in the file; nothing where there is none.
func (f *AgeFile) read() (*secrets, error) {
	s := &secrets{Version: secretsVersion, Servers: map[string]entry{}}
	sealed, err := os.ReadFile(f.path(secretsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	id, err := f.identity()
	if err != nil {
		return nil, err
	}
	plain, err := open(sealed, id)
	if err != nil {
		return nil, fmt.Errorf("decrypt %s: %w", f.path(secretsFile), err)
	}
	if err := json.Unmarshal(plain, s); err != nil || s.Servers == nil {
		return nil, fmt.Errorf("%s holds something else than credentials", f.path(secretsFile)) // the cause might quote a secret
	}
	if s.Version != secretsVersion {
		return nil, fmt.Errorf("%s is of version %d, made by a newer Cove", f.path(secretsFile), s.Version)
	}
	return s, nil
}

func (f *AgeFile) write(s *secrets, to ...age.Recipient) error {
	plain, err := json.Marshal(s)
	if err != nil {
		return err
	}
	sealed, err := seal(plain, to...)
	if err != nil {
		return err
	}
	return atomicwriter.WriteFile(f.path(secretsFile), sealed, 0o600)
}

// ageHeader begins what age has encrypted; an identity in the clear does not begin so.
const ageHeader = "age-encryption.org/"

// identity gives the key of the file. One that waits for its passphrase is Locked.
func (f *AgeFile) identity() (*age.X25519Identity, error) {
	text, err := os.ReadFile(f.path(identityFile))
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(text, []byte(ageHeader)) {
		if text, err = f.unlocked(); err != nil {
			return nil, err
		}
	}
	return parseIdentity(text)
}

func (f *AgeFile) newIdentity() (*age.X25519Identity, error) {
	if _, err := os.Stat(f.path(secretsFile)); err == nil {
		return nil, fmt.Errorf("%s: %w", f.path(identityFile), fs.ErrNotExist) // a new one would not open what is there
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	return id, atomicwriter.WriteFile(f.path(identityFile), []byte(id.String()+"\n"), 0o600)
}

func parseIdentity(text []byte) (*age.X25519Identity, error) {
	id, err := age.ParseX25519Identity(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, errors.New("the identity is damaged") // the cause quotes it
	}
	return id, nil
}

func seal(plain []byte, to ...age.Recipient) ([]byte, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func open(sealed []byte, with ...age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), with...)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func (f *AgeFile) problem(doing string, err error) error {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	p = &Problem{Why: fmt.Sprintf("Could not %s the encrypted file in %s.", doing, f.dir), Err: err}
	switch {
	case errors.Is(err, fs.ErrPermission):
		p.Remedy = "Make the folder yours and writable: it may have been made by another user, root for example."
	case errors.Is(err, fs.ErrNotExist):
		p.Remedy = "Without its identity it cannot be read: put the identity back from a copy, or remove " + f.path(secretsFile) + " and log in again."
	default:
		p.Remedy = "Look at the cause in brackets; when the files are damaged, remove the folder and log in again."
	}
	return p
}
