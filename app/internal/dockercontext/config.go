package dockercontext

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/moby/sys/atomicwriter"
	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"
)

// configLock is for those who read config.json and replace it: two of ours at once would lose a change.
var configLock sync.Mutex

const currentKey = "currentContext" // docker CLI, cli/config/configfile/file.go

// readConfig is config.json as it is. None, or an empty one, is an empty object, as for the CLI.
func readConfig(dir string) ([]byte, error) {
	path := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []byte("{}"), nil
	case err != nil:
		return nil, fmt.Errorf("read docker's settings: %w", err)
	case len(bytes.TrimSpace(b)) == 0:
		return []byte("{}"), nil
	case !json.Valid(b) || !gjson.ParseBytes(b).IsObject():
		return nil, fmt.Errorf("docker's settings %s are not a JSON object; they were left alone", path)
	}
	return b, nil
}

// currentContext is the name of the current context; empty is the default one.
func currentContext(dir string) (string, error) {
	config, err := readConfig(dir)
	if err != nil {
		return "", err
	}
	return gjson.GetBytes(config, currentKey).String(), nil
}

// setCurrent changes the one key; an empty name removes it. The file is read again right before it is
// replaced, whole: the CLI writes it too and there is no lock.
func setCurrent(dir, name string) error {
	configLock.Lock()
	defer configLock.Unlock()
	config, err := readConfig(dir)
	if err != nil {
		return err
	}
	// sjson drops what follows the object.
	object := bytes.TrimRight(config, " \t\r\n")
	tail := config[len(object):]
	var out []byte
	if name == "" {
		out, err = sjson.DeleteBytes(object, currentKey)
	} else {
		out, err = sjson.SetBytes(object, currentKey, name)
	}
	if err != nil {
		return err
	}
	return replace(dir, append(bytes.Clone(out), tail...))
}

// replace writes config.json with the mode it has; where people keep it elsewhere and link to it, there.
func replace(dir string, config []byte) error {
	path, err := target(filepath.Join(dir, "config.json"))
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o600)
	if st, err := os.Stat(path); err == nil {
		mode = st.Mode().Perm()
	} else if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicwriter.WriteFile(path, config, mode)
}

// target is where a path leads, also if there is nothing yet.
func target(path string) (string, error) {
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
	return next, nil
}
