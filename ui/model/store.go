package model

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/client"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
)

const (
	// calm is the time between two notifications of change: what moves faster than twice a second nobody reads.
	calm = 500 * time.Millisecond
	// breath is how long a burst of events is collected before the engine is asked for its list.
	breath = 150 * time.Millisecond
	// again is the time before a coved or an engine that went away is looked for again: one connect to a socket.
	again = time.Second
)

// Store knows what the engine has. Its methods may be called from any goroutine.
type Store struct {
	daemon Daemon
	docker Docker

	now     func() time.Time
	calm    time.Duration
	changed func()

	work   sync.WaitGroup
	touch  chan struct{} // something changed, in its own time
	urgent chan struct{} // something changed that somebody waits for
	relist chan struct{} // the lists are to be read again

	mu         sync.Mutex
	ctx        context.Context // of Run
	life       Life
	serving    bool
	containers map[string]*Container
	images     []Image
	loaded     bool   // the first lists came
	listError  string // why the last ones did not

	attended bool
	watched  map[string]bool
	streams  map[string]context.CancelFunc
	history  map[string][]Stats
	stir     chan struct{} // closed at each change of phase, attendance or list: wakes who waits for one

	pulls    []*Pull
	problems []Notice
	listed   int // how often the lists were read
}

// Notice is something that people should be told once.
type Notice struct {
	Tone        Tone
	Title, Text string
}

// New returns a store. After Run begins, changed is called when there is something new to show, twice a second at
// the most unless somebody waits for it; it must not block and may be called from any goroutine.
func New(daemon Daemon, docker Docker, changed func()) *Store {
	return &Store{daemon: daemon, docker: docker, now: time.Now, calm: calm, changed: changed,
		touch: make(chan struct{}, 1), urgent: make(chan struct{}, 1), relist: make(chan struct{}, 1),
		life:       Life{Phase: Absent, Tone: Busy, Word: "Connecting"},
		containers: map[string]*Container{}, watched: map[string]bool{}, streams: map[string]context.CancelFunc{},
		history: map[string][]Stats{}, stir: make(chan struct{})}
}

// Run starts coved if it does not run, and follows it and its engine until the context ends. The engine itself is
// started by Start only. It waits for whatever the store still does.
func (s *Store) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	s.work.Go(func() { s.notify(ctx) })
	s.work.Go(func() { s.followEngine(ctx) })
	s.followDaemon(ctx)
	cancel()
	s.work.Wait()
}

// notify calls changed, calmly.
func (s *Store) notify(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.urgent:
		case <-s.touch:
		}
		s.changed()
		select {
		case <-ctx.Done():
			return
		case <-s.urgent:
			s.changed()
		case <-time.After(s.calm):
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *Store) touchLocked() { signal(s.touch) }

// stirLocked wakes who waits for a change of phase, attendance or list.
func (s *Store) stirLocked() {
	close(s.stir)
	s.stir = make(chan struct{})
	signal(s.urgent)
}

func (s *Store) followDaemon(ctx context.Context) {
	err := s.daemon.Ensure(ctx)
	for ctx.Err() == nil {
		s.mu.Lock()
		if s.life.Phase != Absent || s.life.Tone == Busy || err != nil {
			s.setLifeLocked(LifeOf(nil, err))
		}
		s.mu.Unlock()
		answered := false
		err = s.daemon.Events(ctx, func(e api.Event) {
			if e.Status != nil {
				answered = true
				s.mu.Lock()
				s.setLifeLocked(LifeOf(e.Status, nil))
				s.mu.Unlock()
			}
		})
		if errors.Is(err, client.ErrNoDaemon) || answered {
			err = nil // it is not there, or went away: that is no failure
		}
		pause(ctx, again)
	}
}

func (s *Store) setLifeLocked(l Life) {
	woke := l.Phase == api.Running && s.life.Phase != api.Running
	s.life = l
	s.serving = l.Serves()
	if !s.serving { // what was known is of an engine that is gone
		s.loaded, s.listError = false, ""
		s.containers, s.images = map[string]*Container{}, nil
	}
	if woke {
		signal(s.relist)
	}
	s.streamLocked()
	s.stirLocked()
}

// Life is how the engine is.
func (s *Store) Life() Life {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.life
}

// Remedy does what the button of a state says.
func (s *Store) Remedy(r Remedy) {
	s.background(func(ctx context.Context) {
		var err error
		switch r {
		case StartIt, WakeIt:
			if err = s.daemon.Ensure(ctx); err == nil {
				err = s.daemon.Start(ctx)
			}
		case CancelIt:
			err = s.daemon.Stop(ctx)
		}
		var e *api.Error
		if errors.As(err, &e) && e.Cause == api.CauseStopped {
			return // somebody cancelled it, and sees that
		}
		if err != nil && ctx.Err() == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.life.Phase == Absent {
				s.setLifeLocked(LifeOf(nil, err))
			} else if s.life.Phase != api.Failed { // which says it already
				s.tellLocked(Notice{Bad, "The engine did not come up", sentence(err)})
			}
		}
	})
}

// background does something that ends with the store.
func (s *Store) background(f func(context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx := s.ctx; ctx != nil && ctx.Err() == nil {
		s.work.Go(func() { f(ctx) })
	}
}

// followEngine keeps the lists as the engine has them, by its events.
func (s *Store) followEngine(ctx context.Context) {
	for ctx.Err() == nil {
		if !s.await(ctx, func() bool { return s.serving }) {
			return
		}
		err := s.engineOnce(ctx)
		s.mu.Lock()
		if s.serving && err != nil && ctx.Err() == nil {
			s.listError = sentence(err)
			s.stirLocked()
		}
		s.mu.Unlock()
		pause(ctx, again)
	}
}

// engineOnce reads the lists and follows the events until they end or the engine no longer serves.
func (s *Store) engineOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	said, failed := s.docker.Events(ctx, events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", string(events.ContainerEventType)), filters.Arg("type", string(events.ImageEventType)))})
	signal(s.relist)
	for {
		s.mu.Lock()
		stir, serving := s.stir, s.serving
		s.mu.Unlock()
		if !serving {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-stir:
		case err := <-failed:
			if ctx.Err() != nil {
				return nil
			}
			return err
		case m := <-said:
			if matters(m) {
				s.apply(m)
				signal(s.relist)
			}
		case <-s.relist:
			if pause(ctx, breath); ctx.Err() != nil {
				return nil
			}
			select { // what came meanwhile is in this list
			case <-s.relist:
			default:
			}
			if err := s.readLists(ctx); err != nil {
				return err
			}
		}
	}
}

// matters says that an event changes a list. Health checks alone would be several a second.
func matters(m events.Message) bool {
	switch m.Action {
	case events.ActionTop, events.ActionAttach, events.ActionDetach, events.ActionResize, events.ActionCopy, events.ActionExport,
		events.ActionArchivePath, events.ActionExtractToDir, events.ActionKill, events.ActionPush, events.ActionSave:
		return false
	}
	return len(m.Action) < 5 || m.Action[:5] != "exec_"
}

// apply is what an event says by itself: since when a container runs, to the second.
func (s *Store) apply(m events.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[m.Actor.ID]
	if c == nil || m.Type != events.ContainerEventType {
		return
	}
	at := time.Unix(0, m.TimeNano)
	switch m.Action {
	case events.ActionStart:
		c.State, c.Status, c.Since = "running", "Up Less than a second", at
	case events.ActionDie:
		c.State, c.Status, c.Since = "exited", "Exited", at
	case events.ActionPause:
		c.State = "paused"
	case events.ActionUnPause:
		c.State = "running"
	case events.ActionDestroy:
		delete(s.containers, c.ID)
	default:
		return
	}
	s.streamLocked()
	s.stirLocked()
}

func (s *Store) readLists(ctx context.Context) error {
	list, err := s.docker.ContainerList(ctx, container.ListOptions{All: true})
	var images []image.Summary
	if err == nil {
		images, err = s.docker.ImageList(ctx, image.ListOptions{})
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.serving {
		return nil
	}
	now := s.now()
	next := make(map[string]*Container, len(list))
	for _, sum := range list {
		before := s.containers[sum.ID]
		c := containerOf(sum, before, now)
		if before != nil {
			c.Pending, c.Problem, c.Stats = before.Pending, before.Problem, before.Stats
		}
		next[c.ID] = c
	}
	s.containers = next
	s.images = imagesOf(images, next)
	s.loaded, s.listError = true, ""
	s.listed++
	s.streamLocked()
	s.stirLocked()
	return nil
}

// Retry reads the lists again.
func (s *Store) Retry() { signal(s.relist) }

// Loaded says whether the lists have come, and why the last ones did not.
func (s *Store) Loaded() (bool, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loaded, s.listError
}

// Containers answers a query. What it returns is the caller's.
func (s *Store) Containers(q Query) Listing {
	s.mu.Lock()
	all := make([]*Container, 0, len(s.containers))
	for _, c := range s.containers {
		copied := *c
		all = append(all, &copied)
	}
	s.mu.Unlock()
	return List(all, q)
}

// Container is one of them; nil when it is gone.
func (s *Store) Container(id string) *Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[id]
	if c == nil {
		return nil
	}
	copied := *c
	return &copied
}

// Images are all of them. What it returns is the caller's.
func (s *Store) Images() []Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.images)
}

// Notices hands over what is to be told, once.
func (s *Store) Notices() []Notice {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.problems
	s.problems = nil
	return n
}

func (s *Store) tellLocked(n Notice) {
	s.problems = append(s.problems, n)
	signal(s.urgent)
}

// await waits until a condition holds, which is asked with the lock held. It says whether it does.
func (s *Store) await(ctx context.Context, ok func() bool) bool {
	for {
		s.mu.Lock()
		good, stir := ok(), s.stir
		s.mu.Unlock()
		if good {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-stir:
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
