package credhelper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/covedesk/cove/credhelper/keystore"
	"github.com/moby/sys/atomicwriter"
)

// Choice is which keystore is used, and who said so. Once made it stays, so that entries do not wander
// between keystores when one of them is away for a while.
type Choice struct {
	Keystore string `json:"keystore,omitempty"` // empty: none yet
	By       string `json:"by,omitempty"`       // "user" or "test"
}

// Files of the folder; the encrypted file's own are beside them.
const (
	choiceFile = "keystore.json"
	choiceLock = "keystore.lock"
)

func (h *Helper) choice() (Choice, error) {
	var c Choice
	path := filepath.Join(h.dir, choiceFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, h.noFolder(err)
	}
	err = json.Unmarshal(b, &c)
	if err == nil && c.Keystore == "" {
		err = errors.New("it names no keystore")
	}
	if err != nil {
		return Choice{}, &keystore.Problem{
			Why:    "Which keystore is used cannot be read from " + path + ".",
			Remedy: "Choose again: " + Name + " use auto, or use NAME.",
			Err:    err,
		}
	}
	return c, nil
}

func (h *Helper) remember(c Choice) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := atomicwriter.WriteFile(filepath.Join(h.dir, choiceFile), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("remember the keystore: %w", err)
	}
	return nil
}

// locked keeps choices and probes of processes apart.
func (h *Helper) locked() (unlock func(), err error) {
	err = os.MkdirAll(h.dir, 0o700)
	if err == nil {
		unlock, err = keystore.Lock(filepath.Join(h.dir, choiceLock))
	}
	if err != nil {
		return nil, h.noFolder(err)
	}
	return unlock, nil
}

func (h *Helper) noFolder(err error) error {
	return &keystore.Problem{
		Why:    "Could not use Cove's folder " + h.dir + ".",
		Remedy: "Make it yours and writable, or set COVE_HOME to another folder.",
		Err:    err,
	}
}

// choose takes the first keystore that passes the probe, and remembers it. One that is locked may ask the
// user: a login is a moment at which somebody is there.
func (h *Helper) choose() (Choice, error) {
	unlock, err := h.locked()
	if err != nil {
		return Choice{}, err
	}
	defer unlock()
	if c, err := h.choice(); err != nil || c.Keystore != "" {
		return c, err // another process was first
	}
	c, err := h.chooseLocked()
	if first := h.stores(false)[0]; err == nil && c.Keystore != first.Name() {
		fmt.Fprintf(h.warn, "%s: %s does not work here, so credentials are kept in the keystore %q from now on; %s status says more.\n", Name, first.Title(), c.Keystore, Name)
	}
	return c, err
}

func (h *Helper) chooseLocked() (Choice, error) {
	var reasons []string
	asking := h.stores(true)
	for i, s := range h.stores(false) {
		err := keystore.Probe(s)
		if keystore.IsLocked(err) {
			err = keystore.Probe(asking[i])
		}
		if err == nil {
			c := Choice{Keystore: s.Name(), By: "test"}
			return c, h.remember(c)
		}
		reasons = append(reasons, s.Name()+": "+problem(err).Why)
	}
	return Choice{}, &keystore.Problem{
		Why:    "No keystore of this system works. " + strings.Join(reasons, " "),
		Remedy: "See what each needs: " + Name + " status.",
	}
}

// Use chooses a keystore by name when it passes the probe, or with "auto" the first that does. Entries
// stay where they are.
func (h *Helper) Use(name string) (Choice, error) {
	unlock, err := h.locked()
	if err != nil {
		return Choice{}, err
	}
	defer unlock()
	if name == "auto" {
		return h.chooseLocked()
	}
	s, err := h.named(name, true)
	if err != nil {
		return Choice{}, err
	}
	if err := keystore.Probe(s); err != nil {
		return Choice{}, err
	}
	c := Choice{Keystore: name, By: "user"}
	return c, h.remember(c)
}
