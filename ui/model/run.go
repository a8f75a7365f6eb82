package model

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"
	"github.com/google/shlex"
)

// Run is what a container is to be run with, as people write it: lists are a line each.
type Run struct {
	Image, Name string
	Ports       string // HOST:CONTAINER, as docker run -p takes them
	Env         string // NAME=VALUE
	Volumes     string // SOURCE:TARGET[:ro]
	Command     string // as a shell splits it
	Restart     string // "no", "on-failure", "unless-stopped", "always"
	Network     string // empty: the default one
	Remove      bool   // when it ends
}

// Restarts are the policies there are.
var Restarts = []string{"no", "on-failure", "unless-stopped", "always"}

// containerName is what the engine takes for one (moby's daemon/names).
var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

func entries(text string) []string {
	var out []string
	for _, l := range strings.FieldsFunc(text, func(r rune) bool { return r == '\n' }) {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
	}
	return out
}

// CommandLine is the same on the command line, whether or not it is complete.
func (r Run) CommandLine() string {
	words := []string{"docker", "run", "--detach"}
	if r.Name != "" {
		words = append(words, "--name", r.Name)
	}
	for _, p := range entries(r.Ports) {
		words = append(words, "--publish", p)
	}
	for _, e := range entries(r.Env) {
		words = append(words, "--env", e)
	}
	for _, v := range entries(r.Volumes) {
		words = append(words, "--volume", v)
	}
	if r.Restart != "" && r.Restart != "no" {
		words = append(words, "--restart", r.Restart)
	}
	if r.Network != "" {
		words = append(words, "--network", r.Network)
	}
	if r.Remove {
		words = append(words, "--rm")
	}
	image := strings.TrimSpace(r.Image)
	if image == "" {
		image = "IMAGE"
	}
	words = append(words, image)
	if args, err := shlex.Split(r.Command); err == nil {
		words = append(words, args...)
	}
	return Quote(words...)
}

// build checks it and makes the engine's form of it. An error names the field and what is wrong with it.
func (r Run) build() (*container.Config, *container.HostConfig, error) {
	ref, err := Ref(r.Image)
	if err != nil {
		return nil, nil, err
	}
	if r.Name != "" && !containerName.MatchString(r.Name) {
		return nil, nil, fmt.Errorf("the name %q cannot be used: two or more letters, digits, dots, dashes and underscores, the first a letter or digit", r.Name)
	}
	exposed, bound, err := nat.ParsePortSpecs(entries(r.Ports))
	if err != nil {
		return nil, nil, fmt.Errorf("ports: %w", err)
	}
	args, err := shlex.Split(r.Command)
	if err != nil {
		return nil, nil, fmt.Errorf("command: %w", err)
	}
	for _, e := range entries(r.Env) {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return nil, nil, fmt.Errorf("environment: %q is not NAME=VALUE", e)
		}
	}
	for _, v := range entries(r.Volumes) {
		if !strings.Contains(v, ":/") {
			return nil, nil, fmt.Errorf("volumes: %q is not SOURCE:TARGET, with an absolute path for a target", v)
		}
	}
	if r.Remove && r.Restart != "" && r.Restart != "no" {
		return nil, nil, errors.New("a container that is removed when it ends cannot be restarted: choose one")
	}
	host := &container.HostConfig{Binds: entries(r.Volumes), PortBindings: bound, AutoRemove: r.Remove, NetworkMode: container.NetworkMode(r.Network),
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(r.Restart)}}
	return &container.Config{Image: ref, Env: entries(r.Env), Cmd: args, ExposedPorts: exposed}, host, nil
}

// Check says what is wrong with it, for people; nil when it can be tried.
func (r Run) Check() error {
	_, _, err := r.build()
	return err
}

// Launch makes a container and starts it, and calls done with its ID or with a sentence of what went wrong. An image
// that is not there is pulled first; pulling is then called with its pull.
func (s *Store) Launch(r Run, pulling func(*Pull), done func(id, problem string)) {
	s.background(func(ctx context.Context) {
		id, err := s.run(ctx, r, pulling)
		signal(s.relist)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			done(id, sentence(err))
		default:
			done(id, "")
		}
	})
}

func (s *Store) run(ctx context.Context, r Run, pulling func(*Pull)) (string, error) {
	config, host, err := r.build()
	if err != nil {
		return "", err
	}
	created, err := s.docker.ContainerCreate(ctx, config, host, nil, nil, r.Name)
	if client.IsErrNotFound(err) && strings.Contains(err.Error(), "image") {
		p := s.Pull(config.Image)
		pulling(p)
		if !s.await(ctx, func() bool { return !p.Ended.IsZero() }) {
			return "", ctx.Err()
		}
		if seen := s.Seen(p); seen.Error != "" {
			return "", errors.New(seen.Error)
		}
		created, err = s.docker.ContainerCreate(ctx, config, host, nil, nil, r.Name)
	}
	if err != nil {
		return "", err
	}
	if err := s.docker.ContainerStart(ctx, created.ID, container.StartOptions{}); err != nil {
		return created.ID, err
	}
	return created.ID, nil
}
