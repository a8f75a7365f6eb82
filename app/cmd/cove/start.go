package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/client"
	"github.com/spf13/cobra"
)

func startCommand() *cobra.Command {
	return &cobra.Command{
		Use: "start", Short: "Start the engine and wait until it serves", Args: exactly(0),
		Long: "Start coved if it does not run, boot the VM, and wait until the engine serves docker.sock. A suspended\nengine is brought back with its containers. If it runs already, nothing happens. Ctrl-C cancels the start.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd.Context(), true)
			if err != nil {
				return err
			}
			return start(cmd.Context(), c)
		},
	}
}

// cancelPatience bounds the stop of a start that was cancelled.
const cancelPatience = 2 * time.Minute

// start brings the engine up and shows the stages.
func start(ctx context.Context, c *client.Client) error {
	begun := time.Now()
	before, err := c.Status(ctx)
	if err != nil {
		return err
	}
	watch, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	show := newStages(begun)
	wg.Go(func() {
		c.Events(watch, func(e api.Event) {
			if e.Status != nil && (e.Status.Phase == api.Starting || e.Status.Phase == api.Resuming) && e.Status.Stage != "" {
				show.stage(e.Status.Stage)
			}
		})
	})
	err = c.Start(ctx)
	end()
	wg.Wait()
	show.done()
	if ctx.Err() != nil {
		if before.Phase != api.Running {
			fmt.Fprintln(os.Stderr, "Cancelling the start …")
			stopping, cancel := context.WithTimeout(context.Background(), cancelPatience)
			defer cancel()
			c.Stop(stopping)
		}
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if before.Phase == api.Running {
		fmt.Println("The engine runs already.")
		return nil
	}
	fmt.Printf("%s after %.1f s", colour(os.Stdout, green, "The engine runs"), time.Since(begun).Seconds())
	if s.Engine != nil && s.Machine != nil {
		fmt.Printf(" (%s on %s)", s.Engine.Version, s.Machine.Accelerator)
	}
	fmt.Println(".")
	if s.Context != "" {
		fmt.Printf("Use it with: docker --context %s, or DOCKER_HOST=%s\n", s.Context, c.Home().DockerHost())
	} else {
		fmt.Printf("Use it with: DOCKER_HOST=%s\n", c.Home().DockerHost())
	}
	return nil
}

// stages shows what a start is doing: one line that changes on a terminal, one line a stage elsewhere.
type stages struct {
	begun time.Time
	live  bool

	mu   sync.Mutex
	now  string
	stop chan struct{}
	wg   sync.WaitGroup
}

func newStages(begun time.Time) *stages {
	s := &stages{begun: begun, live: isTerminal(os.Stderr), stop: make(chan struct{})}
	if s.live {
		s.wg.Go(s.tick)
	}
	return s
}

func (s *stages) stage(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == s.now {
		return
	}
	s.now = name
	if s.live {
		s.drawLocked()
	} else {
		fmt.Fprintf(os.Stderr, "%5.1f s  %s\n", time.Since(s.begun).Seconds(), name)
	}
}

func (s *stages) drawLocked() {
	if s.now != "" {
		fmt.Fprintf(os.Stderr, "\r\x1b[K%s %s", colour(os.Stderr, faint, fmt.Sprintf("%5.1f s", time.Since(s.begun).Seconds())), s.now)
	}
}

func (s *stages) tick() {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			fmt.Fprint(os.Stderr, "\r\x1b[K")
			return
		case <-t.C:
			s.mu.Lock()
			s.drawLocked()
			s.mu.Unlock()
		}
	}
}

func (s *stages) done() {
	close(s.stop)
	s.wg.Wait()
}
