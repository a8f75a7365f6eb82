package view

import (
	"context"
	"fmt"
	"image/color"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/test"
	"fyne.io/fyne/v2/theme"
	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/ui/model"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
)

const patience = 30 * time.Second

// engine plays the engine. Calls that it does not have are of no use to these tests.
type engine struct {
	model.Docker
	mu     sync.Mutex
	has    []container.Summary
	images []image.Summary
	log    string
	pull   string
	asked  []string
}

func (e *engine) Events(context.Context, events.ListOptions) (<-chan events.Message, <-chan error) {
	return nil, nil
}
func (e *engine) ContainerList(context.Context, container.ListOptions) ([]container.Summary, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]container.Summary(nil), e.has...), nil
}
func (e *engine) ImageList(context.Context, image.ListOptions) ([]image.Summary, error) {
	return e.images, nil
}
func (e *engine) ContainerInspectWithRaw(context.Context, string, bool) (container.InspectResponse, []byte, error) {
	return container.InspectResponse{Config: &container.Config{Tty: true}}, []byte(`{"Name":"/web","Config":{"Env":["DB_PASSWORD=hunter2"]}}`), nil
}
func (e *engine) ContainerStats(context.Context, string, bool) (container.StatsResponseReader, error) {
	return container.StatsResponseReader{}, io.ErrUnexpectedEOF
}
func (e *engine) ContainerLogs(ctx context.Context, _ string, _ container.LogsOptions) (io.ReadCloser, error) {
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	go io.WriteString(w, e.log)
	return r, nil
}
func (e *engine) ImagePull(ctx context.Context, _ string, _ image.PullOptions) (io.ReadCloser, error) {
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	go io.WriteString(w, e.pull)
	return r, nil
}
func (e *engine) ContainerRemove(_ context.Context, id string, _ container.RemoveOptions) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, "rm "+id)
	return nil
}

// daemon plays coved.
type daemon struct{ says chan api.Status }

func (d daemon) Ensure(context.Context) error { return nil }
func (d daemon) Start(context.Context) error  { d.says <- api.Status{Phase: api.Running}; return nil }
func (d daemon) Stop(context.Context) error   { return nil }
func (d daemon) Events(ctx context.Context, f func(api.Event)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-d.says:
			f(api.Event{Type: "status", Status: &s})
		}
	}
}

// window is one with an engine behind it. What is posted waits for until: all of Fyne stays on the test's goroutine.
type window struct {
	*Window
	t     *testing.T
	store *model.Store
	says  chan api.Status

	mu     sync.Mutex
	posted []func()
}

func open(t *testing.T, e *engine, variant fyne.ThemeVariant, size fyne.Size) *window {
	t.Helper()
	a := test.NewTempApp(t)
	th := &Theme{Variant: &variant}
	a.Settings().SetTheme(th)
	win := test.NewTempWindow(t, nil)
	d := daemon{make(chan api.Status, 4)}
	store := model.New(d, e, func() {})
	w := &window{Window: New(win, th, store), t: t, store: store, says: d.says}
	w.Window.post = func(f func()) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.posted = append(w.posted, f)
	}
	win.Resize(size)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { store.Run(ctx); close(done) }()
	t.Cleanup(func() { w.containers.closeDetail(); cancel(); <-done })
	return w
}

// see waits until a text is in the window.
func (w *window) see(part string) {
	w.t.Helper()
	w.until("the text "+part, func() bool { return strings.Contains(w.text(), part) })
}

func (w *window) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("never came: %s. The window says:\n%s", what, w.text())
		}
		w.mu.Lock()
		todo := w.posted
		w.posted = nil
		w.mu.Unlock()
		for _, f := range todo {
			f()
		}
		w.refresh()
	}
}

// walk goes over what is visible below an object.
func walk(o fyne.CanvasObject, f func(fyne.CanvasObject)) {
	if o == nil || !o.Visible() {
		return
	}
	f(o)
	switch o := o.(type) {
	case *fyne.Container:
		for _, k := range o.Objects {
			walk(k, f)
		}
	case fyne.Widget:
		for _, k := range test.WidgetRenderer(o).Objects() {
			walk(k, f)
		}
	}
}

// text is everything that is written in the window.
func (w *window) text() string {
	var b strings.Builder
	for _, o := range append([]fyne.CanvasObject{w.win.Content()}, w.win.Canvas().Overlays().List()...) {
		walk(o, func(o fyne.CanvasObject) {
			if t, ok := o.(*canvas.Text); ok {
				b.WriteString(t.Text + "\n")
			}
		})
	}
	return b.String()
}

func (w *window) button(label string) *button {
	w.t.Helper()
	o := w.win.Content()
	if over := w.win.Canvas().Overlays().Top(); over != nil { // which nothing below it can be reached past
		o = over
	}
	var found *button
	walk(o, func(o fyne.CanvasObject) {
		if b, ok := o.(*button); ok && b.AccessibilityLabel() == label {
			found = b
		}
	})
	if found == nil {
		w.t.Fatalf("there is no button %q. The window says:\n%s", label, w.text())
	}
	return found
}

// shot leaves a picture for people, where COVE_UI_SHOTS names a folder.
func (w *window) shot(name string) {
	dir := os.Getenv("COVE_UI_SHOTS")
	if dir == "" {
		return
	}
	f, err := os.Create(filepath.Join(dir, name+".png"))
	if err == nil {
		err = png.Encode(f, w.win.Canvas().Capture())
		f.Close()
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func key(name fyne.KeyName) *fyne.KeyEvent { return &fyne.KeyEvent{Name: name} }

func shop() *engine {
	e := &engine{}
	mk := func(id, name, project, img, state, status string, ports ...container.Port) {
		s := container.Summary{ID: strings.Repeat(id, 12), Names: []string{"/" + name}, Image: img, State: container.ContainerState(state), Status: status, Ports: ports, ImageID: "sha256:" + img, Labels: map[string]string{}}
		if project != "" {
			s.Labels["com.docker.compose.project"] = project
		}
		e.has = append(e.has, s)
	}
	tcp := func(from, to uint16) container.Port {
		return container.Port{IP: "127.0.0.1", PublicPort: from, PrivatePort: to, Type: "tcp"}
	}
	mk("4a", "storefront-api-1", "storefront", "ghcr.io/acme/api:1.18.2", "running", "Up 18 hours", tcp(8000, 8080))
	mk("5b", "storefront-web-1", "storefront", "nginx:1.29-alpine", "exited", "Exited (0) 3 days ago")
	mk("6c", "storefront-db-1", "storefront", "postgres:17.6", "running", "Up 2 days (healthy)", tcp(8002, 5432), tcp(8003, 5433), tcp(8004, 5434), tcp(8005, 5435))
	mk("7d", "cache", "", "redis:8.2", "paused", "Up 33 hours (Paused)")
	mk("8e", "a-name-that-is-much-longer-than-any-column-that-there-could-be-for-it-here", "", "registry.example.com/team/with/a/very/long/name/service:2026.11.25", "running", "Up 5 minutes (unhealthy)", tcp(9443, 443))
	mk("9f", "evil\u202e\x1b[31m<b>\x00", "", "busybox", "created", "Created")
	for i, ref := range []string{"ghcr.io/acme/api:1.18.2", "nginx:1.29-alpine", "postgres:17.6", "redis:8.2", "alpine:3"} {
		e.images = append(e.images, image.Summary{ID: "sha256:" + ref, RepoTags: []string{ref}, Size: int64(i+1) * 31_000_000, Created: time.Now().Add(-time.Duration(i*40) * time.Hour).Unix()})
	}
	e.log = "2026-01-01T00:00:01.5Z \x1b[32mINFO\x1b[0m hello\n2026-01-01T00:00:02Z \x1b[1;31mERROR\x1b[0m needle\n"
	return e
}

var variants = map[string]fyne.ThemeVariant{"dark": theme.VariantDark, "light": theme.VariantLight}

func TestContainersPage(t *testing.T) {
	for name, v := range variants {
		w := open(t, shop(), v, fyne.NewSize(1280, 800))
		w.says <- api.Status{Phase: api.Running}
		w.see("storefront")
		for _, part := range []string{"2/3 running", "8000:8080", "redis:8.2", "paused", "unhealthy", "6 containers in 1 project", "Engine running", "a-name-that-is-much"} {
			w.see(part)
		}
		if text := w.text(); strings.ContainsAny(text, "\u202e\x1b\x00") || !strings.Contains(text, "evil[31m<b>") {
			t.Error("a hostile name is not shown literally")
		}
		w.shot("containers-" + name)
		w.win.Resize(fyne.NewSize(900, 700))
		w.refresh()
		w.shot("containers-900-" + name)
	}
}

func TestTips(t *testing.T) {
	w := open(t, shop(), theme.VariantDark, fyne.NewSize(1280, 800))
	w.says <- api.Status{Phase: api.Running}
	w.see("cache")
	test.MoveMouse(w.win.Canvas(), fyne.NewPos(1204, 169))
	w.see(wordRestart)
	w.shot("tip")
	test.MoveMouse(w.win.Canvas(), fyne.NewPos(700, 700))
	w.until("the tip's end", func() bool { return !strings.Contains(w.text(), wordRestart) })
}

func TestSearchAndFilter(t *testing.T) {
	w := open(t, shop(), theme.VariantDark, fyne.NewSize(1280, 800))
	w.says <- api.Status{Phase: api.Running}
	w.see("storefront")
	w.containers.find()
	test.Type(w.containers.search, "redis")
	w.until("only the cache", func() bool { s := w.text(); return strings.Contains(s, "cache") && !strings.Contains(s, "storefront") })
	test.Type(w.containers.search, "nix")
	w.see(wordNothingMatches)
	w.shot("nothing-matches")
	w.containers.search.TypedKey(key(fyne.KeyEscape))
	w.see("storefront")
	w.containers.filter.choose(2)
	w.until("those that do not run", func() bool {
		s := w.text()
		return strings.Contains(s, "web-1") && !strings.Contains(s, "api-1")
	})
}

// Everything can be done by keyboard, and nothing is lost by one key too many.
func TestRemoveByKeyboard(t *testing.T) {
	e := shop()
	w := open(t, e, theme.VariantDark, fyne.NewSize(1280, 800))
	w.says <- api.Status{Phase: api.Running}
	w.see("cache")
	w.focus(w.containers.table.body)
	for w.containers.table.lines[w.containers.table.cursor].cells[0].text != "cache" {
		w.containers.table.body.TypedKey(key(fyne.KeyDown))
		if w.containers.table.cursor == len(w.containers.table.lines)-1 {
			t.Fatal("the cursor does not get to the cache")
		}
	}
	w.containers.table.body.TypedKey(key(fyne.KeyDelete))
	w.see("Remove “cache”?")
	w.see("docker rm --force cache")
	if b, ok := w.win.Canvas().Focused().(*button); !ok || b.label != wordCancel {
		t.Errorf("the focus is on %T; want it on Cancel", w.win.Canvas().Focused())
	}
	w.shot("remove")
	w.button(wordCancel).TypedKey(key(fyne.KeyEscape))
	w.until("the question's end", func() bool { return !strings.Contains(w.text(), "Remove “cache”?") })
	if len(e.asked) != 0 {
		t.Fatalf("Escape removed: %v", e.asked)
	}
	w.containers.table.body.TypedKey(key(fyne.KeyDelete))
	w.see("Remove “cache”?")
	w.button("Remove forever").TypedKey(key(fyne.KeyReturn))
	w.until("the removal", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.asked) == 1 && e.asked[0] == "rm "+strings.Repeat("7d", 12)
	})
}

func TestSelectionHasItsBar(t *testing.T) {
	w := open(t, shop(), theme.VariantDark, fyne.NewSize(1280, 800))
	w.says <- api.Status{Phase: api.Running}
	w.see("cache")
	w.containers.table.all()
	w.see("6 selected")
	w.shot("selection")
	w.containers.table.all()
	w.until("no selection", func() bool { return !strings.Contains(w.text(), "selected") })
}

func TestDetail(t *testing.T) {
	for name, v := range variants {
		w := open(t, shop(), v, fyne.NewSize(1280, 800))
		w.says <- api.Status{Phase: api.Running}
		w.see("cache")
		w.containers.open(strings.Repeat("4a", 12), 0)
		w.until("two lines", func() bool { n, _, _ := w.containers.detail.logs.log.Size(); return n == 2 })
		w.see("storefront / api-1")
		w.see("docker logs storefront-api-1")
		r := w.containers.detail.logs
		r.update()
		test.Type(r.search, "needle")
		w.see("1 of 1")
		w.shot("logs-" + name)
		w.containers.detail.tabs.choose(2)
		w.until("the inspection", func() bool { n, _, _ := w.containers.detail.inspect.log.Size(); return n > 3 })
		var b strings.Builder
		w.containers.detail.inspect.log.Write(&b, false)
		if strings.Contains(b.String(), "hunter2") {
			t.Errorf("the inspection shows a secret:\n%s", b.String())
		}
		w.shot("inspect-" + name)
		w.containers.detail.tabs.choose(1)
		w.containers.detail.stats.show(w.containers.detail.last, wave())
		w.shot("stats-" + name)
		w.key(key(fyne.KeyEscape))
		w.see("6 containers")
		w.containers.open(strings.Repeat("4a", 12), 0)
		w.see("storefront / api-1")
		w.rail.items[0].open()
		w.see("6 containers")
	}
}

func wave() []model.Stats {
	var out []model.Stats
	for i := range 90 {
		f := math.Sin(float64(i) / 9)
		out = append(out, model.Stats{CPU: 40 + 35*f, Memory: int64(300e6 + 2e6*float64(i)), Received: 50e3 * (1 + f), Writes: 9e3 * math.Abs(f)})
	}
	return out
}

func TestStates(t *testing.T) {
	for _, c := range []struct {
		name   string
		status api.Status
		want   []string
	}{
		{"stopped", api.Status{Phase: api.Stopped}, []string{"The engine is stopped", wordStartEngine, "cove start"}},
		{"starting", api.Status{Phase: api.Starting, Stage: "booting"}, []string{"The engine is starting", "booting", wordCancelStart}},
		{"failed", api.Status{Phase: api.Failed, Failure: &api.Failure{Cause: "no-hypervisor", Summary: "QEMU is not installed.", Remedy: "Install it.", Evidence: "exec: not found\nin $PATH"}}, []string{"could not start", wordStartEngine}},
		{"asleep", api.Status{Phase: api.Suspended}, []string{"The engine sleeps", wordWake, "storefront"}},
	} {
		w := open(t, shop(), theme.VariantDark, fyne.NewSize(1280, 800))
		w.says <- c.status
		for _, part := range c.want {
			w.see(part)
		}
		w.shot("state-" + c.name)
	}
	w := open(t, &engine{}, theme.VariantLight, fyne.NewSize(1280, 800))
	w.says <- api.Status{Phase: api.Running}
	w.see(wordNoContainers)
	w.see(wordExampleRun)
	w.shot("state-empty")
}

func TestImagesPage(t *testing.T) {
	var w *window
	for name, v := range variants {
		w = open(t, shop(), v, fyne.NewSize(1280, 800))
		w.says <- api.Status{Phase: api.Running}
		w.show(w.images)
		w.see("alpine:3")
		w.see("storefront-api-1")
		w.see("5 images")
		w.shot("images-" + name)
	}
	w.images.filter.choose(2)
	w.until("the unused one alone", func() bool {
		s := w.text()
		return strings.Contains(s, "1 of 5 images") && !strings.Contains(s, "redis")
	})
}

func TestPullShowsItsLayersAndCanBeCancelled(t *testing.T) {
	for name, v := range variants {
		e := shop()
		e.pull = `{"status":"Pulling from library/postgres","id":"17.6"}
{"status":"Pulling fs layer","id":"3d8a4f0c91be"}
{"status":"Pulling fs layer","id":"a1c0ff37d2e4"}
{"status":"Pulling fs layer","id":"77b0c2d1e9aa"}
{"status":"Downloading","progressDetail":{"current":28200000,"total":28200000},"id":"3d8a4f0c91be"}
{"status":"Pull complete","id":"3d8a4f0c91be"}
{"status":"Downloading","progressDetail":{"current":31800000,"total":77500000},"id":"77b0c2d1e9aa"}
`
		w := open(t, e, v, fyne.NewSize(1280, 800))
		w.says <- api.Status{Phase: api.Running}
		w.see("cache")
		w.show(w.images)
		w.pullDialog("postgres:17.6")
		w.see("docker pull postgres:17.6")
		w.button(wordPull).tap()
		for _, part := range []string{"Pulling postgres:17.6", "60 MB of 106 MB", "Pull complete", "31.8 MB / 77.5 MB"} {
			w.see(part)
		}
		w.shot("pull-" + name)
		w.button(wordInBackground).tap()
		w.see("pulling postgres:17.6, 46 %")
		w.store.Pulls()[0].Cancel()
		w.until("its end", func() bool { return len(w.store.Pulls()) == 0 && !strings.Contains(w.text(), "pulling") })
	}
}

func TestRunDialog(t *testing.T) {
	for name, v := range variants {
		w := open(t, shop(), v, fyne.NewSize(1280, 800))
		w.says <- api.Status{Phase: api.Running}
		w.see("cache")
		w.runDialog(model.Run{Image: "nginx:alpine", Ports: "8080:80"})
		w.see("docker run --detach --publish 8080:80 nginx:alpine")
		f := w.win.Canvas().Focused().(*field)
		f.SetText("NGINX")
		w.button(wordRun).tap()
		w.see("is not the name of an image")
		w.shot("run-" + name)
		f.TypedKey(key(fyne.KeyEscape))
		w.until("its end", func() bool { return len(w.modals) == 0 })
	}
}

func TestPalette(t *testing.T) {
	w := open(t, shop(), theme.VariantDark, fyne.NewSize(1280, 800))
	w.says <- api.Status{Phase: api.Running}
	w.see("cache")
	w.palette()
	f := w.win.Canvas().Focused().(*field)
	test.Type(f, "cache container")
	w.shot("palette")
	f.OnSubmitted(f.Text)
	w.until("the container's page", func() bool { return w.containers.detail != nil && w.containers.detail.last.Name == "cache" })
}

// Thousands of rows cost a screenful of objects.
func TestThousandsOfRows(t *testing.T) {
	e := &engine{}
	for i := range 5000 {
		e.has = append(e.has, container.Summary{ID: fmt.Sprintf("%064d", i), Names: []string{fmt.Sprintf("/c-%04d", i)}, Image: "busybox", State: "running", Status: "Up 1 hour"})
	}
	w := open(t, e, theme.VariantDark, fyne.NewSize(1280, 800))
	w.says <- api.Status{Phase: api.Running}
	w.see("c-0000")
	if n := len(w.containers.table.body.rows); n > 20 {
		t.Errorf("%d rows exist", n)
	}
	w.focus(w.containers.table.body)
	w.containers.table.body.TypedKey(key(fyne.KeyEnd))
	w.see("c-4999")
}

// Text that matters has a contrast of 4.5 to 1, what is to be hit 3 to 1 (WCAG 2.2).
func TestContrast(t *testing.T) {
	for name, m := range map[string]map[fyne.ThemeColorName]color.Color{"dark": dark, "light": light} {
		for _, c := range []struct {
			front, back fyne.ThemeColorName
			least       float64
		}{
			{theme.ColorNameForeground, theme.ColorNameBackground, 7}, {theme.ColorNameForeground, surface, 7}, {muted, surface, 4.5}, {muted, railTint, 4.5}, {muted, raised, 4.5},
			{theme.ColorNameForegroundOnPrimary, fill, 4.5}, {theme.ColorNameForegroundOnPrimary, fillBad, 4.5}, {theme.ColorNameInputBorder, theme.ColorNameBackground, 3},
			{theme.ColorNameHyperlink, surface, 4.5}, {theme.ColorNameSuccess, surface, 3}, {theme.ColorNameWarning, surface, 3}, {theme.ColorNameError, surface, 4.5}, {ink, paper, 7}, {theme.ColorNamePlaceHolder, theme.ColorNameInputBackground, 4.5},
		} {
			if got := contrast(m[c.front], m[c.back]); got < c.least {
				t.Errorf("%s: %s on %s has %.1f; want %.1f", name, c.front, c.back, got, c.least)
			}
		}
		palette := darkPalette
		if name == "light" {
			palette = lightPalette
		}
		for i, p := range palette {
			if got := contrast(rgb(p), m[paper]); got < 3 {
				t.Errorf("%s: colour %d of logs has %.1f; want 3", name, i, got)
			}
		}
	}
}

func contrast(a, b color.Color) float64 {
	light := func(c color.Color) float64 {
		n := color.NRGBAModel.Convert(c).(color.NRGBA)
		lin := func(v uint8) float64 {
			f := float64(v) / 255
			if f <= 0.04045 {
				return f / 12.92
			}
			return math.Pow((f+0.055)/1.055, 2.4)
		}
		return 0.2126*lin(n.R) + 0.7152*lin(n.G) + 0.0722*lin(n.B)
	}
	x, y := light(a)+0.05, light(b)+0.05
	return max(x, y) / min(x, y)
}

func TestArcsAreSplit(t *testing.T) {
	got := splitArcs(`<path d="M1 2a1 1 0 0 0 1 1 2 2 0 1 1 .5.5l3 3"/>`)
	if want := `<path d="M1 2a1 1 0 0 0 1 1 a2 2 0 1 1 .5 .5 l3 3"/>`; got != want {
		t.Errorf("splitArcs = %s; want %s", got, want)
	}
}
