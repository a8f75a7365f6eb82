// Package shares says which folders of the host containers may mount, and why a path may not be. Both the
// VM's start and the docker.sock front ask it, so that they have one answer.
package shares

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/covedesk/cove/app/internal/settings"
)

// Folder is one shared folder.
type Folder struct {
	Path     string   // absolute, clean, and without links
	Names    []string // other paths that lead there, as the user gave them
	ReadOnly bool
}

// Set is what is shared in one start of the VM.
type Set struct {
	Folders []Folder // a folder comes before those that lie in it
	hidden  []string
}

// Resolve finds the folders that the settings name. hidden are Cove's own places, which nobody mounts. What
// cannot be shared now is left out, with a sentence for each.
func Resolve(wanted []settings.Share, hidden []string) (*Set, []string) {
	s := &Set{}
	for _, path := range hidden {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		s.hidden = append(s.hidden, path)
	}
	var notices []string
	for _, w := range wanted {
		f, err := s.resolve(w)
		if err != nil {
			notices = append(notices, fmt.Sprintf("%s is not shared: %v. Containers cannot mount it; `cove config set shares …` changes the list.", w.Path, err))
			continue
		}
		s.add(f)
	}
	slices.SortFunc(s.Folders, func(a, b Folder) int { return cmp.Compare(a.Path, b.Path) })
	s.Folders = slices.DeleteFunc(s.Folders, func(f Folder) bool {
		// Its parent gives the same already.
		return slices.ContainsFunc(s.Folders, func(o Folder) bool {
			return o.Path != f.Path && settings.Within(f.Path, o.Path) && o.ReadOnly == f.ReadOnly && len(f.Names) == 0
		})
	})
	return s, notices
}

func (s *Set) resolve(w settings.Share) (Folder, error) {
	real, err := filepath.EvalSymlinks(w.Path)
	if err != nil {
		return Folder{}, reason(err)
	}
	st, err := os.Stat(real)
	if err != nil {
		return Folder{}, reason(err)
	}
	f := Folder{Path: real, ReadOnly: w.ReadOnly}
	if real != w.Path {
		f.Names = []string{w.Path}
	}
	switch own := settings.GuestPlace(real); {
	case !st.IsDir():
		return Folder{}, errors.New("it is not a folder")
	case strings.ContainsAny(real, ":,\n\r"):
		return Folder{}, fmt.Errorf("it leads to %q, which no mount can name", real)
	case own != "":
		return Folder{}, fmt.Errorf("it leads to %s, and %s in the VM is the VM's own", real, own)
	case s.isHidden(real):
		return Folder{}, errors.New("it is Cove's own")
	}
	return f, nil
}

// add joins what leads to the same folder. Read-only wins.
func (s *Set) add(f Folder) {
	if i := slices.IndexFunc(s.Folders, func(o Folder) bool { return o.Path == f.Path }); i >= 0 {
		s.Folders[i].Names = append(s.Folders[i].Names, f.Names...)
		s.Folders[i].ReadOnly = s.Folders[i].ReadOnly || f.ReadOnly
		return
	}
	s.Folders = append(s.Folders, f)
}

// Still is the set for a machine that was made with other folders and is brought back: it has none that it did
// not have, and of those it had the ones that the set shares now, alone or in a larger folder.
func (s *Set) Still(had []Folder) *Set {
	still := &Set{hidden: s.hidden}
	for _, f := range had {
		for _, now := range slices.Backward(s.Folders) { // the nearest first
			if !settings.Within(f.Path, now.Path) {
				continue
			}
			f.ReadOnly = f.ReadOnly || now.ReadOnly
			still.Folders = append(still.Folders, f)
			break
		}
	}
	return still
}

// Hidden are Cove's own places.
func (s *Set) Hidden() []string { return s.hidden }

func (s *Set) isHidden(path string) bool {
	return slices.ContainsFunc(s.hidden, func(h string) bool { return settings.Within(path, h) })
}

// within says whether a path lies in a shared folder, by any of its names.
func (s *Set) within(path string) bool {
	return slices.ContainsFunc(s.Folders, func(f Folder) bool {
		return settings.Within(path, f.Path) || slices.ContainsFunc(f.Names, func(n string) bool { return settings.Within(path, n) })
	})
}

// Mount says whether a container may mount a path of the host: nil, or a sentence with what to do. What the
// guest would find at the path is to be what the host has there, so links are followed here first.
func (s *Set) Mount(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("the host's %s is not shared with Cove's VM, because it is not an absolute path", path)
	}
	path = filepath.Clean(path)
	real, err := filepath.EvalSymlinks(path)
	switch {
	case s.isHidden(path) || err == nil && s.isHidden(real):
		return fmt.Errorf("the host's %s is Cove's own, and no container gets it", path)
	case !s.within(path) && err == nil && real != path && s.within(real):
		return fmt.Errorf("the host's %s is not shared with Cove's VM, but what it leads to is: mount %s", path, real)
	case !s.within(path):
		return fmt.Errorf("the host's %s is not shared with Cove's VM. Shared are %s. %s", path, s, s.remedy(path))
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("the host's %s does not exist. Make it first; an empty folder would not be what you meant. (The setting `shares` shares %s.)", path, s)
	case err != nil:
		return fmt.Errorf("the host's %s cannot be read: %w", path, reason(err))
	case !s.within(real):
		return fmt.Errorf("the host's %s leads to %s, which is not shared with Cove's VM. Shared are %s. %s", path, real, s, s.remedy(real))
	}
	return nil
}

// remedy is the command that would share a path too.
func (s *Set) remedy(path string) string {
	if own := settings.GuestPlace(path); own != "" {
		return fmt.Sprintf("It cannot be shared, because %s in the VM is the VM's own: copy what you need to a shared folder, or use a volume.", own)
	}
	words := []string{}
	for _, f := range s.Folders {
		words = append(words, settings.Share{Path: f.Path, ReadOnly: f.ReadOnly}.String())
	}
	return fmt.Sprintf("To share it: `cove config set shares %s`, then `cove restart`.", strings.Join(append(words, path), ","))
}

// String lists what is shared, for people.
func (s *Set) String() string {
	if len(s.Folders) == 0 {
		return "no folders"
	}
	var words []string
	for _, f := range s.Folders {
		name := f.Path
		if f.ReadOnly {
			name += " (read-only)"
		}
		words = append(words, name)
	}
	return strings.Join(words, ", ")
}

// reason is an error without the path in it: the sentence names it.
func reason(err error) error {
	var p *os.PathError
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("it does not exist")
	case errors.As(err, &p):
		return p.Err
	}
	return err
}
