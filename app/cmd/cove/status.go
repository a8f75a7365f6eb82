package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/client"
	"github.com/spf13/cobra"
)

func statusCommand() *cobra.Command {
	var asJSON, timeline, memory bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show how the engine is", Args: exactly(0),
		Long: "Show the engine's phase, its VM and its sockets. The exit status is 0 when the engine runs, or is suspended\nand comes back when it is used, and 3 when it does not.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd.Context(), false)
			if err != nil {
				return err
			}
			if memory {
				return memoryStatus(cmd.Context(), c, asJSON)
			}
			s, err := c.Status(cmd.Context())
			if errors.Is(err, client.ErrNoDaemon) {
				s = api.Status{Phase: api.Stopped, Reason: "coved is not running", Sockets: api.Sockets{Docker: c.Home().Docker(), API: c.Home().API()}, Daemon: api.Daemon{Home: string(c.Home())}}
			} else if err != nil {
				return err
			}
			switch {
			case asJSON:
				err = printJSON(os.Stdout, s)
			case timeline:
				printTimeline(s)
			default:
				printStatus(s)
			}
			if err == nil && !there[s.Phase] {
				err = exitError(exitNotRunning)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs: docs/api.md describes it")
	cmd.Flags().BoolVar(&memory, "memory", false, "where the VM's memory is, in the guest and on this machine")
	cmd.Flags().BoolVar(&timeline, "timeline", false, "what took how long in the last start")
	return cmd
}

var phaseColour = map[api.Phase]string{api.Running: green, api.Failed: red, api.Starting: amber, api.Stopping: amber, api.Stopped: bold,
	api.Suspending: amber, api.Suspended: bold, api.Resuming: amber}

// there are the phases in which a call to docker.sock is served.
var there = map[api.Phase]bool{api.Running: true, api.Suspending: true, api.Suspended: true, api.Resuming: true}

func printStatus(s api.Status) {
	line := colour(os.Stdout, phaseColour[s.Phase], string(s.Phase))
	if !s.Since.IsZero() {
		line += " for " + time.Since(s.Since).Round(time.Second).String()
	}
	if s.Stage != "" {
		line += ": " + s.Stage
	} else if s.Reason != "" && s.Phase != api.Failed {
		line += ", " + s.Reason
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	row := func(name, value string) { fmt.Fprintf(w, "%s\t%s\n", name, value) }
	row("engine", line)
	if s.Engine != nil {
		row("version", s.Engine.Version+" (API "+s.Engine.APIVersion+")")
	}
	if m := s.Machine; m != nil {
		row("machine", fmt.Sprintf("%s with %s, %d CPUs, %s memory", m.Driver, m.Accelerator, m.CPUs, size(m.Memory)))
		row("accelerator", m.Accelerator+": "+m.AcceleratorReason)
	}
	if t := s.Transport; t != nil {
		line := t.Link
		for _, a := range t.Tried {
			if a.Error != "" {
				line += "; " + a.Link + " did not work: " + a.Error
			}
		}
		row("transport", line)
	}
	for _, v := range s.Services {
		line := v.State
		if v.Restarts > 0 {
			line += fmt.Sprintf(", started again %d times", v.Restarts)
		}
		if v.Detail != "" {
			line += ": " + printable(v.Detail)
		}
		row(v.Name, line)
	}
	if p := s.Saved; p != nil {
		row("saved", fmt.Sprintf("%s on the host's disk, since %s", size(p.Bytes), p.At.Local().Format("2006-01-02 15:04:05")))
	}
	if p := s.Paused; p != nil {
		row("asleep", fmt.Sprintf("%s, since %s", stays(*p), p.At.Local().Format("2006-01-02 15:04:05")))
	}
	if d := s.Disk; d != nil {
		row("disk", fmt.Sprintf("%s of %s used on the host, %s", size(d.Allocated), size(d.Size), d.Path))
	}
	row("docker.sock", s.Sockets.Docker)
	if s.Context != "" {
		row("context", s.Context)
	}
	if s.Daemon.PID != 0 {
		row("coved", fmt.Sprintf("%s, process %d", s.Daemon.Version, s.Daemon.PID))
	}
	w.Flush()
	for _, n := range s.Notices {
		fmt.Println(colour(os.Stdout, amber, n.Time.Local().Format("15:04:05")), printable(n.Text))
	}
	if f := s.Failure; f != nil {
		fmt.Println(colour(os.Stdout, red, printable(f.Summary)))
		explainMore(os.Stdout, *f)
	}
}

// stays says what a paused VM costs.
func stays(p api.Paused) string {
	if p.Bytes == 0 {
		return "paused: its memory stays"
	}
	return fmt.Sprintf("paused: its memory stays, %s", size(p.Bytes))
}

func printTimeline(s api.Status) {
	if len(s.Timeline) == 0 {
		fmt.Println("Nothing was started yet.")
		return
	}
	steps := slices.Clone(s.Timeline)
	slices.SortStableFunc(steps, func(a, b api.Step) int { return cmp.Compare(a.Start, b.Start) })
	whole := 0.0
	for _, t := range steps {
		whole = max(whole, t.Start+t.Seconds)
	}
	const width = 40
	fmt.Printf("%8s %8s  %-6s%-18s\n", "start", "took", "", "")
	for _, t := range steps {
		from := int(t.Start / whole * width)
		long := max(1, int(t.Seconds/whole*width+0.5))
		bar := strings.Repeat(" ", max(0, min(width-1, from))) + strings.Repeat("=", max(1, min(long, width-from)))
		note := ""
		if t.Error != "" {
			note = "  " + colour(os.Stdout, red, printable(t.Error))
		}
		fmt.Printf("%7.2fs %7.2fs  %-6s%-18s|%-*s|%s\n", t.Start, t.Seconds, t.Where, t.Name, width, bar, note)
	}
	fmt.Printf("%7.2fs in all\n", whole)
}
