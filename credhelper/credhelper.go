// Package credhelper is a credential helper of docker and other clients: it keeps the credentials of
// registries in one of the system's keystores, and speaks the protocol of
// https://github.com/docker/docker-credential-helpers. What cannot be read for reasons of the environment
// is said on the standard error and then does not exist, so that a public image is pulled all the same;
// what cannot be stored or erased is an error. Which keystore it is was found by test, or chosen by the
// user, and stays so.
package credhelper

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/covedesk/cove/credhelper/keystore"
	"github.com/docker/docker-credential-helpers/credentials"
)

// Name is what the program is called. In docker's config.json it is "cove".
const Name = "docker-credential-cove"

// AskEnv set to "no" keeps every keystore from asking the user: for a program that looks and has no user
// in front of it.
const AskEnv = "COVE_ASK"

// Helper answers the protocol.
type Helper struct {
	dir    string                          // credentials/ in Cove's folder
	stores func(ask bool) []keystore.Store // in order of preference
	ask    bool                            // whether any of them may ask the user
	warn   io.Writer                       // the standard error
}

var _ credentials.Helper = (*Helper)(nil)

// New keeps its files in a folder, which is made with the first of them.
func New(dir string, warn io.Writer) *Helper {
	may := os.Getenv(AskEnv) != "no"
	return &Helper{dir: dir, warn: warn, ask: may, stores: func(ask bool) []keystore.Store {
		return keystore.All(keystore.Options{Dir: dir, Ask: ask && may})
	}}
}

// Add stores the credentials of one user for a server; those of another user of it are gone.
func (h *Helper) Add(c *credentials.Credentials) error {
	for what, v := range map[string]string{"the server's address": c.ServerURL, "the user's name": c.Username} {
		if !utf8.ValidString(v) || strings.ContainsFunc(v, unicode.IsControl) {
			return fmt.Errorf("%s has characters in it that no keystore can keep", what)
		}
	}
	s, err := h.toStore()
	if err != nil {
		return fmt.Errorf("the credentials were not stored: %w", err)
	}
	if err := s.Add(&credentials.Credentials{ServerURL: canonical(c.ServerURL), Username: c.Username, Secret: c.Secret}); err != nil {
		return fmt.Errorf("the credentials were not stored: %w", err)
	}
	return nil
}

// Delete erases the credentials of a server, under each of its names.
func (h *Helper) Delete(server string) error {
	stores, err := h.toRead(true)
	if err != nil {
		return fmt.Errorf("the credentials were not erased: %w", err)
	}
	var failed error
	for _, s := range stores {
		for _, name := range spellings(s, server) {
			if err := s.Delete(name); err != nil {
				failed = fmt.Errorf("the credentials were not erased: %w", err)
				break // one wait, one question
			}
		}
	}
	if chosen, _ := h.choice(); chosen.Keystore == "" {
		return nil // a keystore that was never used, and does not answer, holds nothing of ours
	}
	return failed
}

// Get gives what is stored for a server.
func (h *Helper) Get(server string) (username, secret string, err error) {
	stores, err := h.toRead(!h.unanswered())
	if err != nil {
		return "", "", h.notThere(err)
	}
	for _, s := range stores {
		for _, name := range spellings(s, server) {
			username, secret, err := s.Get(name)
			if err == nil {
				return username, secret, nil
			}
			if !credentials.IsErrCredentialsNotFound(err) {
				h.noteUnanswered(s, err)
				failed := h.notThere(err)
				if len(stores) == 1 {
					return "", "", failed
				}
				break
			}
		}
	}
	return "", "", credentials.NewErrCredentialsNotFound()
}

// List gives the servers and their users.
func (h *Helper) List() (map[string]string, error) {
	users := map[string]string{}
	stores, err := h.toRead(!h.unanswered())
	if err != nil {
		_ = h.notThere(err)
		return users, nil
	}
	for i := len(stores) - 1; i >= 0; i-- { // what comes first in Get comes last here, and stays
		found, err := stores[i].List()
		if err != nil {
			h.noteUnanswered(stores[i], err)
			_ = h.notThere(err)
			continue
		}
		for _, server := range slices.Backward(slices.Sorted(maps.Keys(found))) { // of several spellings, the one that Get finds
			if name := canonical(server); name != keystore.ProbeServer && (name == server || found[name] == "") {
				users[name] = found[server]
			}
		}
	}
	return users, nil
}

// notThere says why, in one line, and makes "not found" of it.
func (h *Helper) notThere(err error) error {
	if chosen, e := h.choice(); e != nil || chosen.Keystore != "" { // before a choice nothing of ours is missed
		fmt.Fprintf(h.warn, "%s: %s\n", Name, oneLine(err))
	}
	return credentials.NewErrCredentialsNotFound()
}

// toRead are the keystores to look in: the chosen one, or before there is one all of them, without asking
// the user, for what other helpers may have put there.
func (h *Helper) toRead(ask bool) ([]keystore.Store, error) {
	chosen, err := h.choice()
	if err != nil {
		return nil, err
	}
	if chosen.Keystore == "" {
		return h.stores(false), nil
	}
	s, err := h.named(chosen.Keystore, ask)
	if err != nil {
		return nil, err
	}
	return []keystore.Store{s}, nil
}

// toStore is the chosen keystore. The first time it is chosen.
func (h *Helper) toStore() (keystore.Store, error) {
	chosen, err := h.choice()
	if err != nil {
		return nil, err
	}
	if chosen.Keystore == "" {
		if chosen, err = h.choose(); err != nil {
			return nil, err
		}
	}
	return h.named(chosen.Keystore, true)
}

func (h *Helper) named(name string, ask bool) (keystore.Store, error) {
	var names []string
	for _, s := range h.stores(ask) {
		if s.Name() == name {
			return s, nil
		}
		names = append(names, s.Name())
	}
	return nil, &keystore.Problem{
		Why:    fmt.Sprintf("There is no keystore %q on this system.", name),
		Remedy: fmt.Sprintf("Choose one of %s, or auto: %s use NAME.", strings.Join(names, ", "), Name),
	}
}

// problem gives the parts of an error for people.
func problem(err error) keystore.Problem {
	var p *keystore.Problem
	if errors.As(err, &p) {
		q := *p
		if p.Err != nil {
			q.Why += " (" + oneLine(p.Err) + ")"
		}
		return q
	}
	return keystore.Problem{Why: err.Error()}
}
