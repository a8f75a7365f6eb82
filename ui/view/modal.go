package view

import (
	"fmt"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"
	"github.com/covedesk/cove/ui/model"
)

// modal is a card over the window. Escape closes it; the focus goes back to where it was.
type modal struct {
	w      *Window
	pop    *widget.PopUp
	before fyne.Focusable
	under  string // what was shown below it: the focus goes back if it still is
	enter  func() // what Enter does in a field of it
	update func() // at every change of the store
	closed func()
}

// paragraph is a text of several lines.
func paragraph(s string) fyne.CanvasObject {
	l := widget.NewLabel(s)
	l.Wrapping = fyne.TextWrapWord
	return padded(-6, -7, -6, -7, l)
}

// command is a command line with a button that copies it.
type command struct {
	widget.BaseWidget
	object fyne.CanvasObject
	text   *text
}

func newCommand(w *Window, s string) *command {
	k := &command{text: newText(s, 12, ink).mono()}
	k.object = container.NewStack(newBox(paper, theme.ColorNameSeparator, 8), padded(3, 4, 3, 12,
		newRow(8, spring{k.text}, tipped(newButton(w, "copy", "", ghost, func() { w.copy(k.text.text) }), wordCopy))))
	k.ExtendBaseWidget(k)
	return k
}

func (k *command) CreateRenderer() fyne.WidgetRenderer { return widget.NewSimpleRenderer(k.object) }

func tipped(b *button, tip string) *button { b.tip = tip; return b }

// view tells what is shown below modals: focusing what is not shown is an error.
func (w *Window) view() string {
	return fmt.Sprintf("%p %s %s", w.stage.Objects[0], w.containers.state, w.images.state)
}

// ask opens a modal. The last of the acts is the verb; the focus goes to the first unless another is named.
func (w *Window) ask(width float32, title string, focus fyne.Focusable, body []fyne.CanvasObject, acts ...*button) *modal {
	m := &modal{w: w, before: w.win.Canvas().Focused(), under: w.view()}
	items := append([]fyne.CanvasObject{newText(title, 16, theme.ColorNameForeground).bold()}, body...)
	var buttons []fyne.CanvasObject
	buttons = append(buttons, spring{container.NewStack()})
	for _, a := range acts {
		buttons = append(buttons, a)
	}
	items = append(items, padded(4, 0, 0, 0, newRow(8, buttons...)))
	card := padded(18, 22, 18, 22, newColumn(12, items...))
	m.pop = widget.NewModalPopUp(sized(width, 0, card), w.win.Canvas())
	w.modals = append(w.modals, m)
	m.pop.Show()
	if focus == nil && len(acts) > 0 {
		focus = acts[0]
	}
	if focus != nil {
		w.focus(focus)
	}
	return m
}

// fit gives it the height that its content has now.
func (m *modal) fit() { m.pop.Refresh(); m.pop.Resize(m.pop.MinSize()) }

func (m *modal) close() {
	m.pop.Hide()
	for i, o := range m.w.modals {
		if o == m {
			m.w.modals = append(m.w.modals[:i], m.w.modals[i+1:]...)
		}
	}
	if m.before != nil && m.under == m.w.view() {
		m.w.focus(m.before)
	}
	if m.closed != nil {
		m.closed()
	}
}

func (m *modal) key(e *fyne.KeyEvent) {
	switch e.Name {
	case fyne.KeyEscape:
		m.close()
	case fyne.KeyReturn, fyne.KeyEnter:
		if m.enter != nil {
			m.enter()
		}
	}
}

// confirm asks before something is lost. The focus is on Cancel.
func (w *Window) confirm(title, what, verb, line string, do func()) {
	var m *modal
	w.ready(&m, w.ask(480, title, nil, []fyne.CanvasObject{paragraph(what), newCommand(w, line)},
		newButton(w, "", wordCancel, plain, func() { m.close() }),
		newButton(w, "", verb, danger, func() { m.close(); do() })))
}

// ready lets the buttons of a modal name it.
func (w *Window) ready(m **modal, made *modal) { *m = made }

const (
	toastStays = 6 * time.Second
	mostToasts = 3
)

// toast tells something at the lower right. Good news goes by itself, bad news waits to be closed.
func (w *Window) toast(n model.Notice) {
	name := "circle-check"
	if n.Tone == model.Bad {
		name = "circle-alert"
	}
	var all *fyne.Container
	gone := func() {
		w.toasts.Remove(all)
		w.settle()
	}
	ground := newBox(raised, theme.ColorNameSeparator, 10)
	ground.shadow = true
	words := newColumn(2, newText(n.Title, 13, theme.ColorNameForeground).bold())
	if n.Text != "" {
		words.Add(newText(n.Text, 12, muted))
	}
	buttons := []fyne.CanvasObject{newPicture(name, toneColour(n.Tone), 20), spring{words}}
	if n.Tone == model.Bad && n.Text != "" {
		buttons = append(buttons, newButton(w, "", wordDetails, ghost, func() { gone(); w.explain(n.Title, n.Text) }))
	}
	buttons = append(buttons, tipped(newButton(w, "x", "", ghost, gone), wordClose))
	all = sized(400, 0, container.NewStack(ground, padded(11, 8, 11, 14, newRow(12, buttons...))))
	if len(w.toasts.Objects) >= mostToasts {
		w.toasts.Objects = w.toasts.Objects[1:]
	}
	w.toasts.Add(all)
	w.settle()
	if n.Tone != model.Bad {
		time.AfterFunc(toastStays, func() { w.do(gone) })
	}
}

// settle places the toasts anew: Fyne lays a corner out when it is resized, not when it grows.
func (w *Window) settle() { w.win.Content().Refresh() }

// explain shows a problem in full.
func (w *Window) explain(title, what string) {
	var m *modal
	w.ready(&m, w.ask(520, title, nil, []fyne.CanvasObject{paragraph(what)},
		newButton(w, "copy", wordCopy, plain, func() { w.copy(what) }),
		newButton(w, "", wordClose, primary, func() { m.close() })))
}

// empty is a page, or a part of one, that has nothing to show: it says why, and what to do.
func empty(icon, title, hint string, more ...fyne.CanvasObject) fyne.CanvasObject {
	items := []fyne.CanvasObject{container.NewCenter(newPicture(icon, faint, 52)), newText(title, 17, theme.ColorNameForeground).bold().centred()}
	if hint != "" {
		l := widget.NewLabel(hint)
		l.Wrapping, l.Alignment = fyne.TextWrapWord, fyne.TextAlignCenter
		items = append(items, padded(-4, 0, -2, 0, l))
	}
	return container.NewCenter(sized(460, 0, newColumn(10, append(items, more...)...)))
}

// lifePage is what a page shows in place of a list that there is none of: the engine does not serve.
func (w *Window) lifePage(l model.Life) fyne.CanvasObject {
	var more []fyne.CanvasObject
	if l.Evidence != "" {
		log := model.NewLog(func() {})
		for _, line := range lastLines(l.Evidence, 200) {
			log.Add(model.Entry{Text: line})
		}
		more = append(more, sized(0, 150, newLogView(w, log)))
	}
	if l.Remedy != model.NoRemedy {
		k := primary
		if l.Remedy == model.CancelIt {
			k = plain
		}
		more = append(more, container.NewCenter(newButton(w, "", remedyLabel(l.Remedy), k, func() { w.store.Remedy(l.Remedy) })),
			newCommand(w, l.Remedy.Command()))
	}
	title := l.Title
	if title == "" {
		title = l.Word
	}
	return empty(lifeIcon(l), title, l.Text, more...)
}
