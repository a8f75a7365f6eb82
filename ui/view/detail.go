package view

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/dialog"
	"fyne.io/fyne/v2/theme"
	"github.com/covedesk/cove/ui/model"
)

// logPace is how often a log that grows is drawn.
const logPace = 80 * time.Millisecond

// searchPace is how often a log that grows is searched again, which takes tens of milliseconds for all its lines.
const searchPace = time.Second

// detail is one container.
type detail struct {
	p    *containersPage
	w    *Window
	id   string
	last *model.Container // as it was when it was last there

	all         fyne.CanvasObject
	name, sub   *text
	dot         *picture
	acts        map[model.Verb]*button
	tabs        *choice
	body        *fyne.Container
	line        *command
	notice      *fyne.Container
	noticeText  *text
	logs        *reader
	inspect     *reader
	stats       *statsView
	secrets     bool
	inspectedAt string

	cancel context.CancelFunc
	work   sync.WaitGroup
}

func newDetail(p *containersPage, id string, tab int) *detail {
	d := &detail{p: p, w: p.w, id: id, acts: map[model.Verb]*button{}}
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	d.name = newText("", 20, theme.ColorNameForeground).bold()
	d.sub = newText("", 12, muted)
	d.dot = newPicture("circle", muted, 14)
	back := tipped(newButton(d.w, "chevron-left", "", ghost, p.closeDetail), wordBack)
	head := []fyne.CanvasObject{back, d.dot, spring{newColumn(2, d.name, d.sub)}}
	for _, v := range []model.Verb{model.Start, model.Stop, model.Unpause, model.Pause, model.Restart, model.Remove} {
		k := plain
		if v == model.Remove {
			k = danger
		}
		b := newButton(d.w, verbIcon(v), verbLabel(v), k, func() { p.act(v, id); d.showCommand(v) })
		d.acts[v] = b
		head = append(head, b)
	}

	var update func()
	log := model.NewLog(func() { update() })
	d.logs = newReader(d.w, log, wordSearchLogs, true)
	update = d.w.calmly(logPace, func() { d.logs.update() })
	d.inspect = newReader(d.w, model.NewLog(func() {}), wordSearchText, false)
	d.inspect.view.follow = false
	show := newButton(d.w, "eye", wordSecrets, ghost, nil)
	show.press = func() { d.secrets = !d.secrets; show.on = d.secrets; show.Refresh(); d.inspectedAt = ""; d.refresh() }
	d.inspect.extra(show)
	d.stats = newStatsView()

	d.tabs = newChoice(d.w, true, d.tab, wordLogs, wordStats, wordInspect)
	d.body = container.NewStack()
	d.noticeText = newText("", 12, theme.ColorNameForeground)
	d.notice = padded(0, 0, 0, 8, container.NewStack(newBox(raised, theme.ColorNameSeparator, 8), padded(8, 12, 8, 12, newRow(10, newPicture("info", theme.ColorNamePrimary, 16), spring{d.noticeText}))))
	d.notice.Hide()
	d.line = newCommand(d.w, "")
	d.all = padded(16, 20, 14, 12, newColumn(10, newRow(8, head...), padded(0, 0, 0, 8, newColumn(0, newRow(0, d.tabs), sized(0, 1, newBox(theme.ColorNameSeparator, "", 0)))),
		d.notice, spring{padded(0, 0, 0, 8, d.body)}, padded(0, 0, 0, 8, newRow(10, newText(wordSameAs, 12, muted), spring{d.line}))))
	d.work.Go(func() { d.w.store.Follow(ctx, id, log) })
	d.tabs.chosen = tab
	d.tab(tab)
	return d
}

// end lets go of the container's streams.
func (d *detail) end() {
	d.cancel()
	d.work.Wait()
}

func (d *detail) watch() {
	if d.tabs.chosen == 1 {
		d.w.store.Watch([]string{d.id})
	} else {
		d.w.store.Watch(nil)
	}
}

func (d *detail) tab(i int) {
	d.body.Objects = []fyne.CanvasObject{[]fyne.CanvasObject{d.logs.all, d.stats.all, d.inspect.all}[i]}
	d.body.Refresh()
	d.watch()
	d.inspectedAt = ""
	d.refresh()
	if k := d.last; k != nil {
		d.line.text.set(model.Quote("docker", []string{"logs", "stats", "inspect"}[i], k.Name))
	}
	if i == 0 {
		d.logs.view.update()
	}
}

func (d *detail) showCommand(v model.Verb) {
	if d.last != nil && v != model.Remove {
		d.line.text.set(v.Command(d.last.Name))
	}
}

func (d *detail) find() {
	switch d.tabs.chosen {
	case 0:
		d.w.focus(d.logs.search)
	case 2:
		d.w.focus(d.inspect.search)
	}
}

func (d *detail) refresh() {
	k := d.w.store.Container(d.id)
	first := d.last == nil
	if k != nil {
		d.last = k
		if first {
			d.tab(d.tabs.chosen)
			return
		}
	}
	if d.last == nil {
		return
	}
	name := d.last.Name
	if d.last.Project != "" {
		name = d.last.Project + " / " + d.last.Label()
	}
	d.name.set(model.Plain(name))
	word, tone := stateWord(d.last), d.last.Tone()
	switch {
	case k == nil && d.w.store.Life().Serves():
		word, tone = "gone", model.Quiet
	case k == nil:
		word, tone = "the engine does not run", model.Quiet
	case k.Pending != "":
		word, tone = strings.ToLower(k.Pending.Doing())+" …", model.Busy
	}
	d.sub.set(fmt.Sprintf("%s, %s  ·  %s  ·  %s", word, model.Ago(d.last.Since, d.w.now()), model.Plain(d.last.Image), d.last.Short()))
	d.dot.name, d.dot.colour = "circle", toneColour(tone)
	if tone == model.Good {
		d.dot.name = "circle-check"
	}
	d.dot.Refresh()
	for v, b := range d.acts {
		fits := k != nil && v.Fits(k.State)
		hide := !fits && v != model.Remove && v != model.Restart
		if b.Hidden != hide {
			b.Hidden = hide
			d.all.Refresh()
		}
		if fits && k.Pending == "" {
			b.Enable()
		} else {
			b.Disable()
		}
	}
	d.say(k)
	switch d.tabs.chosen {
	case 1:
		d.stats.show(d.last, d.w.store.History(d.id))
	case 2:
		d.inspectNow()
	}
}

// say shows what went wrong, or why nothing comes.
func (d *detail) say(k *model.Container) {
	l := d.w.store.Life()
	what := ""
	switch {
	case k != nil && k.Problem != "":
		what = k.Problem
	case !l.Serves() || l.Phase != "running":
		what = l.Title + ". " + l.Text
	case d.tabs.chosen == 0:
		what = d.logs.log.Waits()
	case d.tabs.chosen == 1 && k != nil && !k.Running():
		what = model.WaitsEnded
	case k == nil:
		what = model.WaitsGone
	}
	d.noticeText.set(what)
	if hide := what == ""; hide != d.notice.Hidden {
		d.notice.Hidden = hide
		d.all.Refresh()
	}
}

// inspectNow asks the engine, once for each state of the container.
func (d *detail) inspectNow() {
	at := fmt.Sprint(d.last.State, d.last.Since, d.secrets)
	if at == d.inspectedAt || !d.w.store.Life().Serves() {
		return
	}
	d.inspectedAt = at
	id, secrets := d.id, d.secrets
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		b, err := d.w.store.Inspect(ctx, id)
		lines := []string{}
		if err != nil {
			lines = append(lines, model.Plain(err.Error()))
		} else {
			lines = model.Inspected(b, secrets)
		}
		d.w.do(func() {
			d.inspect.log.Clear()
			for _, l := range lines {
				d.inspect.log.Add(model.Entry{Text: l})
			}
			d.inspect.update()
		})
	}()
}

// reader is a log with what is done to it: search, follow, times, copy, save, clear.
type reader struct {
	w      *Window
	log    *model.Log
	view   *logView
	search *field
	hits   *text
	follow *button
	tools  *fyne.Container
	all    fyne.CanvasObject
	sought time.Time // when a log that grows was last searched
}

func newReader(w *Window, log *model.Log, hint string, isLog bool) *reader {
	r := &reader{w: w, log: log, view: newLogView(w, log)}
	r.search = newField(w, hint)
	r.search.OnChanged = func(s string) { r.view.search(s) }
	r.search.OnSubmitted = func(string) { r.view.next(-1) }
	r.search.esc = func() bool {
		if r.search.Text == "" {
			return false
		}
		r.search.SetText("")
		return true
	}
	r.hits = newText("", 12, muted)
	up := tipped(newButton(w, "chevron-up", "", ghost, func() { r.view.next(-1) }), "The hit above")
	down := tipped(newButton(w, "chevron-down", "", ghost, func() { r.view.next(1) }), "The hit below")
	tools := []fyne.CanvasObject{sized(260, 0, r.search), up, down, r.hits, spring{container.NewStack()}}
	r.follow = newButton(w, "arrow-down-to-line", wordFollow, ghost, func() { r.view.setFollow(!r.view.follow) })
	if isLog {
		times := newButton(w, "clock", wordTimes, ghost, nil)
		times.press = func() { r.view.times = !r.view.times; times.on = r.view.times; times.Refresh(); r.view.update() }
		tools = append(tools, r.follow, times)
	}
	tools = append(tools, tipped(newButton(w, "copy", "", ghost, r.copy), wordCopy), tipped(newButton(w, "download", "", ghost, r.save), wordSave))
	if isLog {
		tools = append(tools, tipped(newButton(w, "eraser", "", ghost, func() { log.Clear() }), wordClear))
	}
	r.tools = newRow(4, tools...)
	r.view.moved = r.moved
	r.moved()
	r.all = newColumn(8, r.tools, spring{r.view})
	return r
}

func (r *reader) extra(o fyne.CanvasObject) { r.tools.Add(o) }

func (r *reader) update() {
	r.view.update()
	if now := r.w.now(); r.view.query != "" && now.Sub(r.sought) > searchPace {
		r.sought = now
		r.view.hits = r.log.Find(r.view.query)
		r.view.hit = min(r.view.hit, len(r.view.hits)-1)
		r.moved()
	}
}

func (r *reader) moved() {
	r.follow.on = r.view.follow
	r.follow.Refresh()
	s := ""
	switch n := len(r.view.hits); {
	case r.view.query == "":
	case n == 0:
		s = "no hit"
	default:
		s = fmt.Sprintf("%d of %d", r.view.hit+1, n)
	}
	r.hits.set(s)
	if r.tools != nil {
		r.tools.Refresh()
	}
}

// copy takes what is marked, or all of it.
func (r *reader) copy() {
	s := r.view.selected()
	if s == "" {
		var b strings.Builder
		if r.log.Write(&b, r.view.times) == nil {
			s = b.String()
		}
	}
	fyne.CurrentApp().Clipboard().SetContent(s)
	r.w.toast(model.Notice{Tone: model.Good, Title: wordCopied, Text: countOf(strings.Count(strings.TrimSuffix(s, "\n"), "\n")+1, "line", "lines")})
}

func (r *reader) save() {
	d := dialog.NewFileSave(func(f fyne.URIWriteCloser, err error) {
		if f == nil && err == nil {
			return // cancelled
		}
		if err == nil {
			err = r.log.Write(f, r.view.times)
			if e := f.Close(); err == nil {
				err = e
			}
		}
		if err != nil {
			r.w.toast(model.Notice{Tone: model.Bad, Title: "Not saved", Text: model.Plain(err.Error())})
			return
		}
		r.w.toast(model.Notice{Tone: model.Good, Title: "Saved", Text: f.URI().Path()})
	}, r.w.win)
	d.SetFileName("container.log")
	d.Show()
}
