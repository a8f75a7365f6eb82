package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/covedesk/cove/app/internal/dockerconfig"
)

// Plan is what Use is going to do, for the user to agree to.
type Plan struct {
	Previous string   // the credsStore as it is
	Dead     []Helper // helpers of single registries that do not run: their registries go to Cove
	Move     []Auth   // logins whose passwords leave docker's settings for Cove's keystore
	Leave    []Auth   // logins that cannot go, with why
	Link     Link     // what makes docker find our helper; empty: it does already
}

// Nothing says whether there is nothing to do.
func (p Plan) Nothing() bool {
	return p.Previous == cove && len(p.Dead) == 0 && len(p.Move) == 0 && p.Link == (Link{})
}

// Plan finds out what making docker use Cove's helper takes, with the keystore of a name, which Choose then tests,
// or with none of a name with the one that it has. It changes nothing. Where docker would not find
// the helper the error is a *PathError: a credsStore that is not found breaks every pull.
func (s Setup) Plan(ctx context.Context, keystore string) (Plan, error) {
	var p Plan
	c, err := s.Docker.Read()
	if err != nil {
		return p, err
	}
	if p.Previous, err = c.Get(storeKey); err != nil {
		return p, err
	}
	all, err := helpers(c)
	if err != nil {
		return p, err
	}
	if p.Link, err = s.reachable(); err != nil {
		return p, err
	}
	if keystore == "" {
		k, err := s.keystores(ctx)
		if err == nil {
			err = k.usable()
		}
		if err != nil {
			return p, err
		}
	}
	p.Dead = dead(ctx, all)
	auths, err := plain(c)
	if err != nil {
		return p, err
	}
	for _, a := range auths {
		if a.Wrong == "" {
			a.Wrong = keep(ctx, a, all, p.Dead, p.Previous, s.own())
		}
		if a.Wrong == "" {
			p.Move = append(p.Move, a)
		} else {
			p.Leave = append(p.Leave, a)
		}
	}
	return p, ctx.Err()
}

// keep says why a login stays in docker's settings; empty: it goes into the helper. Docker uses those in its
// settings only where no helper is named, so that what a helper has is newer.
func keep(ctx context.Context, a Auth, all []assigned, gone []Helper, previous, helper string) string {
	for _, h := range all {
		if h.registry == a.Server && !slices.ContainsFunc(gone, func(d Helper) bool { return d.Name == h.name }) {
			return "docker does not use it: " + programOf(h.name) + " has this registry; `docker logout " + a.Server + "` removes it"
		}
	}
	if previous == "" {
		return ""
	}
	user, secret, there, err := holds(ctx, helper, a.Server)
	switch {
	case err != nil:
		return "the keystore does not say whether it has one: " + err.Error()
	case there && (user != a.User || secret.RevealSecret() != a.secret.RevealSecret()):
		return "the keystore has another one for this registry, which is what docker uses; `docker logout " + a.Server + "` removes both"
	}
	return ""
}

// dead are the helpers of single registries that docker cannot run, with their registries; never those of a
// cloud, which nothing can stand in for.
func dead(ctx context.Context, all []assigned) []Helper {
	var names []string
	of := map[string][]string{}
	for _, h := range all {
		if !IsCloud(h.name) && h.name != cove {
			names = append(names, h.name)
			of[h.name] = append(of[h.name], h.registry)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	checked := checkAll(ctx, names)
	var out []Helper
	for _, n := range names {
		if h := checked[n]; isDead(h.State) {
			h.Registries = of[n]
			out = append(out, h)
		}
	}
	return out
}

// isDead says whether docker can do nothing with it. One that runs and says what ails it has a remedy of its
// own.
func isDead(s State) bool { return s == Missing || s == Broken || s == Hangs }

// Use does what the plan says: it makes docker find our helper, moves the logins, reads each back, and only
// then changes docker's settings, all at once. What they said before is remembered for Restore. After an
// error they are as they were.
func (s Setup) Use(ctx context.Context, p Plan) error {
	if err := p.Link.make(); err != nil {
		return err
	}
	if h := check(ctx, cove); h.State != Works {
		return fmt.Errorf("docker's settings stay as they are, because docker-credential-cove does not work as docker runs it: %s", h.Error)
	}
	return s.apply(ctx, s.own(), p.Move, func(c *dockerconfig.Config) error {
		store, err := c.Get(storeKey)
		if err != nil {
			return err
		}
		gone, err := drop(c, p.Dead)
		if err != nil {
			return err
		}
		if err := s.remember(s.recall().with(store, gone)); err != nil {
			return err
		}
		return c.Set(storeKey, cove)
	})
}

// drop takes the entries of dead helpers away and gives them back by registry.
func drop(c *dockerconfig.Config, dead []Helper) (map[string]string, error) {
	gone := map[string]string{}
	for _, d := range dead {
		for _, registry := range d.Registries {
			raw, err := c.Entry(helpersKey, registry)
			if err != nil {
				return nil, err
			}
			var name string
			if json.Unmarshal(raw, &name) != nil || name != d.Name {
				continue // another one meanwhile
			}
			gone[registry] = name
			if err := c.DeleteEntry(helpersKey, registry); err != nil {
				return nil, err
			}
		}
	}
	return gone, nil
}

// hub is Docker Hub's name in docker's settings (docker CLI, cli/config/configfile/file.go, authConfigKey).
const hub = "https://index.docker.io/v1/"

func rank(a Auth) int {
	if a.Server == hub {
		return 1
	}
	return 0
}

// apply puts logins into a helper, and when it has them all, changes docker's settings and takes the
// passwords out of them.
func (s Setup) apply(ctx context.Context, helper string, move []Auth, change func(*dockerconfig.Config) error) error {
	// A helper knows Docker Hub by several names as one: the login that docker uses comes last and stays.
	move = slices.Clone(move)
	slices.SortStableFunc(move, func(a, b Auth) int { return rank(a) - rank(b) })
	for _, a := range move {
		if err := store(ctx, helper, a); err != nil {
			return fmt.Errorf("docker's settings stay as they are, because the login at %s could not be put into the keystore: %w", a.Server, err)
		}
	}
	move = slices.DeleteFunc(move, func(a Auth) bool { // what another one has replaced meanwhile stays in the file
		user, secret, there, err := holds(ctx, helper, a.Server)
		return err != nil || !there || user != a.User || secret.RevealSecret() != a.secret.RevealSecret()
	})
	return s.Docker.Change(func(c *dockerconfig.Config) error {
		if err := change(c); err != nil {
			return err
		}
		for _, a := range move {
			raw, err := c.Entry(authsKey, a.Server)
			if err != nil {
				return err
			}
			if string(raw) != a.raw.RevealSecret() {
				continue // a login meanwhile
			}
			if err := c.DeleteFields(authsKey, a.Server, secretFields...); err != nil {
				return err
			}
		}
		return nil
	})
}

// Choose makes our helper use a keystore by its name, or with "auto" the first that works. It may ask the
// user for a passphrase.
func (s Setup) Choose(ctx context.Context, keystore string) error {
	path := s.own()
	if path == "" {
		return errNoHelper
	}
	ctx, cancel := context.WithTimeoutCause(ctx, storePatience, errPatience)
	defer cancel()
	cmd := program(ctx, path, os.Stderr)("use", keystore, "--json")
	cmd.Input(os.Stdin)
	if _, err := cmd.Output(); err != nil {
		return fmt.Errorf("choose the keystore %s: %w", keystore, err) // it has said why on the standard error
	}
	return nil
}

// Restored is what Restore came to.
type Restored struct {
	Done    bool     // docker's settings were ours and were put back
	Store   string   // the credsStore as it is now; empty: none
	Gone    string   // the one that was there before us and is not put back, because docker would not find it
	Helpers []string // registries that have their own helper again
	Logins  []Login  // what stays in Cove's keystore, where docker no longer looks
	Taken   []string // registries that credHelpers gave to Cove's helper, as `cove registry login` does
}

// Restore takes our helper out of docker's settings, and puts back what they said before us. It moves no login. coved does not set them again by itself.
func (s Setup) Restore(ctx context.Context) (Restored, error) {
	var r Restored
	m := s.recall()
	back := m.Store
	if back != "" {
		if _, err := lookPath(programOf(back)); err != nil {
			r.Gone, back = back, ""
		}
	}
	err := s.Docker.Change(func(c *dockerconfig.Config) error {
		r.Helpers, r.Taken, r.Done = nil, nil, false
		store, err := c.Get(storeKey)
		if err != nil {
			return err
		}
		r.Store = store
		if store == cove {
			r.Done, r.Store = true, back
			if back == "" {
				c.Delete(storeKey)
			} else if err := c.Set(storeKey, back); err != nil {
				return err
			}
		}
		all, err := helpers(c)
		if err != nil {
			return err
		}
		for _, h := range all {
			if h.name != cove {
				continue
			}
			if err := c.DeleteEntry(helpersKey, h.registry); err != nil {
				return err
			}
			r.Taken = append(r.Taken, h.registry)
		}
		for registry, name := range m.Helpers {
			if there, err := c.Entry(helpersKey, registry); err != nil || there != nil {
				continue // the user's, since
			}
			if _, err := lookPath(programOf(name)); err != nil {
				continue
			}
			raw, err := json.Marshal(name)
			if err == nil {
				err = c.SetEntry(helpersKey, registry, raw)
			}
			if err != nil {
				return err
			}
			r.Helpers = append(r.Helpers, registry)
		}
		slices.Sort(r.Helpers)
		return nil
	})
	if err != nil {
		return r, err
	}
	if r.Done || len(r.Taken) > 0 {
		r.Logins = check(ctx, cove).Logins
	}
	if err := s.removeLink(); err != nil {
		return r, err
	}
	return r, s.remember(memo{Declined: true})
}

// Begun is what Begin came to.
type Begun struct {
	Did   bool // docker uses Cove's helper now
	First bool // and has not done so before: the user is to be told
}

// Begin is for coved: it makes docker use Cove's helper where docker would otherwise keep passwords in plain
// text and where nothing is at stake: no store, no helper, no login is in its settings, the system's own
// helper is not there, ours is found in PATH and works, and the user has not taken it back before.
func (s Setup) Begin(ctx context.Context) (Begun, error) {
	m := s.recall()
	c, err := s.Docker.Read()
	if err != nil || m.Declined || m.Set || !free(c) { // set, and free: the user took it out by hand
		return Begun{}, err
	}
	if _, err := lookPath(programOf(cove)); err != nil {
		return Begun{}, nil
	}
	k, err := s.keystores(ctx)
	if err == nil {
		err = k.usable()
	}
	if err != nil {
		return Begun{}, err
	}
	if h := check(ctx, cove); h.State != Works {
		return Begun{}, errors.New("docker-credential-cove: " + h.Error)
	}
	did := false
	err = s.Docker.Change(func(c *dockerconfig.Config) error {
		if did = free(c); !did {
			return nil
		}
		if err := s.remember(memo{Set: true, Unasked: true, Told: true}); err != nil {
			return err
		}
		return c.Set(storeKey, cove)
	})
	return Begun{Did: did && err == nil, First: !m.Told}, err
}

// free says whether docker would keep passwords in plain text, and has none yet.
func free(c *dockerconfig.Config) bool {
	if store, err := c.Get(storeKey); err != nil || store != "" || used(c) {
		return false
	}
	helper, _ := byDefault(c)
	return helper == ""
}

// End takes back what Begin did, if nobody has logged in since: whoever removes Cove by removing its files
// would otherwise be left with settings that name a helper that is not there. Logins keep it, because docker
// finds them by it also while coved does not run.
func (s Setup) End(ctx context.Context) error {
	m := s.recall()
	if !m.Unasked {
		return nil
	}
	if h := check(ctx, cove); h.State != Missing && (h.State != Works || len(h.Logins) > 0) {
		return nil
	}
	kept := false
	err := s.Docker.Change(func(c *dockerconfig.Config) error {
		store, err := c.Get(storeKey)
		if kept = err != nil || store != cove || used(c); !kept {
			c.Delete(storeKey)
		}
		return err
	})
	if err != nil || kept {
		return err
	}
	return s.remember(memo{Told: true})
}
