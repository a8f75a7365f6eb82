package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/covedesk/cove/app/internal/dockerconfig"
)

// Status is how docker's logins are kept.
type Status struct {
	Config    string    `json:"config"`              // the path of docker's settings
	Store     string    `json:"credsStore"`          // empty: none is set
	Effective string    `json:"effective"`           // the helper for registries without one of their own; empty: plain text
	Why       string    `json:"why"`                 // why that one
	Helpers   []Helper  `json:"helpers"`             // those that docker uses, and Cove's
	Keystores Keystores `json:"keystores"`           // where Cove's helper would keep logins
	Plain     []Auth    `json:"plain"`               // logins whose passwords stand in docker's settings
	Previous  *string   `json:"previous,omitempty"`  // the credsStore that `cove credentials restore` puts back
	Error     string    `json:"error,omitempty"`     // docker's settings cannot be read
	OwnError  string    `json:"coveError,omitempty"` // Cove's helper does not say how it is
}

// Keystores is what docker-credential-cove says of itself (credhelper.Status).
type Keystores struct {
	Choice struct {
		Keystore string `json:"keystore,omitempty"` // empty: none yet
		By       string `json:"by,omitempty"`       // "user" or "test"
	} `json:"choice"`
	Keystores []Keystore `json:"keystores"`
	Problem   string     `json:"problem,omitempty"`
}

// Keystore is one of them.
type Keystore struct {
	Name   string `json:"name"`
	Title  string `json:"title"`
	Chosen bool   `json:"chosen"`
	Usable bool   `json:"usable"`
	Locked bool   `json:"locked"`
	Why    string `json:"why"`
	Remedy string `json:"remedy,omitempty"`
}

// usable says whether a login could be stored.
func (k Keystores) usable() error {
	why := k.Problem
	for _, one := range k.Keystores {
		if k.Choice.Keystore != "" && k.Choice.Keystore != one.Name {
			continue
		}
		if one.Usable || one.Locked {
			return nil
		}
		if why == "" {
			why = one.Why + " " + one.Remedy
		}
	}
	if why == "" {
		why = "there is none"
	}
	return fmt.Errorf("no keystore of Cove's works here: %s", why)
}

var errNoHelper = errors.New("docker-credential-cove is neither beside cove nor in PATH")

// keystores asks our helper how it is.
func (s Setup) keystores(ctx context.Context) (Keystores, error) {
	var k Keystores
	path := s.own()
	if path == "" {
		return k, errNoHelper
	}
	out, said, err := run(ctx, path, "status", storePatience, "--json") // it tries each keystore in turn
	if err == nil {
		err = json.Unmarshal(out, &k)
	}
	if err != nil {
		return k, fmt.Errorf("ask %s how it is: %w %s", path, err, firstLine(said))
	}
	return k, nil
}

// Status finds out. It changes nothing, and asks the user nothing.
func (s Setup) Status(ctx context.Context) Status {
	st := Status{Config: s.Docker.Path(), Helpers: []Helper{}, Plain: []Auth{}}
	names := []string{cove}
	of := map[string][]string{}
	c, err := s.Docker.Read()
	if err == nil {
		err = st.read(c, of)
	}
	switch {
	case err != nil:
		st.Error = err.Error()
	case st.Store != "":
		st.Effective, st.Why = st.Store, "credsStore in docker's settings names it"
	default:
		st.Effective, st.Why = byDefault(c)
	}
	for name := range of {
		names = append(names, name)
	}
	if st.Effective != "" {
		names = append(names, st.Effective)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	checked := checkAll(ctx, names)
	for _, n := range names {
		h := checked[n]
		h.Store, h.Registries = n == st.Effective, of[n]
		if n == cove && !h.Store && len(h.Registries) == 0 && h.State == Missing {
			continue // it is not used; CoveError or Keystores tells about it
		}
		st.Helpers = append(st.Helpers, h)
	}
	if st.Keystores, err = s.keystores(ctx); err != nil {
		st.OwnError = err.Error()
	}
	if m := s.recall(); m.Set {
		st.Previous = &m.Store
	}
	return st
}

func (st *Status) read(c *dockerconfig.Config, of map[string][]string) (err error) {
	if st.Store, err = c.Get(storeKey); err != nil {
		return err
	}
	all, err := helpers(c)
	if err != nil {
		return err
	}
	for _, h := range all {
		of[h.name] = append(of[h.name], h.registry)
	}
	auths, err := plain(c)
	st.Plain = append(st.Plain, auths...)
	return err
}

// assigned is an entry of credHelpers.
type assigned struct{ registry, name string }

func helpers(c *dockerconfig.Config) ([]assigned, error) {
	entries, err := c.Entries(helpersKey)
	if err != nil {
		return nil, err
	}
	var out []assigned
	for _, e := range entries {
		var name string
		if json.Unmarshal(e.Value, &name) != nil {
			return nil, &dockerconfig.TypeError{Key: helpersKey + "." + e.Name, Want: "a string", Is: "something else"}
		}
		if name != "" { // docker takes that for plain text
			out = append(out, assigned{e.Name, name})
		}
	}
	return out, nil
}

// byDefault is what docker does where credsStore says nothing: it looks for the system's own helper, unless
// there are helpers or logins in its settings (docker CLI, cli/config/config.go, LoadDefaultConfigFile).
func byDefault(c *dockerconfig.Config) (helper, why string) {
	if used(c) {
		return "", "credsStore is not set, and docker's settings have entries already: passwords are kept there, for everybody to read who can read the file"
	}
	name := standard()
	if _, err := lookPath(programOf(name)); err != nil {
		return "", "credsStore is not set: passwords are kept in docker's settings, for everybody to read who can read the file"
	}
	return name, "credsStore is not set, and docker takes the system's own"
}

// used says whether the settings have helpers or logins, also ones whose passwords a helper keeps.
func used(c *dockerconfig.Config) bool {
	for _, key := range []string{helpersKey, authsKey} {
		if e, err := c.Entries(key); err != nil || len(e) > 0 {
			return true
		}
	}
	return false
}
