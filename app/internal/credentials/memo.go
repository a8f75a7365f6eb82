package credentials

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/moby/sys/atomicwriter"
)

// memo is what docker's settings in one folder said before we changed them, and what the user decided.
type memo struct {
	Set      bool              `json:"set,omitempty"`         // we set credsStore, and it said:
	Store    string            `json:"credsStore,omitempty"`  // empty if there was none
	Helpers  map[string]string `json:"credHelpers,omitempty"` // entries that we took away
	Unasked  bool              `json:"unasked,omitempty"`     // coved set it at a start
	Told     bool              `json:"told,omitempty"`        // and said so
	Declined bool              `json:"declined,omitempty"`    // the user took it back: coved does not set it again
}

// recall reads the memo of docker's folder. One that cannot be read is none: it says nothing that a default
// does not.
func (s Setup) recall() memo {
	return s.memos()[s.folder()]
}

func (s Setup) memos() map[string]memo {
	all := map[string]memo{}
	if b, err := os.ReadFile(s.Memo); err == nil {
		json.Unmarshal(b, &all)
	}
	if all == nil {
		all = map[string]memo{}
	}
	return all
}

// folder is docker's, by its usual name.
func (s Setup) folder() string {
	if abs, err := filepath.Abs(s.Docker.Dir); err == nil {
		return abs
	}
	return s.Docker.Dir
}

// remember writes it; one that says nothing is removed.
func (s Setup) remember(m memo) error {
	all := s.memos()
	if len(m.Helpers) == 0 {
		m.Helpers = nil
	}
	if all[s.folder()] = m; !m.Set && !m.Declined && !m.Told && m.Helpers == nil {
		delete(all, s.folder())
	}
	if len(all) == 0 {
		if err := os.Remove(s.Memo); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	b, err := json.MarshalIndent(all, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(s.Memo), 0o700)
	}
	if err == nil {
		err = atomicwriter.WriteFile(s.Memo, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep what docker's settings said before: %w", err)
	}
	return nil
}

// with adds what is about to be changed. What was there before the first change is what counts.
func (m memo) with(store string, helpers map[string]string) memo {
	if !m.Set && store != cove {
		m.Set, m.Store = true, store
	}
	m.Unasked, m.Declined = false, false
	return m.without(helpers)
}

// without adds entries that are taken away.
func (m memo) without(helpers map[string]string) memo {
	all := map[string]string{}
	maps.Copy(all, helpers)
	maps.Copy(all, m.Helpers)
	m.Helpers = all
	return m
}
