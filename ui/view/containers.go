package view

import (
	"fmt"
	"strings"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/theme"
	"github.com/covedesk/cove/ui/model"
)

// listPage is what pages with a table have in common: a heading, a search, a filter, a command, and what stands in
// the table's place when there is nothing in it.
type listPage struct {
	w      *Window
	query  model.Query
	title  *text
	sub    *text
	search *field
	filter *choice
	table  *table
	line   *command
	banner *fyne.Container // what a sleeping engine says
	said   string          // its title
	tools  *fyne.Container
	foot   *fyne.Container
	middle *fyne.Container // the table, or what stands in its place
	state  string          // what the middle shows
	all    fyne.CanvasObject
	again  func() // shows what the query comes to
}

func (p *listPage) init(w *Window, title, hint string, filters []string, tbl *table, acts ...fyne.CanvasObject) {
	p.w, p.table = w, tbl
	p.title = newText(title, 20, theme.ColorNameForeground).bold()
	p.sub = newText(" ", 12, muted)
	p.search = newField(w, hint)
	p.search.Icon = nil
	p.search.OnChanged = func(s string) { p.query.Text = s; p.again() }
	p.search.esc = func() bool {
		if p.search.Text == "" {
			return false
		}
		p.search.SetText("")
		return true
	}
	kinds := []model.Filter{model.All, model.Running, model.Stopped}
	p.filter = newChoice(w, false, func(i int) { p.query.Filter = kinds[i]; p.again() }, filters...)
	p.line = newCommand(w, "")
	p.banner = container.NewStack()
	p.banner.Hide()
	p.middle = container.NewStack()
	tbl.order = func(by model.Column) {
		p.query.Reverse = p.query.Sort == by && !p.query.Reverse
		if p.query.Sort != by {
			p.query.Reverse = by == model.ByCPU || by == model.ByMemory || by == model.BySize || by == model.ByCreated || by == model.BySince
		}
		p.query.Sort = by
		tbl.sort, tbl.reverse = by, p.query.Reverse
		p.again()
	}
	head := newRow(8, append([]fyne.CanvasObject{spring{newColumn(2, p.title, p.sub)}}, acts...)...)
	p.tools = newRow(12, sized(320, 0, p.search), p.filter, spring{container.NewStack()})
	p.foot = newRow(10, newText(wordSameAs, 12, muted), spring{p.line})
	p.all = padded(16, 20, 14, 20, newColumn(12, head, p.tools, p.banner, spring{p.middle}, p.foot))
}

func (p *listPage) content() fyne.CanvasObject { return p.all }
func (p *listPage) find() {
	if !p.tools.Hidden {
		p.w.focus(p.search)
	}
}

func (p *listPage) clear() {
	p.search.SetText("")
	p.filter.choose(0)
}

// fill puts the right thing in the middle: the list, or why there is none. It says whether it is the list.
func (p *listPage) fill(total, shown int, nothing func() fyne.CanvasObject) bool {
	l := p.w.store.Life()
	loaded, problem := p.w.store.Loaded()
	state, make := "list", func() fyne.CanvasObject { return p.table }
	switch {
	case !l.Serves():
		state, make = fmt.Sprint("life ", l), func() fyne.CanvasObject { return p.w.lifePage(l) }
	case !loaded && problem != "":
		state, make = problem, func() fyne.CanvasObject {
			return empty("circle-alert", wordListFailed, problem, container.NewCenter(newButton(p.w, "", wordRetry, primary, p.w.store.Retry)))
		}
	case !loaded:
		state, make = "loading", func() fyne.CanvasObject { return empty("loader", wordLoading, "") }
	case total == 0:
		state, make = "nothing", nothing
	case shown == 0:
		state, make = "no match", func() fyne.CanvasObject {
			return empty("search", wordNothingMatches, wordNothingHint, container.NewCenter(newButton(p.w, "", wordClearFilters, plain, p.clear)))
		}
	}
	if state != p.state {
		p.state = state
		p.tools.Hidden = state != "list" && state != "no match"
		p.foot.Hidden = p.tools.Hidden
		p.all.Refresh()
		p.middle.Objects = []fyne.CanvasObject{make()}
		p.middle.Refresh()
	}
	p.sleeps(l)
	return state == "list"
}

// sleeps shows that an engine sleeps whose list is there.
func (p *listPage) sleeps(l model.Life) {
	want := ""
	if l.Serves() {
		want = l.Title
	}
	if want == p.said {
		return
	}
	p.said = want
	p.banner.Objects, p.banner.Hidden = nil, want == ""
	if want != "" {
		p.banner.Objects = []fyne.CanvasObject{newBanner(p.w, l)}
	}
	p.all.Refresh()
}

// newBanner is a strip above a list.
func newBanner(w *Window, l model.Life) fyne.CanvasObject {
	parts := []fyne.CanvasObject{newPicture(lifeIcon(l), toneColour(l.Tone), 18), newText(l.Title, 13, theme.ColorNameForeground).bold(), spring{newText(l.Text, 12, muted)}}
	if l.Remedy != model.NoRemedy {
		parts = append(parts, newButton(w, "", remedyLabel(l.Remedy), primary, func() { w.store.Remedy(l.Remedy) }))
	}
	return container.NewStack(newBox(raised, theme.ColorNameSeparator, 10), padded(7, 8, 7, 14, newRow(12, parts...)))
}

// containersPage lists the containers.
type containersPage struct {
	listPage
	detail   *detail // of one, over the list
	selected map[string]bool
	bulk     *fyne.Container
	count    *text
	bulkActs map[model.Verb]*button
	list     model.Listing
	shownNow bool
}

func newContainersPage(w *Window) *containersPage {
	p := &containersPage{selected: map[string]bool{}}
	t := newTable(w, 4,
		col{title: wordName, share: 1.25, sort: model.ByName},
		col{title: wordImage, share: 1, sort: model.ByImage, from: 760},
		col{title: wordPorts, share: 0.75},
		col{title: wordCPU, width: 76, right: true, sort: model.ByCPU},
		col{title: wordMemory, width: 98, right: true, sort: model.ByMemory, from: 640},
		col{title: wordSince, width: 116, sort: model.BySince, from: 860})
	t.open = func(id string) { p.open(id, 0) }
	t.toggle = func(id string) { p.selected[id] = !p.selected[id]; p.again() }
	t.fold = func(project string) {
		if p.query.Collapsed == nil {
			p.query.Collapsed = map[string]bool{}
		}
		p.query.Collapsed[project] = !p.query.Collapsed[project]
		p.again()
	}
	t.delete = func(id string) { p.act(model.Remove, id) }
	t.seen = func(ids []string) {
		if p.detail == nil && p.shownNow {
			w.store.Watch(ids)
		}
	}
	t.all = func() {
		can, are := t.picked()
		for _, l := range t.lines {
			if l.pick {
				p.selected[l.key] = are < can
			}
		}
		p.again()
	}
	p.init(w, wordContainers, wordSearchContainers, []string{wordAll, wordRunning, wordStopped}, t, newButton(w, "plus", wordRun, primary, func() { w.runDialog(model.Run{}) }))
	p.again = p.refresh
	p.query.Sort, t.sort = model.ByName, model.ByName
	p.line.text.set("docker ps --all")

	p.count = newText("", 13, theme.ColorNameForeground).bold()
	p.bulkActs = map[model.Verb]*button{}
	parts := []fyne.CanvasObject{p.count, spring{container.NewStack()}}
	for _, v := range []model.Verb{model.Start, model.Stop, model.Restart, model.Pause, model.Unpause, model.Remove} {
		b := newButton(w, verbIcon(v), verbLabel(v), plain, func() { p.act(v, p.picked(v)...) })
		p.bulkActs[v] = b
		parts = append(parts, b)
	}
	parts = append(parts, tipped(newButton(w, "x", "", ghost, func() { clear(p.selected); p.refresh() }), wordClear))
	p.bulk = container.NewStack(newBox(raised, theme.ColorNameSeparator, 10), padded(6, 8, 6, 14, newRow(6, parts...)))
	p.bulk.Hide()
	column := p.all.(*fyne.Container).Objects[0].(*fyne.Container)
	column.Objects = append(column.Objects[:3:3], append([]fyne.CanvasObject{p.bulk}, column.Objects[3:]...)...)
	return p
}

func verbIcon(v model.Verb) string {
	switch v {
	case model.Start, model.Unpause:
		return "play"
	case model.Stop:
		return "circle-stop"
	case model.Restart:
		return "rotate-cw"
	case model.Pause:
		return "pause"
	}
	return "trash-2"
}

func verbLabel(v model.Verb) string {
	switch v {
	case model.Start:
		return wordStart
	case model.Stop:
		return wordStop
	case model.Restart:
		return wordRestart
	case model.Pause:
		return wordPause
	case model.Unpause:
		return wordResume
	}
	return wordRemove
}

// picked are the selected ones that a verb fits.
func (p *containersPage) picked(v model.Verb) []string {
	var ids []string
	for _, l := range p.list.Lines {
		if k := l.Container; k != nil && p.selected[k.ID] && k.Pending == "" && v.Fits(k.State) {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// act does a verb, after a question if something is lost by it.
func (p *containersPage) act(v model.Verb, ids ...string) {
	if len(ids) == 0 {
		return
	}
	var names, running []string
	for _, id := range ids {
		if k := p.w.store.Container(id); k != nil {
			names = append(names, k.Name)
			if k.Running() {
				running = append(running, k.Name)
			}
		}
	}
	line := v.Command(names...)
	do := func() {
		p.line.text.set(line)
		p.w.store.Do(v, ids...)
		clear(p.selected)
		p.refresh()
	}
	if v != model.Remove {
		do()
		return
	}
	title := fmt.Sprintf("Remove %s?", countOf(len(names), "container", "containers"))
	if len(names) == 1 {
		title = fmt.Sprintf("Remove “%s”?", model.Plain(names[0]))
	}
	what := "What it wrote outside of volumes is lost. Its volumes stay, and so does its image."
	if len(names) > 1 {
		what = "What they wrote outside of volumes is lost: " + model.Plain(strings.Join(names, ", ")) + ". Their volumes stay, and so do their images."
	}
	if len(running) > 0 {
		what = countOf(len(running), "of them runs and is ended first. ", "of them run and are ended first. ") + what
		if len(names) == 1 {
			what = "It runs and is ended first. " + strings.TrimPrefix(what, "1 of them runs and is ended first. ")
		}
	}
	p.w.confirm(title, what, "Remove forever", line, func() {
		if p.detail != nil {
			p.closeDetail()
		}
		do()
	})
}

func (p *containersPage) open(id string, tab int) {
	if p.detail != nil {
		p.detail.end()
	}
	p.detail = newDetail(p, id, tab)
	p.w.stage.Objects = []fyne.CanvasObject{p.detail.all}
	p.w.stage.Refresh()
	p.detail.refresh()
}

func (p *containersPage) closeDetail() {
	if p.detail == nil {
		return
	}
	p.detail.end()
	p.detail = nil
	p.table.last = nil
	p.w.stage.Objects = []fyne.CanvasObject{p.all}
	p.w.stage.Refresh()
	p.refresh()
	if p.state == "list" {
		p.w.focus(p.table.body)
	}
}

func (p *containersPage) content() fyne.CanvasObject {
	if p.detail != nil {
		return p.detail.all
	}
	return p.all
}
func (p *containersPage) shown() {
	p.shownNow, p.table.last = true, nil
	if p.detail != nil {
		p.detail.watch()
	}
}
func (p *containersPage) hidden() { p.shownNow = false; p.w.store.Watch(nil) }
func (p *containersPage) find() {
	if p.detail != nil {
		p.detail.find()
		return
	}
	p.listPage.find()
}
func (p *containersPage) escape() bool {
	if p.detail != nil {
		p.closeDetail()
		return true
	}
	return false
}
func (p *containersPage) press(e *fyne.KeyEvent) bool {
	if p.detail == nil && p.state == "list" && (e.Name == fyne.KeyDown || e.Name == fyne.KeyUp) {
		p.w.focus(p.table.body)
		return true
	}
	return false
}

func (p *containersPage) refresh() {
	if p.detail != nil {
		p.detail.refresh()
		return
	}
	p.list = p.w.store.Containers(p.query)
	sub := countOf(p.list.Total, "container", "containers")
	if p.list.Projects > 0 {
		sub += " in " + countOf(p.list.Projects, "project", "projects")
	}
	if p.list.Total == 0 {
		sub = " "
	} else if p.list.Number < p.list.Total {
		sub = fmt.Sprintf("%d of %s", p.list.Number, sub)
	}
	p.sub.set(sub)
	if p.fill(p.list.Total, p.list.Number, p.nothing) {
		now := p.w.now()
		lines := make([]line, 0, len(p.list.Lines))
		for _, l := range p.list.Lines {
			lines = append(lines, p.row(l, now))
		}
		p.table.set(lines)
	}
	p.refreshBulk()
}

func (p *containersPage) nothing() fyne.CanvasObject {
	return empty("container", wordNoContainers, wordNoContainersHint, newCommand(p.w, wordExampleRun),
		container.NewCenter(newButton(p.w, "", "Run this", primary, func() { p.w.runDialog(model.Run{Image: "nginx:alpine", Ports: "8080:80"}) })))
}

func (p *containersPage) refreshBulk() {
	n := 0
	for _, l := range p.list.Lines {
		if l.Container != nil && p.selected[l.Container.ID] {
			n++
		}
	}
	if shown := n > 0; shown == p.bulk.Hidden {
		p.bulk.Hidden = !shown
		p.all.Refresh()
	}
	if n == 0 {
		return
	}
	p.count.set(fmt.Sprintf("%d selected", n))
	for v, b := range p.bulkActs {
		fits := len(p.picked(v)) > 0
		if v == model.Unpause || v == model.Pause {
			b.Hidden = !fits
		} else if fits {
			b.Enable()
		} else {
			b.Disable()
		}
	}
	p.bulk.Refresh()
}

// row is how a line of the listing looks.
func (p *containersPage) row(l model.Line, now time.Time) line {
	if g := l.Group; g != nil {
		r := line{key: g.Project, group: true, folded: g.Collapsed, chip: fmt.Sprintf("%d/%d running", g.Running, g.Total),
			cells: []cell{{text: model.Plain(g.Project), colour: theme.ColorNameForeground, bold: true}}}
		v, icon := model.Stop, "circle-stop"
		if g.Running == 0 {
			v, icon = model.Start, "play"
		}
		r.acts = []act{{icon: icon, tip: verbLabel(v), do: func() { p.act(v, g.IDs...) }}}
		return r
	}
	k := l.Container
	sub, isMono := k.Short(), true
	switch {
	case k.Pending != "":
		sub, isMono = k.Pending.Doing()+" …", false
	case k.Problem != "":
		sub, isMono = k.Problem, false
	}
	r := line{key: k.ID, dot: true, tone: k.Tone(), pick: true, selected: p.selected[k.ID]}
	if k.Pending != "" {
		r.tone = model.Busy
	} else if k.Problem != "" {
		r.problem = k.Problem
	}
	cpu, mem := wordNone, wordNone
	if k.Stats != nil {
		cpu, mem = fmt.Sprintf("%.1f %%", k.Stats.CPU), model.Memory(k.Stats.Memory)
	}
	var links []link
	for _, port := range k.Ports {
		if port.Public != 0 {
			links = append(links, link{port.String(), port.URL()})
		}
	}
	r.cells = []cell{{text: model.Plain(k.Label()), sub: sub, mono: isMono, bold: true, colour: theme.ColorNameForeground},
		{text: model.Plain(k.Image), colour: muted}, {links: links, colour: muted},
		{text: cpu, colour: theme.ColorNameForeground}, {text: mem, colour: theme.ColorNameForeground},
		{text: model.Ago(k.Since, now), sub: stateWord(k), colour: muted}}
	if k.Pending == "" {
		first := model.Start
		if model.Stop.Fits(k.State) {
			first = model.Stop
		}
		if k.Problem != "" {
			r.acts = append(r.acts, act{icon: "info", tip: wordDetails, do: func() { p.w.explain(k.Name, k.Problem); p.w.store.Forgive(k.ID) }})
		} else {
			r.acts = append(r.acts, act{icon: "scroll-text", tip: wordLogs, do: func() { p.open(k.ID, 0) }})
		}
		for _, v := range []model.Verb{first, model.Restart, model.Remove} {
			r.acts = append(r.acts, act{icon: verbIcon(v), tip: verbLabel(v), danger: v == model.Remove, do: func() { p.act(v, k.ID) }})
		}
	}
	return r
}

// stateWord is a state in full: it is never said by colour alone.
func stateWord(k *model.Container) string {
	word := k.State
	if k.State == "running" && k.Health != "" {
		word = k.Health
	}
	return word
}

func lastLines(s string, n int) []string {
	l := strings.Split(strings.TrimSpace(s), "\n")
	return l[max(0, len(l)-n):]
}
