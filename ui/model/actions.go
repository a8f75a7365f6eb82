package model

import (
	"context"
	"sync"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
)

// Verb is what can be done to a container.
type Verb string

// The verbs.
const (
	Start   Verb = "start"
	Stop    Verb = "stop"
	Restart Verb = "restart"
	Pause   Verb = "pause"
	Unpause Verb = "unpause"
	Remove  Verb = "rm"
)

// Doing is the word while it is being done.
func (v Verb) Doing() string {
	switch v {
	case Start:
		return "Starting"
	case Stop:
		return "Stopping"
	case Restart:
		return "Restarting"
	case Pause:
		return "Pausing"
	case Unpause:
		return "Resuming"
	case Remove:
		return "Removing"
	}
	return ""
}

// Fits says whether it can be done in a state.
func (v Verb) Fits(state string) bool {
	switch v {
	case Start:
		return state == "exited" || state == "created" || state == "dead"
	case Stop:
		return state == "running" || state == "paused" || state == "restarting"
	case Restart:
		return state != "removing" && state != "dead"
	case Pause:
		return state == "running"
	case Unpause:
		return state == "paused"
	}
	return state != "removing"
}

// Command is the same on the command line.
func (v Verb) Command(names ...string) string {
	words := []string{"docker", string(v)}
	if v == Remove {
		words = append(words, "--force")
	}
	return Quote(append(words, names...)...)
}

// atOnce is how many containers are acted on at a time: the engine does them one after the other inside anyway.
const atOnce = 4

// Do does it to each of them that it fits. Rows show it at once; what goes wrong stays on the row.
func (s *Store) Do(v Verb, ids ...string) {
	s.mu.Lock()
	var todo []string
	for _, id := range ids {
		if c := s.containers[id]; c != nil && c.Pending == "" && v.Fits(c.State) {
			c.Pending, c.Problem = v, ""
			todo = append(todo, id)
		}
	}
	if len(todo) > 0 {
		signal(s.urgent)
	}
	s.mu.Unlock()
	s.background(func(ctx context.Context) {
		slots := make(chan struct{}, atOnce)
		var all sync.WaitGroup
		for _, id := range todo {
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				s.done(ctx, id, s.do(ctx, v, id))
			})
		}
		all.Wait()
	})
}

func (s *Store) do(ctx context.Context, v Verb, id string) error {
	switch v {
	case Start:
		return s.docker.ContainerStart(ctx, id, container.StartOptions{})
	case Stop:
		return s.docker.ContainerStop(ctx, id, container.StopOptions{})
	case Restart:
		return s.docker.ContainerRestart(ctx, id, container.StopOptions{})
	case Pause:
		return s.docker.ContainerPause(ctx, id)
	case Unpause:
		return s.docker.ContainerUnpause(ctx, id)
	}
	err := s.docker.ContainerRemove(ctx, id, container.RemoveOptions{Force: true})
	if client.IsErrNotFound(err) {
		return nil // somebody else has removed it
	}
	return err
}

// done ends what was asked for. The row keeps saying so until a list that was read afterwards is there, so that it
// does not show the former state in between.
func (s *Store) done(ctx context.Context, id string, err error) {
	s.mu.Lock()
	if c := s.containers[id]; c != nil && err != nil {
		if ctx.Err() == nil {
			c.Problem = sentence(err)
		}
		c.Pending = ""
		s.stirLocked()
	}
	seen := s.listed
	s.mu.Unlock()
	if err == nil {
		signal(s.relist)
		s.await(ctx, func() bool { return s.listed > seen || !s.serving })
		s.mu.Lock()
		if c := s.containers[id]; c != nil {
			c.Pending = ""
			s.stirLocked()
		}
		s.mu.Unlock()
	}
}

// Forgive takes a problem off its row.
func (s *Store) Forgive(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[id]; c != nil {
		c.Problem = ""
		signal(s.urgent)
	}
}

// Inspect is what the engine knows of a container, as JSON. It is a passive call.
func (s *Store) Inspect(ctx context.Context, id string) ([]byte, error) {
	_, b, err := s.docker.ContainerInspectWithRaw(ctx, id, false)
	return b, err
}
