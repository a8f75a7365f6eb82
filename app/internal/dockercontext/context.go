// Package dockercontext makes the docker CLI's context that leads to our socket. It becomes the current
// one only if the current one does not answer, and what was current comes back when Cove quits.
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
	"slices"
	"strings"
	"time"

	"github.com/covedesk/cove/app/internal/dockerconfig"
	"github.com/docker/docker/client"
	"github.com/moby/sys/atomicwriter"
	"github.com/tidwall/gjson"
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

// Install makes the context, or brings it up to date. It becomes current if the one that is current does
// not answer the probe; one that the probe cannot speak to (ssh, TLS) is not ours to judge and stays. What
// was current before is kept in the file at memoPath for Restore. A context of that name that leads to
// something else alive is ErrTaken; a config.json that cannot be read as docker's is an error, and stays
// as it is.
func Install(ctx context.Context, docker dockerconfig.Docker, name, host, memoPath string, probe func(ctx context.Context, host string) bool) (State, error) {
	dir := docker.Dir
	other, err := hostOf(dir, name)
	if err == nil && other != host && answers(ctx, dir, name, probe) {
		return State{}, fmt.Errorf("%q: %w", name, ErrTaken)
	}
	if other != host {
		if err := writeMeta(dir, name, host); err != nil {
			return State{}, fmt.Errorf("make the docker context: %w", err)
		}
	}
	current, err := currentContext(docker)
	if err != nil {
		return State{Made: true}, err
	}
	if current == name {
		return State{Made: true, Current: true}, nil
	}
	if answers(ctx, dir, current, probe) {
		return State{Made: true, Previous: current}, nil
	}
	// The probe took a while, and people log in and choose contexts meanwhile.
	if now, err := currentContext(docker); err != nil || now != current {
		return State{Made: true, Current: now == name, Previous: now}, err
	}
	b, err := json.Marshal(memo{Previous: current})
	if err == nil {
		err = atomicwriter.WriteFile(memoPath, b, 0o600)
	}
	if err == nil {
		err = setCurrent(docker, name)
	}
	if err != nil {
		return State{Made: true}, fmt.Errorf("make the docker context current: %w", err)
	}
	return State{Made: true, Current: true, Previous: current}, nil
}

// answers says whether a context leads to an engine, as far as the probe can tell.
func answers(ctx context.Context, dir, name string, probe func(ctx context.Context, host string) bool) bool {
	host, err := hostOf(dir, name)
	if err != nil || host == "" {
		return false
	}
	scheme, _, _ := strings.Cut(host, "://")
	if !slices.Contains([]string{"unix", "npipe", "tcp", "http"}, scheme) {
		return true
	}
	if _, err := os.Stat(tlsPath(dir, name)); err == nil {
		return true
	}
	return probe(ctx, host)
}

// Restore makes the context current that was so before ours, unless the user chose another one since,
// and removes ours if it leads to the host given. A context that was removed meanwhile gives way to the
// default one.
func Restore(docker dockerconfig.Docker, name, host, memoPath string) error {
	dir := docker.Dir
	leads, err := hostOf(dir, name)
	switch _, memo := os.Stat(memoPath); {
	case err == nil && leads != host:
		return nil // somebody else's
	case errors.Is(err, fs.ErrNotExist) && memo != nil:
		return nil // there is nothing of ours
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("restore the docker context: %w", err)
	}
	current, err := currentContext(docker)
	if err != nil {
		return err
	}
	if current == name {
		var m memo
		if b, err := os.ReadFile(memoPath); err == nil {
			json.Unmarshal(b, &m) // unreadable: the default it is
		}
		if _, err := hostOf(dir, m.Previous); err != nil {
			m.Previous = "" // it was removed meanwhile
		}
		if err := setCurrent(docker, m.Previous); err != nil {
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

const currentKey = "currentContext" // docker CLI, cli/config/configfile/file.go

// currentContext is the name of the current context; empty is the default one.
func currentContext(docker dockerconfig.Docker) (string, error) {
	config, err := docker.Read()
	if err != nil {
		return "", err
	}
	return config.Get(currentKey)
}

// setCurrent changes the one key; an empty name removes it.
func setCurrent(docker dockerconfig.Docker, name string) error {
	return docker.Change(func(c *dockerconfig.Config) error {
		if name == "" {
			c.Delete(currentKey)
			return nil
		}
		return c.Set(currentKey, name)
	})
}

// metaPath is where the docker CLI keeps a context: cli/context/store, contexts/meta/SHA-256/meta.json.
func metaPath(dir, name string) string {
	return filepath.Join(dir, "contexts", "meta", id(name), "meta.json")
}

// tlsPath is where it keeps the certificates of a context, if it has any.
func tlsPath(dir, name string) string { return filepath.Join(dir, "contexts", "tls", id(name)) }

func id(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
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
