package credentials

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Link is a link to our helper in a folder of the user's that is in PATH.
type Link struct{ At, To string }

// PathError says that docker would not find our helper, and what to do.
type PathError struct{ Program, Why, Remedy string }

func (e *PathError) Error() string { return e.Why + " " + e.Remedy }

// reachable gives the link that makes docker find our helper; none if it does already.
func (s Setup) reachable() (Link, error) {
	if _, err := lookPath(programOf(cove)); err == nil {
		return Link{}, nil
	}
	own := s.own()
	if own == "" {
		return Link{}, errNoHelper
	}
	return s.linkAs(programOf(cove), own)
}

// linkAs is a link of the name given to our helper, where it does not replace anything.
func (s Setup) linkAs(name, own string) (Link, error) {
	dirs := s.binFolders()
	for _, dir := range dirs {
		l := Link{At: filepath.Join(dir, name+suffix()), To: own}
		if _, err := os.Lstat(l.At); err == nil && !s.isOurs(l.At) {
			return Link{}, fmt.Errorf("%s is there, and not Cove's; remove it if nothing needs it, then try again", l.At)
		}
		return l, nil
	}
	remedy := fmt.Sprintf("Add %s to PATH where your shell sets it, open a new terminal, then try again.", filepath.Dir(own))
	if s.Home != "" && runtime.GOOS != "windows" {
		remedy = fmt.Sprintf("Add %s to PATH where your shell sets it (such as in ~/.profile), log in again, then try again.", filepath.Join(s.Home, ".local", "bin"))
	}
	return Link{}, &PathError{name, name + " is in no folder of PATH, where docker looks for it.", remedy}
}

// binFolders are those folders of PATH that the user keeps programs in. On Windows links need a privilege,
// and there is no such folder.
func (s Setup) binFolders() []string {
	if s.Home == "" || runtime.GOOS == "windows" {
		return nil
	}
	var out []string
	in := filepath.SplitList(os.Getenv("PATH"))
	for _, dir := range []string{filepath.Join(s.Home, ".local", "bin"), filepath.Join(s.Home, "bin")} {
		if slices.ContainsFunc(in, func(p string) bool { return filepath.Clean(p) == dir }) {
			out = append(out, dir)
		}
	}
	return out
}

// isOurs says whether a path is a link to a docker-credential-cove, there or gone.
func (s Setup) isOurs(path string) bool {
	to, err := os.Readlink(path)
	return err == nil && strings.TrimSuffix(filepath.Base(to), ".exe") == programOf(cove)
}

func (l Link) make() error {
	if l == (Link{}) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(l.At), 0o755); err != nil {
		return fmt.Errorf("link Cove's helper into PATH: %w", err)
	}
	if err := os.Remove(l.At); err != nil && !errors.Is(err, fs.ErrNotExist) { // an older one of ours
		return fmt.Errorf("link Cove's helper into PATH: %w", err)
	}
	if err := os.Symlink(l.To, l.At); err != nil {
		return fmt.Errorf("link Cove's helper into PATH: %w", err)
	}
	return nil
}

// desktop is the helper that another product leaves in docker's settings when it goes.
const desktop = "desktop"

// InstallShim makes docker-credential-desktop a link to our helper, for settings that cannot be changed. One
// that is there already is not replaced.
func (s Setup) InstallShim() (Link, error) {
	name := programOf(desktop)
	if path, err := lookPath(name); err == nil {
		if s.isOurs(path) {
			return Link{At: path}, nil
		}
		return Link{}, fmt.Errorf("there is a %s already, %s, and it is not Cove's; it was left alone", name, path)
	}
	own := s.own()
	if own == "" {
		return Link{}, errNoHelper
	}
	l, err := s.linkAs(name, own)
	if err != nil {
		return l, err
	}
	return l, l.make()
}

// RemoveShim removes that link, and says where it was; empty if there is none of ours.
func (s Setup) RemoveShim() (string, error) {
	for _, dir := range s.binFolders() {
		if path := filepath.Join(dir, programOf(desktop)); s.isOurs(path) {
			return path, os.Remove(path)
		}
	}
	return "", nil
}

// removeLink removes the link by which docker finds our helper, if Use made one.
func (s Setup) removeLink() error {
	for _, dir := range s.binFolders() {
		if path := filepath.Join(dir, programOf(cove)); s.isOurs(path) {
			return os.Remove(path)
		}
	}
	return nil
}
