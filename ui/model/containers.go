package model

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
)

// The labels of compose.
const (
	projectLabel = "com.docker.compose.project"
	serviceLabel = "com.docker.compose.service"
)

// Container is one container, as a row shows it.
type Container struct {
	ID, Name, Image, Command string
	ImageID                  string
	Project, Service         string    // of compose, where it has them
	State                    string    // the engine's word: running, exited, paused, created, restarting, removing, dead
	Status                   string    // the engine's sentence, such as "Exited (1) 2 hours ago"
	Health                   string    // "healthy", "unhealthy", "starting", or nothing
	Since                    time.Time // in this state; of created ones, since they were made. As exact as the engine says
	Ports                    []Port
	Mounts                   int

	Stats   *Stats // nil while nobody looks or it does not run
	Pending Verb   // what was asked for and is not done
	Problem string // what the last action came to, until the next one
}

// Short is the short form of its ID.
func (c *Container) Short() string { return short(c.ID) }

// Running says that it has processes, paused ones too.
func (c *Container) Running() bool {
	return c.State == "running" || c.State == "paused" || c.State == "restarting"
}

// Tone is what its state means.
func (c *Container) Tone() Tone {
	switch {
	case c.State == "running" && c.Health == "unhealthy", c.State == "dead":
		return Bad
	case c.State == "running":
		return Good
	case c.State == "paused":
		return Warning
	case c.State == "restarting", c.State == "removing":
		return Busy
	}
	return Quiet
}

// Label is how people call it within its group.
func (c *Container) Label() string {
	if c.Project != "" {
		return strings.TrimPrefix(c.Name, c.Project+"-")
	}
	return c.Name
}

// Port is a port of a container.
type Port struct {
	IP       string // that is bound on the host; empty where it is not published
	Public   uint16
	Private  uint16
	Protocol string
}

func (p Port) String() string {
	text := strconv.Itoa(int(p.Private))
	if p.Public != 0 {
		text = strconv.Itoa(int(p.Public)) + ":" + text
	}
	if p.Protocol != "tcp" {
		text += "/" + p.Protocol
	}
	return text
}

// URL is where a browser finds it; nil for what no browser can open.
func (p Port) URL() *url.URL {
	if p.Public == 0 || p.Protocol != "tcp" {
		return nil
	}
	host := "localhost"
	if ip, err := netip.ParseAddr(p.IP); err == nil && !ip.IsUnspecified() && !ip.IsLoopback() {
		host = p.IP
	}
	scheme := "http"
	if p.Private == 443 || p.Private == 8443 {
		scheme = "https"
	}
	return &url.URL{Scheme: scheme, Host: net.JoinHostPort(host, strconv.Itoa(int(p.Public)))}
}

// container turns the engine's summary into a row. What it knew before helps to say since when.
func containerOf(s container.Summary, before *Container, now time.Time) *Container {
	c := &Container{ID: s.ID, Image: s.Image, ImageID: s.ImageID, Command: s.Command, State: string(s.State), Status: s.Status,
		Project: s.Labels[projectLabel], Service: s.Labels[serviceLabel], Mounts: len(s.Mounts)}
	if len(s.Names) > 0 {
		c.Name = strings.TrimPrefix(s.Names[0], "/")
	}
	for _, name := range s.Names { // links of others have more slashes
		if n := strings.TrimPrefix(name, "/"); !strings.Contains(n, "/") {
			c.Name = n
		}
	}
	switch {
	case strings.HasSuffix(s.Status, "(healthy)"):
		c.Health = "healthy"
	case strings.HasSuffix(s.Status, "(unhealthy)"):
		c.Health = "unhealthy"
	case strings.HasSuffix(s.Status, "(health: starting)"):
		c.Health = "starting"
	}
	c.Since = time.Unix(s.Created, 0)
	if age, text, ok := age(s.Status); ok {
		c.Since = now.Add(-age)
		// The engine's words get coarser with time; what was known exactly stays, if it fits them.
		if before != nil && before.State == c.State && humanAge(now.Sub(before.Since)) == text {
			c.Since = before.Since
		}
	}
	seen := map[Port]bool{}
	for _, p := range s.Ports {
		port := Port{IP: p.IP, Public: p.PublicPort, Private: p.PrivatePort, Protocol: p.Type}
		key := port
		key.IP = ""
		if !seen[key] {
			seen[key] = true
			c.Ports = append(c.Ports, port)
		}
	}
	slices.SortFunc(c.Ports, func(a, b Port) int {
		return cmp.Or(-cmp.Compare(min(a.Public, 1), min(b.Public, 1)), cmp.Compare(a.Private, b.Private), cmp.Compare(a.Public, b.Public), cmp.Compare(a.Protocol, b.Protocol))
	})
	return c
}

// Filter is which containers are shown.
type Filter string

// The filters.
const (
	All     Filter = "all"
	Running Filter = "running"
	Stopped Filter = "stopped"
)

// Column is what a list can be sorted by.
type Column string

// The columns.
const (
	ByName    Column = "name"
	ByImage   Column = "image"
	ByCPU     Column = "cpu"
	ByMemory  Column = "memory"
	BySince   Column = "since"
	BySize    Column = "size"
	ByCreated Column = "created"
)

// Query is what of the containers is shown, and how.
type Query struct {
	Text      string
	Filter    Filter
	Sort      Column
	Reverse   bool
	Collapsed map[string]bool // projects
}

// Group is a compose project.
type Group struct {
	Project        string
	Running, Total int
	IDs            []string // of those that match
	Collapsed      bool
}

// Line is a line of the list: a group's heading, or a container.
type Line struct {
	Group     *Group
	Container *Container
}

// Listing is what a query came to.
type Listing struct {
	Lines                 []Line
	Total, Active, Number int // containers, of them running, that match
	Projects              int
}

// List answers a query.
func List(all []*Container, q Query) Listing {
	var l Listing
	type unit struct {
		group *Group
		rows  []*Container
	}
	var units []*unit
	projects := map[string]*unit{}
	words := strings.Fields(strings.ToLower(q.Text))
	for _, c := range all {
		l.Total++
		if c.Running() {
			l.Active++
		}
		if q.Filter == Running && !c.Running() || q.Filter == Stopped && c.Running() || !matches(words, c) {
			if u := projects[c.Project]; u != nil {
				u.group.count(c)
			} else if c.Project != "" { // counts what the filter hides, and is shown if something matches
				u := &unit{group: &Group{Project: c.Project}}
				u.group.count(c)
				projects[c.Project] = u
				units = append(units, u)
			}
			continue
		}
		l.Number++
		if c.Project == "" {
			units = append(units, &unit{rows: []*Container{c}})
			continue
		}
		u := projects[c.Project]
		if u == nil {
			u = &unit{group: &Group{Project: c.Project}}
			projects[c.Project] = u
			units = append(units, u)
		}
		u.group.count(c)
		u.rows = append(u.rows, c)
	}
	l.Projects = len(projects)
	units = slices.DeleteFunc(units, func(u *unit) bool { return len(u.rows) == 0 })
	by := func(a, b *Container) int {
		n := compare(a, b, q.Sort)
		if q.Reverse {
			n = -n
		}
		return cmp.Or(n, strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	}
	for _, u := range units {
		slices.SortFunc(u.rows, by)
	}
	slices.SortStableFunc(units, func(a, b *unit) int {
		if q.Sort == ByName || q.Sort == "" {
			n := strings.Compare(strings.ToLower(unitName(a.group, a.rows)), strings.ToLower(unitName(b.group, b.rows)))
			if q.Reverse {
				n = -n
			}
			return n
		}
		return by(a.rows[0], b.rows[0])
	})
	for _, u := range units {
		if u.group != nil {
			u.group.Collapsed = q.Collapsed[u.group.Project]
			for _, c := range u.rows {
				u.group.IDs = append(u.group.IDs, c.ID)
			}
			l.Lines = append(l.Lines, Line{Group: u.group})
			if u.group.Collapsed {
				continue
			}
		}
		for _, c := range u.rows {
			l.Lines = append(l.Lines, Line{Container: c})
		}
	}
	return l
}

func (g *Group) count(c *Container) {
	g.Total++
	if c.Running() {
		g.Running++
	}
}

func unitName(g *Group, rows []*Container) string {
	if g != nil {
		return g.Project
	}
	return rows[0].Name
}

func compare(a, b *Container, by Column) int {
	switch by {
	case ByImage:
		return strings.Compare(a.Image, b.Image)
	case ByCPU:
		return cmp.Compare(a.Stats.cpu(), b.Stats.cpu())
	case ByMemory:
		return cmp.Compare(a.Stats.memory(), b.Stats.memory())
	case BySince:
		return a.Since.Compare(b.Since)
	}
	return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
}

// matches says that every word is somewhere in what people see of it.
func matches(words []string, c *Container) bool {
	if len(words) == 0 {
		return true
	}
	text := strings.ToLower(strings.Join([]string{c.Name, c.Image, c.Project, c.Service, c.Short(), c.State, c.Command, fmt.Sprint(c.Ports)}, "\n"))
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

func short(id string) string {
	_, hex, ok := strings.Cut(id, ":")
	if !ok {
		hex = id
	}
	return hex[:min(12, len(hex))]
}
