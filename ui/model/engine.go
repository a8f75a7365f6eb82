// Package model is what Cove's window shows, without a window: it turns coved's events and the engine's lists and
// events into rows, filters, groups and actions. It knows no toolkit, so its tests need no display.
//
// It asks nothing by the clock. While the engine sleeps it makes passive calls only (docs/api.md), so an open window
// neither wakes it nor keeps it awake; numbers and logs, which count as use, flow only while somebody attends.
package model

import (
	"context"
	"io"

	"github.com/covedesk/cove/app/api"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Daemon is what the model needs of coved.
type Daemon interface {
	Ensure(context.Context) error
	Events(context.Context, func(api.Event)) error
	Start(context.Context) error
	Stop(context.Context) error
}

// Docker is what the model needs of the engine's client.
type Docker interface {
	Events(context.Context, events.ListOptions) (<-chan events.Message, <-chan error)
	DiskUsage(context.Context, types.DiskUsageOptions) (types.DiskUsage, error)

	ContainerList(context.Context, container.ListOptions) ([]container.Summary, error)
	ContainerInspectWithRaw(context.Context, string, bool) (container.InspectResponse, []byte, error)
	ContainerStats(context.Context, string, bool) (container.StatsResponseReader, error)
	ContainerLogs(context.Context, string, container.LogsOptions) (io.ReadCloser, error)
	ContainerCreate(context.Context, *container.Config, *container.HostConfig, *network.NetworkingConfig, *ocispec.Platform, string) (container.CreateResponse, error)
	ContainerStart(context.Context, string, container.StartOptions) error
	ContainerStop(context.Context, string, container.StopOptions) error
	ContainerRestart(context.Context, string, container.StopOptions) error
	ContainerPause(context.Context, string) error
	ContainerUnpause(context.Context, string) error
	ContainerRemove(context.Context, string, container.RemoveOptions) error

	ImageList(context.Context, image.ListOptions) ([]image.Summary, error)
	ImagePull(context.Context, string, image.PullOptions) (io.ReadCloser, error)
	ImageRemove(context.Context, string, image.RemoveOptions) ([]image.DeleteResponse, error)
	ImagesPrune(context.Context, filters.Args) (image.PruneReport, error)
}

var _ Docker = (*client.Client)(nil)

// Absent is the phase of an engine whose coved does not run.
const Absent api.Phase = "absent"

// Tone is what a state means to somebody who glances at it.
type Tone int

// The tones.
const (
	Quiet Tone = iota // ended, stopped, asleep
	Good
	Busy
	Warning
	Bad
)

// Remedy is what the one button of a state does.
type Remedy string

// The remedies.
const (
	NoRemedy Remedy = ""
	StartIt  Remedy = "start"
	WakeIt   Remedy = "wake"
	CancelIt Remedy = "cancel"
)

// Command is the same on the command line.
func (r Remedy) Command() string {
	switch r {
	case StartIt, WakeIt:
		return "cove start"
	case CancelIt:
		return "cove stop"
	}
	return ""
}

// Life is how the engine is, for people.
type Life struct {
	Phase    api.Phase
	Tone     Tone
	Word     string // a few words for the rail
	Title    string // a sentence; empty while it runs
	Text     string // why, and what to do
	Evidence string // what shows a failure
	Remedy   Remedy
}

// Serves says that lists are answered, by the engine or from its snapshot.
func (l Life) Serves() bool {
	switch l.Phase {
	case api.Running, api.Suspending, api.Suspended, api.Resuming:
		return true
	}
	return false
}

// LifeOf says how an engine is. An err is why coved could not be reached or started.
func LifeOf(s *api.Status, err error) Life {
	if s == nil {
		if err != nil {
			return Life{Phase: Absent, Tone: Bad, Word: "Cove does not start", Title: "Cove's daemon could not be started", Text: sentence(err), Remedy: StartIt}
		}
		return Life{Phase: Absent, Tone: Quiet, Word: "Not running", Title: "Cove is not running", Text: "Its containers are stopped and kept. Starting takes some seconds.", Remedy: StartIt}
	}
	l := Life{Phase: s.Phase}
	switch s.Phase {
	case api.Running:
		l.Tone, l.Word = Good, "Engine running"
	case api.Suspending:
		l.Tone, l.Word = Busy, "Falling asleep"
	case api.Suspended:
		l.Tone, l.Word, l.Remedy = Quiet, "Engine asleep", WakeIt
		l.Title = "The engine sleeps"
		l.Text = "Its containers are saved as they were. Whatever uses them wakes it."
	case api.Resuming:
		l.Tone, l.Word, l.Title, l.Text = Busy, "Waking up", "The engine is waking up", s.Stage
	case api.Starting:
		l.Tone, l.Word, l.Title, l.Text, l.Remedy = Busy, "Starting", "The engine is starting", s.Stage, CancelIt
	case api.Stopping:
		l.Tone, l.Word, l.Title, l.Text = Busy, "Stopping", "The engine is stopping", "Containers get time to end."
	case api.Failed:
		l.Tone, l.Word, l.Title, l.Remedy = Bad, "Engine failed", "The engine could not start", StartIt
		if f := s.Failure; f != nil {
			l.Text, l.Evidence = f.Summary, f.Evidence
			if f.Remedy != "" {
				l.Text += " " + f.Remedy
			}
		}
	case api.Stopped:
		l.Tone, l.Word, l.Remedy = Quiet, "Engine stopped", StartIt
		l.Title, l.Text = "The engine is stopped", "Its containers and images are kept. Starting takes some seconds."
	default:
		l.Tone, l.Word = Quiet, string(s.Phase) // a word of a newer coved
	}
	return l
}
