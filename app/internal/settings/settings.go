// Package settings keeps the user's settings: one schema for the CLI, the API and the GUI, in a JSON
// file that people can edit. What is not in the schema or out of range is refused with the range; a file
// that is no JSON object at all is kept aside and named, and never overwritten.
package settings

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/moby/sys/atomicwriter"
	"github.com/spf13/viper"
)

// ErrUnknownKey is wrapped in the error for a key that is not in the schema.
var ErrUnknownKey = errors.New("there is no such setting")

var errRange = errors.New("it is out of range")

// ValueError is a value that cannot be used. Its text is a full sentence. For a key that the file has and
// the schema has not, it wraps ErrUnknownKey, and what is allowed are the keys.
type ValueError struct {
	File    string // where it stands; empty for one that was just given
	Key     string
	Value   string
	Allowed string // the range
	Why     string // empty: it is out of range
	cause   error
}

func (e *ValueError) Unwrap() error { return e.cause }

func (e *ValueError) Error() string {
	if errors.Is(e.cause, ErrUnknownKey) {
		return fmt.Sprintf("The setting %s in %s, which is %q, does not exist: %s. Allowed is %s.", e.Key, e.File, e.Value, e.Why, e.Allowed)
	}
	where := ""
	if e.File != "" {
		where = " in " + e.File
	}
	why := ""
	if e.Why != "" {
		why = ": " + e.Why
	}
	return fmt.Sprintf("The setting %s%s cannot be %q%s. Allowed is %s.", e.Key, where, e.Value, why, e.Allowed)
}

// Store is the settings file.
type Store struct {
	path  string
	host  Host
	aside string

	mu        sync.Mutex
	rehearsed bool
	set       map[string]string          // what the user set, in its usual form
	bad       map[string]json.RawMessage // what the file says and cannot be used, as it stands there
}

// Open reads the file; none is no error. A value that cannot be used and a key that is not ours are a
// *ValueError, which leaves the file as it is. With it comes a Store, for Set and Unset to mend the
// file: each corrects or drops one key, and keeps what else is wrong.
func Open(path string, host Host) (*Store, error) {
	s := &Store{path: path, host: host, set: map[string]string{}, bad: map[string]json.RawMessage{}}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, nil
	case err != nil:
		return nil, fmt.Errorf("read settings: %w", err)
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) // some editors on Windows write it
	v := viper.NewWithOptions(viper.KeyDelimiter("\x00")) // the engine's keys have dots
	v.SetConfigType("json")
	err = v.ReadConfig(bytes.NewReader(text))
	var parse viper.ConfigParseError
	switch {
	case errors.As(err, &parse):
		return s, s.setAside()
	case err != nil:
		return nil, fmt.Errorf("read settings: %w", err)
	}
	var first error
	for _, name := range slices.Sorted(maps.Keys(v.AllSettings())) {
		value := written(v.Get(name), text, name)
		k, err := find(name)
		if err != nil {
			s.bad[name] = asWritten(text, name)
			first = cmp.Or(first, error(&ValueError{File: path, Key: name, Value: key{}.show(value), Allowed: "one of " + names(), Why: "the nearest is " + nearest(name), cause: err}))
			continue
		}
		form, err := k.parse(host, value)
		if err != nil {
			s.bad[name] = asWritten(text, name)
			first = cmp.Or(first, s.refuse(k, path, value, err))
			continue
		}
		s.set[k.name] = form
	}
	return s, first
}

// asWritten is a value of the file, byte for byte.
func asWritten(text []byte, name string) json.RawMessage {
	var all map[string]json.RawMessage
	json.Unmarshal(text, &all) // viper has just read it
	for k, v := range all {
		if strings.EqualFold(k, name) {
			return v
		}
	}
	return json.RawMessage("null")
}

// written is a value as people wrote it in the file, and a string without its quotes.
func written(value any, text []byte, name string) string {
	switch value := value.(type) {
	case string:
		return value
	case float64: // every number of JSON; bytes have to stay whole
		return strconv.FormatFloat(value, 'f', -1, 64)
	}
	// viper folds the case of keys, and the engine's matter: from the text itself.
	return string(asWritten(text, name))
}

// setAside keeps a file that is no JSON object under another name.
func (s *Store) setAside() error {
	aside := s.path + ".corrupt-" + time.Now().UTC().Format("20060102T150405.000")
	if err := os.Rename(s.path, aside); err != nil {
		return fmt.Errorf("keep the unreadable settings aside: %w", err)
	}
	s.aside = aside
	return nil
}

// Aside is where an unreadable file was kept; empty if there was none.
func (s *Store) Aside() string { return s.aside }

func (s *Store) refuse(k key, file, value string, err error) error {
	e := &ValueError{File: file, Key: k.name, Value: k.show(value), Allowed: k.allowed(s.host)}
	if !errors.Is(err, errRange) {
		e.Why = err.Error()
	}
	return e
}

// find is a key's row.
func find(name string) (key, error) {
	for _, k := range schema {
		if k.name == name {
			return k, nil
		}
	}
	return key{}, fmt.Errorf("%w: %q; the nearest is %s", ErrUnknownKey, name, nearest(name))
}

// nearest is the key that is the fewest edits away.
func nearest(name string) string {
	return slices.MinFunc(schema, func(a, b key) int { return edits(a.name, name) - edits(b.name, name) }).name
}

// names are all keys, for people.
func names() string {
	var all []string
	for _, k := range schema {
		all = append(all, k.name)
	}
	return strings.Join(all, ", ")
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// Values are what the daemon uses.
func (s *Store) Values() Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	var v Values
	for _, k := range schema {
		k.take(&v, s.valueLocked(k))
	}
	return v
}

func (s *Store) valueLocked(k key) string {
	if v, is := s.set[k.name]; is {
		return v
	}
	return k.fallback(s.host)
}

// List is every setting, in the schema's order.
func (s *Store) List() []api.Setting {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []api.Setting
	for _, k := range schema {
		out = append(out, s.settingLocked(k))
	}
	return out
}

func (s *Store) settingLocked(k key) api.Setting {
	_, is := s.set[k.name]
	return api.Setting{Key: k.name, Value: k.show(s.valueLocked(k)), Default: k.fallback(s.host), Set: is,
		Kind: k.kind, Allowed: k.allowed(s.host), Applies: k.applies, Description: k.description}
}

// Get is one setting; engine.KEY is one of the engine's.
func (s *Store) Get(name string) (api.Setting, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, inner, one := engineKey(name)
	k, err := find(name)
	if err != nil {
		return api.Setting{}, err
	}
	v := s.settingLocked(k)
	if one {
		all := s.engineLocked()
		value, is := all[inner]
		v.Key, v.Value, v.Default, v.Set = "engine."+inner, k.show(string(value)), "", is
	}
	return v, nil
}

// engineKey splits "engine.KEY".
func engineKey(name string) (string, string, bool) {
	if inner, is := strings.CutPrefix(name, "engine."); is && inner != "" {
		return "engine", inner, true
	}
	return name, "", false
}

// engineValue is JSON as it is, and a bare word as a string. What begins as JSON and is none is a slip:
// as a string it would keep the engine from starting.
func engineValue(value string) (json.RawMessage, error) {
	value = strings.TrimSpace(value)
	switch {
	case json.Valid([]byte(value)):
		return json.RawMessage(value), nil
	case value == "" || strings.ContainsAny(value[:1], "{[\""):
		return nil, errors.New("it is not JSON")
	}
	return json.Marshal(value)
}

func (s *Store) engineLocked() map[string]json.RawMessage {
	all := map[string]json.RawMessage{}
	if text, is := s.set["engine"]; is {
		json.Unmarshal([]byte(text), &all)
	}
	return all
}

// Rehearse makes of every change from here on one that is only said: Set and Unset check it as ever, and
// write nothing. Values and List stay what they are.
func (s *Store) Rehearse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rehearsed = true
}

// Set changes one setting and writes the file.
func (s *Store) Set(name, value string) (api.SettingChange, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, inner, one := engineKey(name)
	k, err := find(name)
	if err != nil {
		return api.SettingChange{}, err
	}
	whole := value
	if one {
		all := s.engineLocked()
		if all[inner], err = engineValue(value); err != nil {
			return api.SettingChange{}, s.refuse(k, "", value, err)
		}
		m, err := json.Marshal(all)
		if err != nil {
			return api.SettingChange{}, fmt.Errorf("set %s: %w", name, err)
		}
		whole = string(m)
	}
	form, err := k.parse(s.host, strings.TrimSpace(whole))
	if err == nil && k.check != nil {
		err = k.check(s.host, form)
	}
	if err != nil {
		return api.SettingChange{}, s.refuse(k, "", value, err)
	}
	return s.changeLocked(k, &form)
}

// Unset gives one setting its default again and writes the file.
func (s *Store) Unset(name string) (api.SettingChange, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, inner, one := engineKey(name)
	k, err := find(name)
	if _, is := s.bad[name]; err != nil && is {
		return s.changeLocked(key{name: name, fallback: func(Host) string { return "" }}, nil)
	}
	if err != nil {
		return api.SettingChange{}, err
	}
	if one {
		all := s.engineLocked()
		delete(all, inner)
		if len(all) > 0 {
			m, err := json.Marshal(all)
			if err != nil {
				return api.SettingChange{}, fmt.Errorf("unset %s: %w", name, err)
			}
			form := string(m)
			return s.changeLocked(k, &form)
		}
	}
	return s.changeLocked(k, nil)
}

// changeLocked changes one key.
func (s *Store) changeLocked(k key, form *string) (api.SettingChange, error) {
	next := maps.Clone(s.set)
	if form == nil {
		delete(next, k.name)
	} else {
		next[k.name] = *form
	}
	before := s.valueLocked(k)
	if !s.rehearsed {
		if err := s.writeLocked(k.name, next); err != nil {
			return api.SettingChange{}, err
		}
	}
	after, is := next[k.name]
	if !is {
		after = k.fallback(s.host)
	}
	return api.SettingChange{Key: k.name, Before: k.show(before), Value: k.show(after), DryRun: s.rehearsed, Restart: k.applies != now && after != before}, nil
}

// writeLocked replaces the file whole. What it says of name, for good or ill, is replaced by what is in next.
func (s *Store) writeLocked(name string, next map[string]string) error {
	all := map[string]any{}
	for bad, value := range s.bad {
		if bad != name {
			all[bad] = value
		}
	}
	for name, value := range next {
		row, _ := find(name)
		switch row.kind {
		case "integer", "json":
			all[name] = json.RawMessage(value)
		case "list":
			all[name] = strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
		default:
			all[name] = value
		}
	}
	b, err := json.MarshalIndent(all, "", "  ")
	if err == nil {
		err = atomicwriter.WriteFile(s.path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	s.set = next // it is in the file, whatever the folder says
	delete(s.bad, name)
	if err := syncFolder(filepath.Dir(s.path)); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}
