package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/covedesk/cove/app/internal/dockerconfig"
	"github.com/covedesk/cove/app/internal/secret"
	"github.com/docker/docker-credential-helpers/client"
)

// Kept is a login at a server, and where docker finds it.
type Kept struct {
	Server string
	User   string // TokenUser where a token stands for the password
	Secret secret.Text
	Helper string // empty: in docker's settings, for everybody to read
}

// TokenUser is docker's name for one that logs in by a token.
const TokenUser = tokenUser

// helperOf is the helper that docker asks for a server; empty: none. A server's key is a registry's name, or a
// URL for Docker Hub.
func helperOf(c *dockerconfig.Config, server string) (string, error) {
	raw, err := c.Entry(helpersKey, server)
	if err != nil {
		return "", err
	}
	var name string
	if raw != nil && json.Unmarshal(raw, &name) == nil && name != "" {
		return name, nil
	}
	return c.Get(storeKey)
}

// Find gives the login that docker would use at a server; there says whether there is one.
func (s Setup) Find(ctx context.Context, server string) (k Kept, there bool, err error) {
	c, err := s.Docker.Read()
	if err != nil {
		return Kept{}, false, err
	}
	helper, err := helperOf(c, server)
	if err != nil {
		return Kept{}, false, err
	}
	if helper == "" {
		helper, _ = byDefault(c)
	}
	if helper != "" {
		path, err := lookPath(programOf(helper))
		if err != nil {
			return Kept{}, false, fmt.Errorf("docker's settings name %s, which is not in PATH; `cove credentials doctor` mends that", programOf(helper))
		}
		user, text, there, err := holds(ctx, path, server)
		return Kept{server, user, text, helper}, there && !text.IsZero(), err
	}
	auths, err := plain(c)
	if err != nil {
		return Kept{}, false, err
	}
	for _, a := range auths {
		if a.Server == server && a.Wrong == "" {
			return Kept{Server: server, User: a.User, Secret: a.secret}, true, nil
		}
	}
	return Kept{}, false, nil
}

// Login keeps a login where docker looks for it: with the helper that its settings name for the server, or else
// with Cove's, which they then name for it. It gives the helper's name.
func (s Setup) Login(ctx context.Context, server, user string, password secret.Text) (string, error) {
	c, err := s.Docker.Read()
	if err != nil {
		return "", err
	}
	helper, err := helperOf(c, server)
	if err != nil {
		return "", err
	}
	named := helper != ""
	var path string
	switch {
	case !named:
		helper, path = cove, s.own()
		if path == "" {
			return "", errNoHelper
		}
		link, err := s.reachable() // docker asks what its settings name, and fails where it does not find it
		if err == nil {
			err = link.make()
		}
		if err != nil {
			return "", err
		}
	default:
		if path, err = lookPath(programOf(helper)); err != nil {
			return "", fmt.Errorf("docker's settings name %s, which is not in PATH; `cove credentials doctor` mends that", programOf(helper))
		}
	}
	if IsCloud(helper) {
		return "", fmt.Errorf("docker's settings give this registry to %s, which makes its logins by itself; nothing was stored", programOf(helper))
	}
	if err := store(ctx, path, Auth{Server: server, User: user, secret: password}); err != nil {
		return "", fmt.Errorf("%s did not keep it: %w", programOf(helper), err)
	}
	return helper, s.Docker.Change(func(c *dockerconfig.Config) error {
		if !named {
			raw, err := json.Marshal(helper)
			if err != nil {
				return err
			}
			if err := c.SetEntry(helpersKey, server, raw); err != nil {
				return err
			}
		}
		// As docker login: the entry says that there is a login, and nothing of it.
		return c.SetEntry(authsKey, server, json.RawMessage("{}"))
	})
}

// Logout removes the login at a server from where docker finds it, and says whether there was one.
func (s Setup) Logout(ctx context.Context, server string) (bool, error) {
	k, there, err := s.Find(ctx, server)
	if err != nil {
		return false, err
	}
	if there && k.Helper != "" {
		path, err := lookPath(programOf(k.Helper))
		if err != nil {
			return false, err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, storePatience, errPatience)
		defer cancel()
		if err := client.Erase(program(ctx, path, os.Stderr), server); err != nil {
			return false, fmt.Errorf("%s did not forget it: %w", programOf(k.Helper), err)
		}
	}
	return there, s.Docker.Change(func(c *dockerconfig.Config) error {
		if raw, err := c.Entry(helpersKey, server); err == nil && string(raw) == `"`+cove+`"` {
			if err := c.DeleteEntry(helpersKey, server); err != nil { // Login named it
				return err
			}
		}
		return c.DeleteEntry(authsKey, server)
	})
}

// Logins are all that docker finds, without their secrets. A helper that does not answer is in the error, and
// the others' are there.
func (s Setup) Logins(ctx context.Context) ([]Kept, error) {
	c, err := s.Docker.Read()
	if err != nil {
		return nil, err
	}
	all, err := helpers(c)
	if err != nil {
		return nil, err
	}
	auths, err := plain(c)
	if err != nil {
		return nil, err
	}
	names := map[string][]string{} // the servers of each helper; nil: all that no other has
	own := map[string]bool{}
	for _, a := range all {
		names[a.name] = append(names[a.name], a.registry)
		own[a.registry] = true
	}
	general, err := c.Get(storeKey)
	if err != nil {
		return nil, err
	}
	if general != "" && names[general] == nil {
		names[general] = nil
	}
	var out []Kept
	var errs []error
	var ask []string
	for n, servers := range names {
		if !IsCloud(n) {
			ask = append(ask, n)
			continue
		}
		for _, r := range servers {
			out = append(out, Kept{Server: r, Helper: n})
		}
	}
	for n, h := range checkAll(ctx, ask) {
		if h.State != Works {
			errs = append(errs, fmt.Errorf("%s: %s", programOf(n), h.Error))
		}
		for _, l := range h.Logins {
			if slices.Contains(names[n], l.Server) || n == general && !own[l.Server] {
				out = append(out, Kept{Server: l.Server, User: l.User, Helper: n})
			}
		}
	}
	for _, a := range auths {
		if general == "" && !own[a.Server] && a.Wrong == "" {
			out = append(out, Kept{Server: a.Server, User: a.User})
		}
	}
	slices.SortFunc(out, func(a, b Kept) int { return strings.Compare(a.Server, b.Server) })
	return out, errors.Join(errs...)
}
