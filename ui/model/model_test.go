package model

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/client"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const patience = 30 * time.Second

// engine plays the engine: what it has, what it says, and which calls were made.
type engine struct {
	mu     sync.Mutex
	has    []container.Summary
	images []image.Summary
	events chan events.Message
	calls  map[string]int
	refuse error         // of acts
	hold   chan struct{} // acts wait for it
	log    string
	stream string
}

func newEngine(has ...container.Summary) *engine {
	return &engine{has: has, events: make(chan events.Message, 16), calls: map[string]int{}, hold: closed()}
}

func closed() chan struct{} { c := make(chan struct{}); close(c); return c }

func (e *engine) called(what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls[what]++
}

func (e *engine) count(what string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.calls[what]
}

func (e *engine) set(id, state, status string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.has {
		if e.has[i].ID == id {
			e.has[i].State, e.has[i].Status = container.ContainerState(state), status
		}
	}
}

func (e *engine) act(what string) error {
	e.called(what)
	e.mu.Lock()
	hold, err := e.hold, e.refuse
	e.mu.Unlock()
	<-hold
	return err
}

func (e *engine) Events(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) {
	e.called("events")
	return e.events, make(chan error)
}
func (e *engine) DiskUsage(context.Context, types.DiskUsageOptions) (types.DiskUsage, error) {
	return types.DiskUsage{Images: []*image.Summary{{Size: 10, SharedSize: 4}, {Size: 7, SharedSize: -1}, {Size: 100, Containers: 1}}}, nil
}
func (e *engine) ContainerList(context.Context, container.ListOptions) ([]container.Summary, error) {
	e.called("list")
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.has), nil
}
func (e *engine) ContainerInspectWithRaw(context.Context, string, bool) (container.InspectResponse, []byte, error) {
	return container.InspectResponse{Config: &container.Config{Tty: true}}, []byte("{}"), nil
}
func (e *engine) ContainerStats(ctx context.Context, id string, stream bool) (container.StatsResponseReader, error) {
	e.called("stats")
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	go fmt.Fprintf(w, "%s\n", e.stream)
	return container.StatsResponseReader{Body: r}, nil
}
func (e *engine) ContainerLogs(ctx context.Context, _ string, o container.LogsOptions) (io.ReadCloser, error) {
	e.called("logs since " + o.Since)
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	go io.WriteString(w, e.log)
	return r, nil
}
func (e *engine) ContainerCreate(_ context.Context, c *container.Config, _ *container.HostConfig, _ *network.NetworkingConfig, _ *ocispec.Platform, _ string) (container.CreateResponse, error) {
	return container.CreateResponse{ID: "new"}, e.act("create " + c.Image)
}
func (e *engine) ContainerStart(_ context.Context, id string, _ container.StartOptions) error {
	return e.act("start " + id)
}
func (e *engine) ContainerStop(_ context.Context, id string, _ container.StopOptions) error {
	err := e.act("stop " + id)
	if err == nil {
		e.set(id, "exited", "Exited (0) Less than a second ago")
	}
	return err
}
func (e *engine) ContainerRestart(_ context.Context, id string, _ container.StopOptions) error {
	return e.act("restart " + id)
}
func (e *engine) ContainerPause(_ context.Context, id string) error { return e.act("pause " + id) }
func (e *engine) ContainerUnpause(_ context.Context, id string) error {
	return e.act("unpause " + id)
}
func (e *engine) ContainerRemove(_ context.Context, id string, _ container.RemoveOptions) error {
	return e.act("remove " + id)
}
func (e *engine) ImageList(context.Context, image.ListOptions) ([]image.Summary, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.images), nil
}
func (e *engine) ImagePull(context.Context, string, image.PullOptions) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(e.stream)), nil
}
func (e *engine) ImageRemove(context.Context, string, image.RemoveOptions) ([]image.DeleteResponse, error) {
	return nil, e.act("rmi")
}
func (e *engine) ImagesPrune(context.Context, filters.Args) (image.PruneReport, error) {
	return image.PruneReport{}, nil
}

// daemon plays coved: it says the phases that the test sends.
type daemon struct {
	says   chan api.Status
	absent chan struct{}
}

func (d *daemon) Ensure(context.Context) error { return nil }
func (d *daemon) Start(context.Context) error  { d.says <- api.Status{Phase: api.Running}; return nil }
func (d *daemon) Stop(context.Context) error   { d.says <- api.Status{Phase: api.Stopped}; return nil }
func (d *daemon) Events(ctx context.Context, f func(api.Event)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.absent:
			return client.ErrNoDaemon
		case s := <-d.says:
			f(api.Event{Type: "status", Status: &s})
		}
	}
}

// open runs a store on them until the test ends.
func open(t *testing.T, e *engine) (*Store, *daemon) {
	t.Helper()
	d := &daemon{says: make(chan api.Status, 4), absent: make(chan struct{})}
	s := New(d, e, func() {})
	s.calm = time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return s, d
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

func summary(id, name, state, status string) container.Summary {
	return container.Summary{ID: id, Names: []string{"/" + name}, Image: "busybox", State: container.ContainerState(state), Status: status}
}

func TestLists(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	mk := func(name, project, state string, cpu float64, age time.Duration) *Container {
		return &Container{ID: name, Name: name, Project: project, State: state, Image: "img-" + name, Since: now.Add(-age), Stats: &Stats{CPU: cpu}}
	}
	all := []*Container{
		mk("shop-web", "shop", "running", 5, time.Hour), mk("shop-db", "shop", "exited", 1, time.Minute),
		mk("alone", "", "running", 9, time.Second), mk("blog-web", "blog", "paused", 2, 3*time.Hour), mk("Zed", "", "created", 0, 9*time.Hour)}
	for _, c := range []struct {
		what string
		q    Query
		want string
	}{
		{"projects and lone containers by name, regardless of case", Query{}, "alone [blog 1/1] blog-web [shop 1/2] shop-db shop-web Zed"},
		{"the other way round, members too", Query{Sort: ByName, Reverse: true}, "Zed [shop 1/2] shop-web shop-db [blog 1/1] blog-web alone"},
		{"the busiest first: a project counts by its busiest", Query{Sort: ByCPU, Reverse: true}, "alone [shop 1/2] shop-web shop-db [blog 1/1] blog-web Zed"},
		{"only those that run; a paused one does, and its project counts the others", Query{Filter: Running}, "alone [blog 1/1] blog-web [shop 1/2] shop-web"},
		{"only those that do not", Query{Filter: Stopped}, "[shop 1/2] shop-db Zed"},
		{"every word has to be there", Query{Text: "SHOP web"}, "[shop 1/2] shop-web"},
		{"nothing matches", Query{Text: "nix"}, ""},
		{"a folded project shows its heading", Query{Collapsed: map[string]bool{"shop": true}}, "alone [blog 1/1] blog-web [shop 1/2] Zed"},
	} {
		var got []string
		for _, l := range List(all, c.q).Lines {
			if l.Group != nil {
				got = append(got, fmt.Sprintf("[%s %d/%d]", l.Group.Project, l.Group.Running, l.Group.Total))
			} else {
				got = append(got, l.Container.Name)
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: List(%+v) = %s; want %s", c.what, c.q, s, c.want)
		}
	}
	if l := List(all, Query{Text: "web"}); l.Total != 5 || l.Active != 3 || l.Number != 2 || l.Projects != 2 {
		t.Errorf("List counts %+v; want 5 in all, 3 of them active, 2 that match, 2 projects", l)
	}
}

func TestSince(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for _, c := range []struct {
		status string
		want   time.Duration
		ok     bool
	}{
		{"Up 3 hours", 3 * time.Hour, true}, {"Up About a minute (healthy)", time.Minute, true}, {"Up Less than a second", 0, true},
		{"Exited (137) 2 weeks ago", 14 * 24 * time.Hour, true}, {"Up 5 minutes (Paused)", 5 * time.Minute, true}, {"Created", 0, false}, {"Up 12 parsecs", 0, false},
	} {
		if got, _, ok := age(c.status); got != c.want || ok != c.ok {
			t.Errorf("age(%q) = %v, %v; want %v, %v", c.status, got, ok, c.want, c.ok)
		}
	}
	exact := now.Add(-2*time.Hour - 40*time.Minute)
	before := &Container{State: "running", Since: exact}
	if c := containerOf(summary("a", "a", "running", "Up 3 hours"), before, now); !c.Since.Equal(exact) {
		t.Errorf("since %v; want what was known exactly, %v, which fits the words", c.Since, exact)
	}
	if c := containerOf(summary("a", "a", "running", "Up 2 seconds"), before, now); c.Since.Equal(exact) {
		t.Error("a container that was started again keeps the time of before")
	}
}

func TestPorts(t *testing.T) {
	s := summary("a", "a", "running", "Up 1 second")
	s.Ports = []container.Port{{PrivatePort: 53, Type: "udp"}, {IP: "0.0.0.0", PrivatePort: 80, PublicPort: 8080, Type: "tcp"}, {IP: "::", PrivatePort: 80, PublicPort: 8080, Type: "tcp"}, {IP: "192.0.2.7", PrivatePort: 443, PublicPort: 9443, Type: "tcp"}}
	c := containerOf(s, nil, time.Now())
	if got := fmt.Sprint(c.Ports); got != "[8080:80 9443:443 53/udp]" {
		t.Errorf("ports %s; want each once, the published first", got)
	}
	for i, want := range []string{"http://localhost:8080", "https://192.0.2.7:9443", "<nil>"} {
		if got := c.Ports[i].URL(); fmt.Sprint(got) != want {
			t.Errorf("URL of %v = %v; want %s", c.Ports[i], got, want)
		}
	}
}

func TestCommands(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Stop.Command("web", "a b"), "docker stop web 'a b'"},
		{Remove.Command("x"), "docker rm --force x"},
		{PullCommand("alpine:3"), "docker pull alpine:3"},
		{RemoveImageCommand("a", "it's"), `docker rmi a 'it'\''s'`},
		{Run{}.CommandLine(), "docker run --detach IMAGE"},
		{Run{Image: "nginx", Name: "w", Ports: "8080:80\n\n53:53/udp ", Env: "A=b c", Volumes: "/src:/dst:ro", Command: `sh -c "echo hi"`, Restart: "always", Network: "back"}.CommandLine(),
			`docker run --detach --name w --publish 8080:80 --publish 53:53/udp --env 'A=b c' --volume /src:/dst:ro --restart always --network back nginx sh -c 'echo hi'`},
	} {
		if c.got != c.want {
			t.Errorf("command %s; want %s", c.got, c.want)
		}
	}
}

func TestRunSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		run  Run
		want string
	}{
		{Run{Image: "nginx:alpine", Ports: "8080:80", Env: "A=b", Volumes: "v:/data", Restart: "no"}, ""},
		{Run{Image: ""}, "name of an image"}, {Run{Image: "Nginx"}, "small letters"}, {Run{Image: "a", Name: "-"}, "name"},
		{Run{Image: "a", Ports: "x:80"}, "ports"}, {Run{Image: "a", Env: "A"}, "NAME=VALUE"}, {Run{Image: "a", Volumes: "/x"}, "SOURCE:TARGET"},
		{Run{Image: "a", Command: `"`}, "command"}, {Run{Image: "a", Remove: true, Restart: "always"}, "choose one"},
	} {
		err := c.run.Check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("Check(%+v) = %v; want %q", c.run, err, c.want)
		}
	}
}

func TestLivesHaveOneButton(t *testing.T) {
	for _, c := range []struct {
		s      *api.Status
		err    error
		word   string
		remedy Remedy
	}{
		{nil, nil, "Not running", StartIt}, {nil, errors.New("x"), "Cove does not start", StartIt},
		{&api.Status{Phase: api.Running}, nil, "Engine running", NoRemedy}, {&api.Status{Phase: api.Suspended}, nil, "Engine asleep", WakeIt},
		{&api.Status{Phase: api.Starting, Stage: "booting"}, nil, "Starting", CancelIt}, {&api.Status{Phase: api.Stopped}, nil, "Engine stopped", StartIt},
		{&api.Status{Phase: api.Failed, Failure: &api.Failure{Summary: "No room.", Remedy: "Free some."}}, nil, "Engine failed", StartIt},
		{&api.Status{Phase: "dreaming"}, nil, "dreaming", NoRemedy},
	} {
		if l := LifeOf(c.s, c.err); l.Word != c.word || l.Remedy != c.remedy {
			t.Errorf("LifeOf(%+v, %v) = %q with %q; want %q with %q", c.s, c.err, l.Word, l.Remedy, c.word, c.remedy)
		}
	}
	if l := LifeOf(&api.Status{Phase: api.Failed, Failure: &api.Failure{Summary: "No room.", Remedy: "Free some."}}, nil); l.Text != "No room. Free some." {
		t.Errorf("a failure reads %q; want what happened and what to do", l.Text)
	}
}

func TestTheListFollowsEvents(t *testing.T) {
	e := newEngine(summary("a", "web", "running", "Up 2 hours"))
	s, d := open(t, e)
	d.says <- api.Status{Phase: api.Running}
	eventually(t, "the first list", func() bool { c := s.Container("a"); return c != nil && c.State == "running" })
	e.set("a", "exited", "Exited (1) Less than a second ago")
	e.events <- events.Message{Type: events.ContainerEventType, Action: "exec_create: sh", Actor: events.Actor{ID: "a"}}
	e.events <- events.Message{Type: events.ContainerEventType, Action: events.ActionDie, Actor: events.Actor{ID: "a"}, TimeNano: time.Now().UnixNano()}
	eventually(t, "the container's end", func() bool { return strings.HasPrefix(s.Container("a").Status, "Exited (1)") })
	d.says <- api.Status{Phase: api.Stopped}
	eventually(t, "an empty list when the engine is gone", func() bool { return s.Container("a") == nil })
	if ok, _ := s.Loaded(); ok {
		t.Error("the lists of a stopped engine count as loaded")
	}
}

// A window that somebody left open lets the engine sleep: numbers end with the attention, and a sleeping engine is
// asked for lists only.
func TestNumbersFlowOnlyWhileSomebodyAttends(t *testing.T) {
	e := newEngine(summary("a", "web", "running", "Up 2 hours"))
	e.stream = `{"read":"2026-01-01T00:00:01Z","cpu_stats":{"cpu_usage":{"total_usage":200},"system_cpu_usage":1000,"online_cpus":2},"precpu_stats":{"cpu_usage":{"total_usage":100},"system_cpu_usage":500},"memory_stats":{"usage":100,"limit":1000,"stats":{"inactive_file":30}}}`
	s, d := open(t, e)
	s.Watch([]string{"a"})
	d.says <- api.Status{Phase: api.Running}
	eventually(t, "the list", func() bool { return s.Container("a") != nil })
	if e.count("stats") != 0 {
		t.Fatal("numbers were asked for while nobody attends")
	}
	s.Attend(true)
	eventually(t, "numbers", func() bool { return s.Container("a").Stats != nil })
	if st := s.Container("a").Stats; st.CPU != 40 || st.Memory != 70 {
		t.Errorf("stats %+v; want 40 %% of a processor and 70 bytes", st)
	}
	s.Attend(false)
	eventually(t, "their end", func() bool { return s.Container("a").Stats == nil })
	d.says <- api.Status{Phase: api.Suspended}
	eventually(t, "sleep", func() bool { return s.Life().Phase == api.Suspended })
	before := e.count("stats")
	s.Attend(true)
	time.Sleep(20 * time.Millisecond) // nothing may come; waiting longer can only find more
	if e.count("stats") != before || s.Container("a") == nil {
		t.Error("a sleeping engine was asked for numbers, or its list is gone")
	}
}

func TestAnActIsSeenAtOnceAndItsErrorStays(t *testing.T) {
	e := newEngine(summary("a", "web", "running", "Up 2 hours"), summary("b", "db", "exited", "Exited (0) 2 hours ago"))
	hold := make(chan struct{})
	e.hold = hold
	s, d := open(t, e)
	d.says <- api.Status{Phase: api.Running}
	eventually(t, "the list", func() bool { return s.Container("a") != nil })
	s.Do(Stop, "a", "b")
	if c := s.Container("a"); c.Pending != Stop {
		t.Errorf("after Do(Stop) the row says %q; want it at once", c.Pending)
	}
	if c := s.Container("b"); c.Pending != "" {
		t.Errorf("a container that does not run is %q", c.Pending)
	}
	close(hold)
	eventually(t, "the stop", func() bool { c := s.Container("a"); return c.Pending == "" && c.State == "exited" })
	e.mu.Lock()
	e.refuse = errors.New("Error response from daemon: driver failed: bind: address already in use")
	e.mu.Unlock()
	s.Do(Start, "b")
	eventually(t, "the error on the row", func() bool { c := s.Container("b"); return c.Pending == "" && c.Problem != "" })
	if p := s.Container("b").Problem; !strings.HasPrefix(p, "Driver failed") || !strings.Contains(p, "another one") {
		t.Errorf("the row says %q; want what happened and what to do", p)
	}
	s.Forgive("b")
	if p := s.Container("b").Problem; p != "" {
		t.Errorf("a forgiven row says %q", p)
	}
	if e.count("stop b") != 0 {
		t.Error("a stopped container was stopped")
	}
}

func TestCovedGoesAndComesBack(t *testing.T) {
	e := newEngine(summary("a", "web", "running", "Up 2 hours"))
	s, d := open(t, e)
	d.says <- api.Status{Phase: api.Running}
	eventually(t, "the list", func() bool { return s.Container("a") != nil })
	d.absent <- struct{}{}
	eventually(t, "the word that Cove does not run", func() bool { l := s.Life(); return l.Phase == Absent && l.Remedy == StartIt && l.Tone == Quiet })
	s.Remedy(StartIt)
	eventually(t, "the list again", func() bool { return s.Container("a") != nil })
}

func TestAPullSaysHowFarItIs(t *testing.T) {
	e := newEngine()
	e.stream = `{"status":"Pulling from library/x","id":"latest"}
{"status":"Pulling fs layer","id":"aa"}
{"status":"Downloading","progressDetail":{"current":25,"total":100},"id":"aa"}
{"status":"Already exists","id":"bb"}
`
	s, d := open(t, e)
	d.says <- api.Status{Phase: api.Running}
	eventually(t, "the engine", func() bool { ok, _ := s.Loaded(); return ok })
	p := s.Pull("x:latest")
	eventually(t, "its end", func() bool { return s.Seen(p).Done })
	seen := s.Seen(p)
	if got, all := seen.Fetched(); got != 25 || all != 100 || len(seen.Layers) != 2 || !seen.Layers[1].Done {
		t.Errorf("pull %+v; want 25 of 100 bytes in two layers, the second there already", seen)
	}
	seen.Done = false
	if share := seen.Share(); share < 0.6 || share > 0.62 {
		t.Errorf("share %v; want a quarter of the first layer's nine tenths and all of the second", share)
	}
	e.stream = `{"error":"no such manifest"}`
	p = s.Pull("y:latest")
	eventually(t, "its failure", func() bool { return s.Seen(p).Error != "" })
	if got := s.Seen(p).Error; got != "No such manifest" {
		t.Errorf("a failed pull says %q", got)
	}
	if u, err := s.Prunable(context.Background()); err != nil || u.Images != 2 || u.Bytes != 13 {
		t.Errorf("Prunable() = %+v, %v; want 2 images, 13 bytes", u, err)
	}
}

func TestLogsFollowAndPause(t *testing.T) {
	e := newEngine(summary("a", "web", "running", "Up 2 hours"))
	e.log = "2026-01-01T00:00:01.5Z one\r\n2026-01-01T00:00:02Z \x1b[31mtwo\x1b[0m\n2026-01-01T00:00:03Z no end"
	s, d := open(t, e)
	s.Attend(true)
	d.says <- api.Status{Phase: api.Running}
	l := NewLog(func() {})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Follow(ctx, "a", l); close(done) }()
	defer func() { cancel(); <-done }()
	eventually(t, "two lines", func() bool { n, _, _ := l.Size(); return n == 2 })
	got := l.Lines(0, 9)
	if got[0].Text != "one" || Clean(got[1].Text) != "two" || got[0].Stamp() != "2026-01-01T00:00:01.500Z" {
		t.Errorf("lines %+v", got)
	}
	s.Attend(false)
	eventually(t, "the pause", func() bool { return l.Waits() == WaitsAway })
	eventually(t, "the rest of the line", func() bool { n, _, _ := l.Size(); return n == 3 })
	s.Attend(true)
	eventually(t, "it to go on where it was", func() bool { return e.count("logs since 2026-01-01T00:00:03.000000001Z") == 1 })
	d.says <- api.Status{Phase: api.Suspended}
	eventually(t, "the word that the engine sleeps", func() bool { return l.Waits() == WaitsAsleep })
}

func TestALogKeepsItsEndOnly(t *testing.T) {
	l := NewLog(func() {})
	for i := range maxLines + 5000 {
		l.Add(Entry{Text: fmt.Sprintf("line %d.", i)})
	}
	n, dropped, _ := l.Size()
	if first := l.Lines(0, 1)[0].Text; n != maxLines || dropped != 5000 || first != "line 5000." {
		t.Errorf("%d lines, %d dropped, the first %q; want %d, 5000, line 5000", n, dropped, first, maxLines)
	}
	if hits := l.Find("LINE 5001."); len(hits) != 1 || hits[0] != 1 {
		t.Errorf("Find = %v; want the second line", hits)
	}
	l = NewLog(func() {})
	for range 10 {
		l.Add(Entry{Text: strings.Repeat("é", 10<<20)})
	}
	if e := l.Lines(9, 1)[0].Text; len(e) > maxLine+64 || !strings.Contains(e, "more") {
		t.Errorf("a line of 20 MB is kept with %d bytes", len(e))
	}
}

// A program prints what it likes: none of it may steer what shows it.
func TestHostileLines(t *testing.T) {
	for _, c := range []struct{ what, line, want string }{
		{"colours", "a\x1b[1;31mb\x1b[0mc", "abc"}, {"a title", "a\x1b]0;evil\x07b", "ab"}, {"a link", "\x1b]8;;http://x\x1b\\text\x1b]8;;\x1b\\", "text"},
		{"a cleared screen", "\x1b[2J\x1b[Hx", "x"}, {"a direction", "a\u202eb\u2066c", "abc"}, {"a NUL", "a\x00b", "ab"}, {"C1 codes", "a\u009b31mb", "a31mb"},
		{"bad bytes show", "a\xffb", "a\ufffdb"}, {"tabs", "a\tb", "a       b"}, {"a bar over itself", "10%\r20%", "20%"}, {"a sequence without an end", "x\x1b[31", "x"},
		{"a string without an end", "x\x1b]0;abc", "x"}, {"a lone escape", "x\x1b", "x"},
	} {
		if got := Clean(c.line); got != c.want {
			t.Errorf("%s: Clean(%q) = %q; want %q", c.what, c.line, got, c.want)
		}
	}
	s := Parse("\x1b[38;5;208ma\x1b[38;2;1;2;3mb\x1b[39;97;41mc\x1b[7md")
	if len(s) != 4 || s[0].Fore.Index != 209 || s[1].Fore != (Colour{True: true, R: 1, G: 2, B: 3}) || s[2].Fore.Index != 16 || s[2].Back.Index != 2 || !s[3].Flip {
		t.Errorf("Parse = %+v", s)
	}
	if got := Plain("a\x1b[31m\nb\u202e\x00"); got != "a[31m b" {
		t.Errorf("Plain = %q", got)
	}
}

func TestSecretsAreMasked(t *testing.T) {
	b := []byte(`{"Config":{"Env":["PATH=/bin","DB_PASSWORD=hunter2","API_TOKEN=t0k"],"Cmd":["PASSWORD=shown, it is no variable"]}}`)
	for _, c := range []struct {
		show bool
		want bool
	}{{false, false}, {true, true}} {
		text := Clean(strings.Join(Inspected(b, c.show), "\n"))
		if got := strings.Contains(text, "hunter2") || strings.Contains(text, "t0k"); got != c.want {
			t.Errorf("Inspected(secrets %v) shows them: %v\n%s", c.show, got, text)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a\x1b[1;38;5;9mb\x1b]0;x\x07\r\t")
	f.Fuzz(func(t *testing.T, line string) {
		if s := Clean(line); strings.ContainsAny(s, "\x1b\x00\n\r") && strings.ContainsAny(s, "\x1b\x00\r") {
			t.Errorf("Clean(%q) = %q", line, s)
		}
	})
}
