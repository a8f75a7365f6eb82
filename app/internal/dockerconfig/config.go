// Package dockerconfig reads and changes config.json, the settings of the docker CLI. The file is the user's:
// a change touches the keys that it names and no other byte, replaces the file whole or not at all, and keeps
// a copy of what it replaced. What is not a JSON object, or cannot be read, is never written.
package dockerconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/atomicwriter"
)

// maxSize is far more than docker ever writes; beyond it the file is something else.
const maxSize = 64 << 20

// maxLinks is how many symbolic links in a row are followed, as Linux does.
const maxLinks = 40

var (
	// ErrNotFile says that something else stands in config.json's place.
	ErrNotFile = errors.New("it is not a file")
	// ErrTooLarge says that it is larger than docker's settings can be.
	ErrTooLarge = fmt.Errorf("it is larger than %d MiB", maxSize>>20)
)

// Docker is the docker CLI's folder.
type Docker struct {
	Dir     string // holds config.json
	Backups string // a folder of ours, for copies of what was replaced
}

// Find is the folder that the docker CLI uses: DOCKER_CONFIG, or ~/.docker.
func Find(backups string) (Docker, error) {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return Docker{dir, backups}, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return Docker{}, fmt.Errorf("find docker's folder: %w", err)
	}
	return Docker{filepath.Join(home, ".docker"), backups}, nil
}

// Path is where docker looks for its settings; it may be a link.
func (d Docker) Path() string { return filepath.Join(d.Dir, "config.json") }

// Read gives the settings as they are. No file, or an empty one, is an empty object, as for docker.
func (d Docker) Read() (*Config, error) {
	b, err := d.bytes()
	if err != nil {
		return nil, err
	}
	return parse(d.Path(), b)
}

func (d Docker) bytes() ([]byte, error) {
	wrong := func(err error) error { return fmt.Errorf("read docker's settings, %s: %w", d.Path(), err) }
	st, err := os.Stat(d.Path()) // before it is opened: a pipe would keep us
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, wrong(err)
	case !st.Mode().IsRegular():
		return nil, wrong(ErrNotFile)
	case st.Size() > maxSize:
		return nil, wrong(ErrTooLarge)
	}
	b, err := os.ReadFile(d.Path())
	if err != nil {
		return nil, wrong(err)
	}
	return b, nil
}

// Change lets edit change the settings, and writes them if it changed anything. Other processes of ours wait
// meanwhile. Docker itself takes no lock: the file is read again right before it is replaced, and where it is
// not what was edited, edit is called again with what is there now. It must do no more than edit.
func (d Docker) Change(edit func(*Config) error) error {
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return fmt.Errorf("make docker's folder: %w", err)
	}
	unlock, err := lock(d.Dir)
	if err != nil {
		return fmt.Errorf("change docker's settings: %w", err)
	}
	defer unlock()
	for {
		before, err := d.bytes()
		if err != nil {
			return err
		}
		c, err := parse(d.Path(), before)
		if err != nil {
			return err
		}
		unchanged := c.Pack()
		if err := edit(c); err != nil {
			return err
		}
		after := c.Pack()
		if bytes.Equal(after, unchanged) {
			return nil
		}
		if err := d.backup(before); err != nil {
			return fmt.Errorf("keep a copy of docker's settings, which were left alone: %w", err)
		}
		if now, err := d.bytes(); err != nil {
			return err
		} else if !bytes.Equal(now, before) {
			continue
		}
		if err := d.replace(after); err != nil {
			return fmt.Errorf("write docker's settings, which stay as they were: %w", err)
		}
		return nil
	}
}

// replace writes config.json with the mode and owner it has; where people keep it elsewhere and link to it, there.
func (d Docker) replace(config []byte) error {
	path, err := target(d.Path())
	if err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		return atomicwriter.WriteFile(path, config, 0o600)
	}
	if err := atomicwriter.WriteFile(path, config, st.Mode().Perm()); err != nil {
		return err
	}
	return keepOwner(path, st)
}

// target is where a path leads, also if there is nothing yet.
func target(path string) (string, error) {
	for range maxLinks {
		end, err := filepath.EvalSymlinks(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return end, err
		}
		next, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link: it is the file that is to be made
		}
		if !filepath.IsAbs(next) {
			dir, err := filepath.EvalSymlinks(filepath.Dir(path))
			if err != nil {
				return "", err
			}
			next = filepath.Join(dir, next)
		}
		path = next
	}
	return "", fmt.Errorf("%s: too many links", path)
}

// CloseToOthers takes the right to read and write config.json from other users. It says whether they had it.
func (d Docker) CloseToOthers() (bool, error) {
	open, err := d.OpenToOthers()
	if err != nil || !open {
		return false, err
	}
	st, err := os.Stat(d.Path())
	if err != nil {
		return false, err
	}
	return true, os.Chmod(d.Path(), st.Mode().Perm()&^0o077)
}

// backups are kept this many: enough for the two that a day of starting and quitting alternates between,
// and those before.
const keptBackups = 5

// backup keeps a copy of the settings that are about to be replaced, without their secrets: a second copy of
// a password would outlive the one that the user removes. What is among the copies is not copied again.
func (d Docker) backup(config []byte) error {
	if d.Backups == "" || len(bytes.TrimSpace(config)) == 0 {
		return nil
	}
	c, err := parse(d.Path(), config)
	if err != nil {
		return err
	}
	c.blank()
	without := c.Pack()
	if err := os.MkdirAll(d.Backups, 0o700); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(d.Backups, "config-*.json"))
	if err != nil {
		return err
	}
	slices.Sort(old) // their names are times
	for i, path := range old {
		if b, err := os.ReadFile(path); err == nil && bytes.Equal(b, without) {
			if err := os.Remove(path); err != nil {
				return err
			}
			old = slices.Delete(old, i, i+1)
			break
		}
	}
	path := filepath.Join(d.Backups, "config-"+now().UTC().Format("20060102T150405.000000")+".json")
	if err := atomicwriter.WriteFile(path, without, 0o600); err != nil {
		return err
	}
	for len(old) >= keptBackups {
		if err := os.Remove(old[0]); err != nil {
			return err
		}
		old = old[1:]
	}
	return nil
}
