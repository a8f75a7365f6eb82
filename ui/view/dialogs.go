package view

import (
	"fmt"
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"
	"github.com/covedesk/cove/ui/model"
)

// labelled is a field with its name above.
func labelled(name string, o fyne.CanvasObject) fyne.CanvasObject {
	return newColumn(4, newText(name, 12, muted), o)
}

func beside(a, b fyne.CanvasObject) fyne.CanvasObject { return newColumns(12, a, b) }

// newProblem is what is wrong with a form, hidden while nothing is.
func newProblem() *widget.Label {
	l := widget.NewLabel("")
	l.Importance, l.Wrapping = widget.DangerImportance, fyne.TextWrapWord
	l.Hide()
	return l
}

// runDialog asks what is to be run, shows the command, and runs it.
func (w *Window) runDialog(r model.Run) {
	var m *modal
	fields := map[*field]*string{}
	line := newCommand(w, r.CommandLine())
	problem := newProblem()
	change := func() {
		for f, to := range fields {
			*to = f.Text
		}
		line.text.set(r.CommandLine())
		if !problem.Hidden {
			problem.Hide()
			m.fit()
		}
	}
	add := func(f *field, to *string) *field {
		f.SetText(*to)
		f.CursorColumn = len([]rune(*to))
		fields[f] = to
		f.OnChanged = func(string) { change() }
		return f
	}
	img := add(newField(w, "nginx:alpine"), &r.Image)
	name := add(newField(w, "chosen by the engine"), &r.Name)
	ports := add(newLines(w, "8080:80, a line each"), &r.Ports)
	env := add(newLines(w, "NAME=VALUE, a line each"), &r.Env)
	volumes := add(newLines(w, "/on/the/host:/in/the/container\nor volume:/in/the/container"), &r.Volumes)
	cmd := add(newField(w, "the image's own"), &r.Command)
	network := add(newField(w, "bridge"), &r.Network)
	restart := newChoice(w, false, func(i int) { r.Restart = model.Restarts[i]; change() }, model.Restarts...)
	remove := newButton(w, "square", wordRemoveAtEnd, ghost, nil)
	remove.press = func() {
		r.Remove = !r.Remove
		remove.on, remove.icon = r.Remove, "square"
		if r.Remove {
			remove.icon = "square-check"
		}
		remove.Refresh()
		change()
	}

	var run *button
	fail := func(s string) {
		problem.SetText(s)
		problem.Show()
		run.Enable()
		m.fit()
	}
	start := func() {
		if err := r.Check(); err != nil {
			fail(upper(err.Error()))
			return
		}
		run.Disable()
		w.store.Launch(r, func(p *model.Pull) { w.do(func() { m.close(); w.follow(p) }) }, func(id, what string) {
			w.do(func() {
				switch {
				case what == "" && m.open():
					m.close()
					w.show(w.containers)
					w.containers.open(id, 0)
				case what == "": // they went on to something else
					w.toast(model.Notice{Tone: model.Good, Title: r.Image + " runs"})
				case m.open():
					fail(what)
				default:
					w.toast(model.Notice{Tone: model.Bad, Title: r.Image + " could not be run", Text: what})
				}
			})
		})
	}
	run = newButton(w, "play", wordRun, primary, start)
	w.ready(&m, w.ask(620, wordRunContainer, img, []fyne.CanvasObject{
		beside(labelled(wordImage, img), labelled(wordName, name)),
		beside(labelled(wordPortsField, ports), labelled(wordEnvironment, env)),
		labelled(wordVolumes, volumes),
		beside(labelled(wordCommand, cmd), labelled(wordNetwork, network)),
		labelled(wordRestart, newRow(8, restart, spring{container.NewStack()}, remove)),
		line, problem},
		newButton(w, "", wordCancel, plain, func() { m.close() }), run))
	m.enter = start
	for f := range fields {
		if !f.MultiLine {
			f.OnSubmitted = func(string) { start() }
		}
	}
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func (m *modal) open() bool {
	for _, o := range m.w.modals {
		if o == m {
			return true
		}
	}
	return false
}

// pullDialog asks for an image and pulls it.
func (w *Window) pullDialog(ref string) {
	var m *modal
	line := newCommand(w, model.PullCommand("IMAGE"))
	problem := newProblem()
	f := newField(w, "alpine:3, or registry.example.com/team/app:1.2")
	start := func() {
		full, err := model.Ref(f.Text)
		if err != nil {
			problem.SetText(upper(err.Error()))
			problem.Show()
			m.fit()
			return
		}
		m.close()
		w.follow(w.store.Pull(full))
	}
	w.ready(&m, w.ask(560, wordPullImage, f, []fyne.CanvasObject{f, line, problem},
		newButton(w, "", wordCancel, plain, func() { m.close() }), newButton(w, "download", wordPull, primary, start)))
	f.OnSubmitted = func(string) { start() }
	f.OnChanged = func(s string) {
		if s == "" {
			s = "IMAGE"
		}
		line.text.set(model.PullCommand(strings.TrimSpace(s)))
	}
	f.SetText(ref)
}

const shownLayers = 8

// follow shows a pull, layer by layer. Closing it leaves the pull be.
func (w *Window) follow(p *model.Pull) {
	var m *modal
	whole, sum, pace := newBar(), newText(" ", 13, theme.ColorNameForeground).bold(), newText("", 12, muted)
	layers := newColumn(2)
	type layerRow struct {
		id, status, size *text
		bar              *bar
	}
	var rows []layerRow
	hide := newButton(w, "", wordInBackground, primary, func() { m.close() })
	stop := newButton(w, "", wordCancelPull, plain, func() { p.Cancel(); m.close() })
	seen := w.store.Seen(p)
	w.ready(&m, w.ask(620, "Pulling "+model.Plain(seen.Ref), hide, []fyne.CanvasObject{whole, newRow(8, spring{sum}, pace), layers, newCommand(w, model.PullCommand(seen.Ref))}, stop, hide))
	m.update = func() {
		s := w.store.Seen(p)
		got, all := s.Fetched()
		whole.set(s.Share(), theme.ColorNamePrimary)
		switch {
		case s.Error != "":
			m.close()
			return
		case s.Done:
			m.close()
			return
		case all > 0:
			sum.set(fmt.Sprintf("%s of %s", model.Bytes(got), model.Bytes(all)))
			if d := w.now().Sub(s.Begun).Seconds(); d > 1 {
				pace.set(model.Bytes(int64(float64(got)/d)) + "/s")
			}
		case s.Text != "":
			sum.set(s.Text)
		}
		grown := false
		for i, l := range s.Layers[:min(len(s.Layers), shownLayers)] {
			if i == len(rows) {
				r := layerRow{newText("", 12, muted).mono(), newText("", 12, muted), newText("", 12, muted), newBar()}
				r.size.align = fyne.TextAlignTrailing
				rows = append(rows, r)
				layers.Add(newRow(8, sized(100, 0, r.id), sized(120, 0, r.status), spring{r.bar}, sized(150, 0, r.size)))
				grown = true
			}
			r := rows[i]
			r.id.set(l.ID)
			r.status.set(l.Status)
			size := ""
			share, colour := 0.0, theme.ColorNamePrimary
			switch {
			case l.Done:
				share, colour = 1, theme.ColorNameSuccess
				if l.Size > 0 {
					size = model.Bytes(l.Size)
				}
			case l.Total > 0:
				share = float64(l.Current) / float64(l.Total)
				size = model.Bytes(l.Current) + " / " + model.Bytes(l.Total)
			}
			r.size.set(size)
			r.bar.set(share, colour)
		}
		if grown {
			m.fit()
		}
	}
	m.update()
}

// found is what the palette leads to.
type found struct {
	icon, name, hint string
	do               func()
}

const mostFound = 9

// palette goes anywhere by typing: pages, containers, images and acts.
func (w *Window) palette() {
	var m *modal
	f := newField(w, wordPalette)
	list := newColumn(2)
	var now []found
	chosen := 0
	open := func(i int) {
		if i < len(now) {
			do := now[i].do
			m.close()
			do()
		}
	}
	show := func() {
		list.Objects = nil
		for i, k := range now {
			b := newButton(w, k.icon, "", ghost, func() { open(i) })
			b.on = i == chosen
			name := newText(model.Plain(k.name), 13, theme.ColorNameForeground)
			list.Add(container.NewStack(highlight(i == chosen), newRow(6, b, spring{name}, newText(k.hint, 12, muted), sized(6, 0, container.NewStack()))))
		}
		if len(now) == 0 {
			list.Add(newText(wordNothingMatches, 13, muted))
		}
		m.fit()
	}
	find := func(s string) {
		chosen, now = 0, nil
		words := strings.Fields(strings.ToLower(s))
		for _, k := range w.everything() {
			text := strings.ToLower(k.name + " " + k.hint)
			all := true
			for _, word := range words {
				all = all && strings.Contains(text, word)
			}
			if all && len(now) < mostFound {
				now = append(now, k)
			}
		}
		show()
	}
	w.ready(&m, w.ask(560, wordGoTo, f, []fyne.CanvasObject{f, list}))
	f.OnChanged = find
	f.OnSubmitted = func(string) { open(chosen) }
	f.other = func(e *fyne.KeyEvent) bool {
		switch e.Name {
		case fyne.KeyDown:
			chosen = min(chosen+1, len(now)-1)
		case fyne.KeyUp:
			chosen = max(chosen-1, 0)
		default:
			return false
		}
		show()
		return true
	}
	find("")
}

func highlight(on bool) fyne.CanvasObject {
	if on {
		return newBox(theme.ColorNameHover, "", 6)
	}
	return container.NewStack()
}

// everything there is to go to, what is done most first.
func (w *Window) everything() []found {
	out := []found{
		{"container", wordContainers, "page", func() { w.show(w.containers) }},
		{"layers", wordImages, "page", func() { w.show(w.images) }},
		{"plus", wordRunContainer, "act", func() { w.runDialog(model.Run{}) }},
		{"download", wordPullImage, "act", func() { w.pullDialog("") }},
		{"sun", wordLook, "act", w.Flip},
	}
	if k := w.store.Life().Remedy; k != model.NoRemedy {
		out = append([]found{{"power", remedyLabel(k), "act", func() { w.store.Remedy(k) }}}, out...)
	}
	for _, l := range w.store.Containers(model.Query{}).Lines {
		if k := l.Container; k != nil {
			out = append(out, found{"container", k.Name, "container, " + stateWord(k), func() { w.show(w.containers); w.containers.open(k.ID, 0) }})
		}
	}
	for _, i := range model.ListImages(w.store.Images(), model.Query{}) {
		out = append(out, found{"layers", i.Name(), "run this image", func() { w.runDialog(model.Run{Image: i.Name()}) }})
	}
	return out
}
