package view

import (
	"sync"
	"sync/atomic"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/driver/desktop"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"
	"github.com/covedesk/cove/ui/model"
)

// page is what the right side of the window shows.
type page interface {
	content() fyne.CanvasObject
	shown()                    // it is what people see from now on
	hidden()                   // no longer
	refresh()                  // there is something new to show
	find()                     // put the focus into its search
	escape() bool              // one step back within it; says whether there was one
	press(*fyne.KeyEvent) bool // a key that nobody had a use for
}

// attention is how long after the last use of the window somebody is taken to be there.
const attention = 2 * time.Minute

// Window is Cove's window.
type Window struct {
	win   fyne.Window
	store *model.Store
	now   func() time.Time
	theme *Theme

	rail       *rail
	stage      *fyne.Container // the page
	pages      []page
	containers *containersPage
	images     *imagesPage
	page       page
	toasts     *fyne.Container
	modals     []*modal
	tips       *tips

	gate sync.Mutex
	post func(func()) // onto Fyne's goroutine
	over bool         // the window is gone: nothing may be asked of Fyne any more

	focused bool
	used    time.Time
	busy    atomic.Bool // a refresh is on its way
}

var _ keys = (*Window)(nil)

// New fills a window. The store's changes are to be handed to Changed.
func New(win fyne.Window, th *Theme, store *model.Store) *Window {
	w := &Window{win: win, store: store, theme: th, now: time.Now, post: fyne.Do, focused: true}
	w.used = w.now()
	w.containers = newContainersPage(w)
	w.images = newImagesPage(w)
	w.pages = []page{w.containers, w.images}
	w.stage = container.NewStack()
	w.toasts = newColumn(8)
	w.tips = newTips(w)
	w.rail = newRail(w, railEntry{"container", wordContainers, w.containers}, railEntry{"layers", wordImages, w.images})
	body := container.New(&shell{}, w.rail, w.stage)
	win.SetContent(container.NewStack(newBox(theme.ColorNameBackground, "", 0), body, container.New(&corner{}, w.toasts), w.tips.layer))
	win.SetPadded(false)
	w.shortcuts()
	w.show(w.containers)
	store.Attend(true)
	return w
}

// shell is the rail and the page beside it.
type shell struct{}

const railWidth = 206

func (shell) MinSize(o []fyne.CanvasObject) fyne.Size {
	return fyne.NewSize(railWidth+o[1].MinSize().Width, max(o[0].MinSize().Height, o[1].MinSize().Height))
}
func (shell) Layout(o []fyne.CanvasObject, s fyne.Size) {
	o[0].Resize(fyne.NewSize(railWidth, s.Height))
	o[1].Move(fyne.NewPos(railWidth, 0))
	o[1].Resize(fyne.NewSize(s.Width-railWidth, s.Height))
}

// corner puts its object at the lower right.
type corner struct{}

func (corner) MinSize([]fyne.CanvasObject) fyne.Size { return fyne.Size{} }
func (corner) Layout(o []fyne.CanvasObject, s fyne.Size) {
	m := o[0].MinSize()
	o[0].Move(fyne.NewPos(s.Width-m.Width-20, s.Height-m.Height-20))
	o[0].Resize(m)
}

// Changed is for the store: there is something new. It may be called from any goroutine.
func (w *Window) Changed() {
	if w.busy.CompareAndSwap(false, true) {
		w.do(func() {
			w.busy.Store(false)
			w.refresh()
		})
	}
}

// do does something on Fyne's goroutine, unless the window is gone: Fyne panics when it is asked while it ends. It may
// be called from any goroutine.
func (w *Window) do(f func()) {
	w.gate.Lock()
	defer w.gate.Unlock()
	if !w.over {
		w.post(f)
	}
}

// End is to be called when Fyne's loop has ended its work, before it is gone.
func (w *Window) End() {
	w.gate.Lock()
	defer w.gate.Unlock()
	w.over = true
}

// Focus says whether the window has the keyboard.
func (w *Window) Focus(yes bool) {
	w.focused = yes
	if yes {
		w.attend()
	}
}

// attend notes that somebody uses the window.
func (w *Window) attend() {
	w.used = w.now()
	w.store.Attend(true)
}

// Tick is to be called now and then, from any goroutine: it ends the attention of a window that nobody uses, and moves ages on.
func (w *Window) Tick() { w.do(w.tick) }

func (w *Window) tick() {
	idle := w.now().Sub(w.used)
	w.store.Attend(idle < attention && (w.focused || idle < attention/4))
	w.refresh()
}

func (w *Window) refresh() {
	w.rail.refresh()
	w.page.refresh()
	for _, m := range w.modals {
		if m.update != nil {
			m.update()
		}
	}
	for _, n := range w.store.Notices() {
		w.toast(n)
	}
}

// show goes to a page.
func (w *Window) show(p page) {
	if w.page == p {
		return
	}
	if w.page != nil {
		w.page.hidden()
	}
	w.page = p
	w.stage.Objects = []fyne.CanvasObject{p.content()}
	w.stage.Refresh()
	p.shown()
	w.refresh()
}

// home goes to a page, and from within it to its beginning.
func (w *Window) home(p page) {
	if w.page == p {
		p.escape()
	}
	w.show(p)
}

func (w *Window) shortcuts() {
	add := func(key fyne.KeyName, mod fyne.KeyModifier, f func()) {
		w.win.Canvas().AddShortcut(&desktop.CustomShortcut{KeyName: key, Modifier: mod}, func(fyne.Shortcut) {
			w.attend()
			if len(w.modals) == 0 {
				f()
			}
		})
	}
	add(fyne.KeyF, fyne.KeyModifierShortcutDefault, func() { w.page.find() })
	add(fyne.KeyK, fyne.KeyModifierShortcutDefault, func() { w.palette() })
	add(fyne.KeyR, fyne.KeyModifierShortcutDefault, func() { w.store.Retry() })
	for i, key := range []fyne.KeyName{fyne.Key1, fyne.Key2} {
		add(key, fyne.KeyModifierShortcutDefault, func() { w.home(w.pages[i]) })
	}
	w.win.Canvas().SetOnTypedKey(func(e *fyne.KeyEvent) { w.key(e) })
}

// key is one that the focused widget had no use for.
func (w *Window) key(e *fyne.KeyEvent) {
	w.attend()
	if n := len(w.modals); n > 0 {
		w.modals[n-1].key(e)
		return
	}
	if e.Name == fyne.KeyEscape && w.page.escape() || w.page.press(e) {
		return
	}
	if e.Name == fyne.KeyF5 {
		w.store.Retry()
	}
}

func (w *Window) tip(o fyne.CanvasObject, below fyne.Position, s string) { w.tips.show(o, below, s) }

func (w *Window) focus(o fyne.Focusable) { w.win.Canvas().Focus(o) }

func (w *Window) copy(s string) {
	fyne.CurrentApp().Clipboard().SetContent(s)
	w.toast(model.Notice{Tone: model.Good, Title: wordCopied, Text: s})
}

// Flip changes between the light and the dark look.
func (w *Window) Flip() {
	v := theme.VariantDark
	if isDark() {
		v = theme.VariantLight
	}
	w.theme.Variant = &v
	fyne.CurrentApp().Settings().SetTheme(w.theme)
	w.refresh()
}

// rail is the navigation at the left, with the engine's state below.
type rail struct {
	widget.BaseWidget
	w       *Window
	entries []railEntry
	items   []*railItem
	object  fyne.CanvasObject
	state   *text
	dot     *picture
	numbers *text
	remedy  *button
}

type railEntry struct {
	icon, label string
	page        page
}

func newRail(w *Window, entries ...railEntry) *rail {
	r := &rail{w: w, entries: entries}
	items := newColumn(2)
	for _, e := range entries {
		it := &railItem{w: w, entry: e}
		it.ExtendBaseWidget(it)
		r.items = append(r.items, it)
		items.Add(it)
	}
	name := newRow(8, newPicture("boxes", theme.ColorNamePrimary, 22), newText(wordCove, 16, theme.ColorNameForeground).bold())
	r.state = newText("", 12, theme.ColorNameForeground)
	r.numbers = newText("", 11, muted)
	r.dot = newPicture("power", muted, 16)
	r.remedy = newButton(w, "", "", plain, func() {
		if k := w.store.Life().Remedy; k != model.NoRemedy {
			w.store.Remedy(k)
		}
	})
	look := newButton(w, "sun", "", ghost, w.Flip)
	look.tip = wordLook
	foot := newColumn(8, r.remedy, newRow(8, r.dot, spring{newColumn(1, r.state, r.numbers)}, look))
	r.object = container.NewStack(newBox(railTint, "", 0), newColumn(0, padded(16, 0, 14, 20, name), items, spring{container.NewStack()}, padded(8, 10, 12, 20, foot)))
	r.ExtendBaseWidget(r)
	return r
}

func (r *rail) CreateRenderer() fyne.WidgetRenderer { return widget.NewSimpleRenderer(r.object) }

func (r *rail) refresh() {
	l := r.w.store.Life()
	r.state.set(l.Word)
	r.dot.name, r.dot.colour = lifeIcon(l), toneColour(l.Tone)
	r.dot.Refresh()
	listing := r.w.store.Containers(model.Query{})
	sub := ""
	if ok, _ := r.w.store.Loaded(); ok {
		sub = countOf(listing.Active, "container runs", "containers run")
	}
	r.numbers.set(sub)
	r.numbers.Hidden = sub == ""
	r.remedy.label = remedyLabel(l.Remedy)
	r.remedy.Hidden = l.Remedy == model.NoRemedy
	r.remedy.kind = plain
	r.remedy.Refresh()
	r.object.Refresh()
	for i, it := range r.items {
		badge := ""
		if ok, _ := r.w.store.Loaded(); ok {
			switch i {
			case 0:
				badge = numberOf(listing.Total)
			case 1:
				badge = numberOf(len(r.w.store.Images()))
			}
		}
		it.active, it.badge = it.entry.page == r.w.page, badge
		it.Refresh()
	}
}

func lifeIcon(l model.Life) string {
	switch l.Tone {
	case model.Good:
		return "circle-check"
	case model.Busy:
		return "loader"
	case model.Bad:
		return "circle-alert"
	}
	if l.Remedy == model.WakeIt {
		return "moon"
	}
	return "power"
}

func remedyLabel(r model.Remedy) string {
	switch r {
	case model.StartIt:
		return wordStartEngine
	case model.WakeIt:
		return wordWake
	case model.CancelIt:
		return wordCancelStart
	}
	return ""
}
