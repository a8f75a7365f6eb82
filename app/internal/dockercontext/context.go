// Package dockercontext makes the docker CLI's context that leads to our socket. It becomes the current
// one only if the current one does not answer, and what was current comes back when Cove quits. Of the
// user's config.json only that one key is touched; every other byte stays.
package dockercontext

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/docker/docker/client"
	"github.com/moby/sys/atomicwriter"
	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"
)

// State is what Install came to.
type State struct {
	Made     bool   // the context is there
	Current  bool   // and it is the current one
	Previous string // what was current before; empty is the default
}

// ErrTaken says that there is a context of our name that leads somewhere else, to something alive.
var ErrTaken = errors.New("there is another context of this name")

// memo is what Restore needs to know.
type memo struct {
	Previous string `json:"previous"` // the context that was current; empty is the default
}

// Folder is the docker CLI's: DOCKER_CONFIG, or ~/.docker.
func Folder() (string, error) {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find docker's folder: %w", err)
	}
	return filepath.Join(home, ".docker"), nil
}

// probePatience bounds the question whether a context answers.
const probePatience = 2 * time.Second

// Probe asks the engine behind a host for a sign of life.
func Probe(ctx context.Context, host string) bool {
	c, err := client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation())
	if err != nil {
		return false
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	_, err = c.Ping(ctx)
	return err == nil
}

// Install makes the context, or brings it up to date. What was current before is kept in the file at
// memoPath for Restore.
func Install(ctx context.Context, dir, name, host, memoPath string, probe func(ctx context.Context, host string) bool) (State, error) {
	other, err := hostOf(dir, name)
	if err == nil && other != "" && other != host && probe(ctx, other) {
		return State{}, fmt.Errorf("%q: %w", name, ErrTaken)
	}
	if other != host {
		if err := writeMeta(dir, name, host); err != nil {
			return State{}, fmt.Errorf("make the docker context: %w", err)
		}
	}
	config, err := readConfig(dir)
	if err != nil {
		return State{Made: true}, err
	}
	current := gjson.GetBytes(config, "currentContext").String()
	if current == name {
		return State{Made: true, Current: true}, nil
	}
	existing, err := hostOf(dir, current)
	if err == nil && probe(ctx, existing) {
		return State{Made: true, Previous: current}, nil
	}
	b, err := json.Marshal(memo{Previous: current})
	if err == nil {
		err = atomicwriter.WriteFile(memoPath, b, 0o600)
	}
	if err == nil {
		err = setCurrent(dir, config, name)
	}
	if err != nil {
		return State{Made: true}, fmt.Errorf("make the docker context current: %w", err)
	}
	return State{Made: true, Current: true, Previous: current}, nil
}

// Restore makes the context current that was so before ours, unless the user chose another one since,
// and removes ours if it leads to the host given.
func Restore(dir, name, host, memoPath string) error {
	if leads, err := hostOf(dir, name); err != nil || leads != host {
		return nil // none, or somebody else's
	}
	config, err := readConfig(dir)
	if err != nil {
		return err
	}
	if gjson.GetBytes(config, "currentContext").String() == name {
		var m memo
		if b, err := os.ReadFile(memoPath); err == nil {
			json.Unmarshal(b, &m) // unreadable: the default it is
		}
		if _, err := hostOf(dir, m.Previous); err != nil {
			m.Previous = "" // it was removed meanwhile
		}
		if err := setCurrent(dir, config, m.Previous); err != nil {
			return fmt.Errorf("restore the docker context: %w", err)
		}
	}
	if err := os.RemoveAll(filepath.Dir(metaPath(dir, name))); err != nil {
		return fmt.Errorf("remove the docker context: %w", err)
	}
	if err := os.Remove(memoPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the docker context: %w", err)
	}
	return nil
}

// metaPath is where the docker CLI keeps a context: cli/context/store, contexts/meta/SHA-256/meta.json.
func metaPath(dir, name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(dir, "contexts", "meta", hex.EncodeToString(sum[:]), "meta.json")
}

// meta is the part of a context's file that we write.
type meta struct {
	Name      string
	Metadata  struct{ Description string }
	Endpoints map[string]endpoint
}

type endpoint struct {
	Host          string
	SkipTLSVerify bool
}

func writeMeta(dir, name, host string) error {
	m := meta{Name: name, Endpoints: map[string]endpoint{"docker": {Host: host}}}
	m.Metadata.Description = "Cove"
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	path := metaPath(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return atomicwriter.WriteFile(path, b, 0o644)
}

// hostOf is where a context leads. The empty one and "default" are the CLI's own default.
func hostOf(dir, name string) (string, error) {
	if name == "" || name == "default" {
		if runtime.GOOS == "windows" {
			return "npipe:////./pipe/docker_engine", nil
		}
		return "unix:///var/run/docker.sock", nil
	}
	b, err := os.ReadFile(metaPath(dir, name))
	if err != nil {
		return "", err
	}
	return gjson.GetBytes(b, "Endpoints.docker.Host").String(), nil
}

// readConfig is config.json as it is; none is an empty object.
func readConfig(dir string) ([]byte, error) {
	path := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []byte("{}"), nil
	case err != nil:
		return nil, fmt.Errorf("read docker's settings: %w", err)
	case !json.Valid(b):
		return nil, fmt.Errorf("docker's settings %s are not JSON; they were left alone", path)
	}
	return b, nil
}

// setCurrent changes the one key; an empty name removes it.
func setCurrent(dir string, config []byte, name string) error {
	var err error
	if name == "" {
		config, err = sjson.DeleteBytes(config, "currentContext")
	} else {
		config, err = sjson.SetBytes(config, "currentContext", name)
	}
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "config.json")
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // people keep their settings elsewhere
	}
	mode := fs.FileMode(0o600)
	if st, err := os.Stat(path); err == nil {
		mode = st.Mode().Perm()
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return atomicwriter.WriteFile(path, config, mode)
}
