package credentials

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/covedesk/cove/app/internal/dockerconfig"
)

// Problem is something that keeps docker from using its logins, or keeps them where others can read them.
type Problem struct {
	Cause   string `json:"cause"` // for programs; never changes its meaning
	Summary string `json:"summary"`
	Remedy  string `json:"remedy"`
	Mend    Mend   `json:"mend,omitempty"` // what Setup.Mend can do about it; empty: nothing
	Mended  bool   `json:"mended"`
	Error   string `json:"error,omitempty"` // why it could not be mended
}

// Mend is what was done, when it was. Each is done once, however many problems it mends.
type Mend string

const (
	dropMark  Mend = "the byte order mark is removed"
	closeFile Mend = "other users can no longer read the file"
	link      Mend = "Cove's helper is linked into PATH"
	useCove   Mend = "docker uses Cove's helper"
	dropDead  Mend = "the entries are removed"
	movePlain Mend = "the passwords are moved"
)

// Examine finds what is wrong. It changes nothing.
func (s Setup) Examine(ctx context.Context) []Problem {
	c, err := s.Docker.Read()
	if err != nil {
		return []Problem{unreadable(s.Docker.Path(), err)}
	}
	var out []Problem
	add := func(cause string, m Mend, remedy, summary string, args ...any) {
		out = append(out, Problem{Cause: cause, Summary: fmt.Sprintf(summary, args...), Remedy: remedy, Mend: m})
	}
	if c.Mark() {
		add("config-mark", dropMark, "Remove it.", "docker's settings begin with a byte order mark, and docker reads nothing of such a file.")
	}
	for _, key := range c.Twice() {
		add("config-twice", "", "Remove the one that is not wanted.", "%s stands twice in docker's settings, and docker uses the last one.", key)
	}
	store, all, auths, wrong := parts(c)
	for _, err := range wrong {
		add("config-type", "", "Correct it in "+s.Docker.Path()+"; docker reads nothing of the file until then.", "%s.", capital(err.Error()))
	}
	if open, err := s.Docker.OpenToOthers(); err == nil && open && len(auths) > 0 {
		add("config-open", closeFile, "Take that right away.", "Other users can read or change docker's settings, and passwords are in them.")
	}
	out = append(out, s.examineStore(ctx, store)...)
	out = append(out, s.examineHelpers(ctx, all)...)
	var readable []string
	for _, a := range auths {
		if a.Wrong != "" {
			add("auth-wrong", "", "Log in again: docker login "+a.Server+".", "The login at %s in docker's settings cannot be used: %s.", a.Server, a.Wrong)
			continue
		}
		readable = append(readable, a.Server)
	}
	if len(readable) > 0 {
		m := movePlain
		if store == "" {
			m = useCove
		}
		add("plain", m, "Move them into a keystore.", "The passwords of %s are in docker's settings, for everybody to read who can read the file or a copy of it.", strings.Join(readable, ", "))
	}
	return out
}

// parts reads what there is in the settings, and what is not of docker's kind.
func parts(c *dockerconfig.Config) (store string, all []assigned, auths []Auth, wrong []error) {
	var err error
	if store, err = c.Get(storeKey); err != nil {
		wrong = append(wrong, err)
	}
	if all, err = helpers(c); err != nil {
		wrong = append(wrong, err)
	}
	if auths, err = plain(c); err != nil {
		wrong = append(wrong, err)
	}
	return store, all, auths, wrong
}

func unreadable(path string, err error) Problem {
	p := Problem{Cause: "config-unreadable", Summary: capital(err.Error()) + ".", Remedy: "Docker cannot use it either. Put a file there that can be read, or move what is there away: docker makes a new one."}
	var syntax *dockerconfig.SyntaxError
	switch {
	case errors.As(err, &syntax):
		p.Cause = "config-syntax"
		p.Remedy = "Correct it by hand. Or keep it under another name (mv " + path + " " + path + ".broken): docker makes a new one, and you log in again. Docker itself overwrites it at the next login."
	case errors.Is(err, fs.ErrPermission):
		p.Remedy = "Make it yours: chown and chmod 600 " + path + "; one that root made comes of docker run with sudo."
	}
	return p
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func (s Setup) examineStore(ctx context.Context, store string) []Problem {
	if store == "" {
		return nil
	}
	h := check(ctx, store)
	p := Problem{Cause: "store-dead", Mend: useCove,
		Summary: fmt.Sprintf("docker's settings say that %s keeps the logins (credsStore), and %s. Every pull and build fails.", h.Program, h.Error),
		Remedy:  "Let Cove's helper keep them; log in again where a login was kept there."}
	switch {
	case h.State == Works && store != cove:
		return nil
	case h.State == Works:
		k, err := s.keystores(ctx)
		if err == nil {
			err = k.usable()
		}
		if err == nil {
			return nil
		}
		return []Problem{{Cause: "keystore", Summary: capital(err.Error()), Remedy: "See `cove credentials status`."}}
	case h.State == Missing && store == cove:
		p.Mend, p.Remedy = link, "Link it into a folder of PATH."
		if l, err := s.reachable(); err != nil || l == (Link{}) {
			p.Mend = ""
			p.Remedy = "Reinstall Cove, or take it out of docker's settings with `cove credentials restore`."
			var path *PathError
			if errors.As(err, &path) {
				p.Remedy = path.Remedy
			}
		}
	case h.State == Fails:
		// It may have what it needs elsewhere: a keyring that is there on the desktop and not over ssh.
		p.Cause, p.Mend = "store-fails", ""
		p.Summary = fmt.Sprintf("%s keeps the logins (credsStore in docker's settings), and says: %s", h.Program, h.Error)
		p.Remedy = "Give it what it asks for, or let Cove's helper keep them: `cove credentials use`."
	case store == cove || IsCloud(store):
		p.Mend = ""
		p.Remedy = "Reinstall it."
	}
	return []Problem{p}
}

func (s Setup) examineHelpers(ctx context.Context, all []assigned) []Problem {
	of := map[string][]string{}
	for _, h := range all {
		of[h.name] = append(of[h.name], h.registry)
	}
	var names []string
	for n := range of {
		names = append(names, n)
	}
	slices.Sort(names)
	checked := checkAll(ctx, names)
	var out []Problem
	for _, n := range names {
		h := checked[n]
		p := Problem{Cause: "helper-dead", Mend: dropDead,
			Summary: fmt.Sprintf("docker's settings say that %s keeps the logins of %s (credHelpers), and %s. Pulls from there fail.", h.Program, strings.Join(of[n], ", "), h.Error),
			Remedy:  "Remove these entries, so that the registries' logins are kept as all others."}
		switch {
		case h.State == Works:
			continue
		case h.State == Fails:
			p.Cause, p.Mend = "helper-fails", ""
			p.Summary = fmt.Sprintf("%s keeps the logins of %s (credHelpers in docker's settings), and says: %s", h.Program, strings.Join(of[n], ", "), h.Error)
			p.Remedy = "Give it what it asks for."
		case h.Cloud:
			p.Cause, p.Mend = "cloud-helper-dead", ""
			p.Remedy = "Install it again: nothing can stand in for it. Or remove the entries by hand, if the registries are not used any more."
		case n == cove:
			p.Mend = ""
			p.Remedy = "Make docker find it: `cove credentials use`."
		}
		out = append(out, p)
	}
	return out
}

// Mend mends what can be, and says in the problems what came of it.
func (s Setup) Mend(ctx context.Context, problems []Problem) {
	done := map[Mend]error{}
	// In this order: what keeps the file from being used, what makes docker find a helper, what is kept in it.
	for _, m := range []Mend{dropMark, closeFile, link, useCove, dropDead, movePlain} {
		if !slices.ContainsFunc(problems, func(p Problem) bool { return p.Mend == m }) {
			continue
		}
		done[m] = s.do(ctx, m)
	}
	for i := range problems {
		p := &problems[i]
		if p.Mend == "" {
			continue
		}
		if err := done[p.Mend]; err != nil {
			p.Error = err.Error()
		} else {
			p.Mended = true
		}
	}
}

func (s Setup) do(ctx context.Context, m Mend) error {
	switch m {
	case dropMark:
		return s.Docker.Change(func(c *dockerconfig.Config) error { c.DropMark(); return nil })
	case closeFile:
		_, err := s.Docker.CloseToOthers()
		return err
	case link:
		l, err := s.reachable()
		if err != nil {
			return err
		}
		return l.make()
	case useCove:
		p, err := s.Plan(ctx, "")
		if err != nil {
			return err
		}
		return s.Use(ctx, p)
	}
	c, err := s.Docker.Read()
	if err != nil {
		return err
	}
	all, err := helpers(c)
	if err != nil {
		return err
	}
	if m == dropDead {
		gone := dead(ctx, all)
		return s.Docker.Change(func(c *dockerconfig.Config) error {
			entries, err := drop(c, gone)
			if err != nil {
				return err
			}
			return s.remember(s.recall().without(entries))
		})
	}
	return s.move(ctx, c, all)
}

// move puts the logins of docker's settings into the store that it uses.
func (s Setup) move(ctx context.Context, c *dockerconfig.Config, all []assigned) error {
	store, err := c.Get(storeKey)
	if err != nil || store == "" {
		return err
	}
	path, err := lookPath(programOf(store))
	if err != nil {
		return fmt.Errorf("%s is not in PATH", programOf(store))
	}
	auths, err := plain(c)
	if err != nil {
		return err
	}
	var move []Auth
	var left []error
	for _, a := range auths {
		why := a.Wrong
		if why == "" {
			why = keep(ctx, a, all, nil, store, path)
		}
		if why != "" {
			left = append(left, fmt.Errorf("the login at %s stays: %s", a.Server, why))
			continue
		}
		move = append(move, a)
	}
	err = s.apply(ctx, path, move, func(*dockerconfig.Config) error { return nil })
	return errors.Join(append(left, err)...)
}
