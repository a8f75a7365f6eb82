package settings

import (
	"slices"
	"strings"
	"time"
)

// Sleep is when the engine is suspended by itself, and who brings it back.
type Sleep struct {
	After      time.Duration // without use; 0: never
	Containers bool          // also while containers run, if they do nothing
	Network    bool          // clients on the network may wake it, not those of this machine alone
	Memory     bool          // the VM stands still and keeps its memory, and is not saved to the disk
}

// leastSleep is the shortest sleep.after: below, a person between two commands would wait for the engine.
const leastSleep = 10 * time.Second

const mostSleep = 30 * 24 * time.Hour

var sleepKeys = []key{
	{
		name: "sleep.after", kind: "duration", applies: now, description: "The engine is suspended when it was not used for so long: no call but those that only look (lists, inspections, events), no connection to a published port. It comes back with the next one.",
		fallback: func(Host) string { return "5m" },
		allowed:  func(Host) string { return "off, or 10s to 720h, such as 5m or 1h30m" },
		parse: func(_ Host, s string) (string, error) {
			if s == "off" {
				return s, nil
			}
			d, err := time.ParseDuration(s)
			if err != nil || d < leastSleep || d > mostSleep {
				return "", errRange
			}
			return duration(d), nil
		},
		take: func(v *Values, s string) {
			if s != "off" {
				v.Sleep.After, _ = time.ParseDuration(s)
			}
		},
	},
	{
		name: "sleep.containers", kind: "choice", applies: now, description: "What running containers mean for sleep.after. awake: the engine stays awake while one runs. idle: it is suspended when they use next to no processor time and no network; they stand still meanwhile, timers too.",
		fallback: func(Host) string { return sleepContainers[0] },
		allowed:  func(Host) string { return strings.Join(sleepContainers, ", ") },
		parse:    oneOf(sleepContainers),
		take:     func(v *Values, s string) { v.Sleep.Containers = s == "idle" },
	},
	{
		name: "sleep.wake-from", kind: "choice", applies: now, description: "Whose connections to published ports wake the engine: those of this machine, or those of the network too.",
		fallback: func(Host) string { return sleepWakeFrom[0] },
		allowed:  func(Host) string { return strings.Join(sleepWakeFrom, ", ") },
		parse:    oneOf(sleepWakeFrom),
		take:     func(v *Values, s string) { v.Sleep.Network = s == "network" },
	},
	{
		name: "sleep.to", kind: "choice", applies: now, description: "Where the VM is while the engine sleeps. disk: it is saved there and needs no memory; where it cannot be saved it is paused. memory: it is paused, stays in memory, and is back at once.",
		fallback: func(Host) string { return sleepTo[0] },
		allowed:  func(Host) string { return strings.Join(sleepTo, ", ") },
		parse:    oneOf(sleepTo),
		take:     func(v *Values, s string) { v.Sleep.Memory = s == "memory" },
	},
}

var (
	sleepContainers = []string{"awake", "idle"}
	sleepWakeFrom   = []string{"this-machine", "network"}
	sleepTo         = []string{"disk", "memory"}
)

func oneOf(words []string) func(Host, string) (string, error) {
	return func(_ Host, s string) (string, error) {
		if !slices.Contains(words, s) {
			return "", errRange
		}
		return s, nil
	}
}

// duration is one without the units that are zero: 5m, not 5m0s.
func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
