package view

import (
	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/driver/desktop"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"
)

// Fyne's canvas objects keep the colour they were made with and do not cut what is too long; its widgets keep keys
// for themselves. What is here takes its colours at every refresh, cuts texts to their room, and hands on keys that
// it has no use for.

// text is one line of text, cut with an ellipsis where it does not fit.
type text struct {
	widget.BaseWidget
	text   string
	size   float32
	colour fyne.ThemeColorName
	style  fyne.TextStyle
	align  fyne.TextAlign
}

func newText(s string, size float32, colour fyne.ThemeColorName) *text {
	t := &text{text: s, size: size, colour: colour}
	t.ExtendBaseWidget(t)
	return t
}

func (t *text) bold() *text { t.style.Bold = true; return t }
func (t *text) mono() *text { t.style.Monospace = true; return t }
func (t *text) centred() *text {
	t.align = fyne.TextAlignCenter
	return t
}

func (t *text) set(s string) {
	if t.text != s {
		t.text = s
		t.Refresh()
	}
}

func (t *text) CreateRenderer() fyne.WidgetRenderer {
	r := &textRenderer{t: t, canvas: canvas.NewText(t.text, nil)}
	r.Refresh()
	return r
}

type textRenderer struct {
	t      *text
	canvas *canvas.Text
}

func (r *textRenderer) Destroy() {}
func (r *textRenderer) MinSize() fyne.Size {
	s := fyne.MeasureText(r.t.text, r.t.size, r.t.style)
	return fyne.NewSize(min(s.Width, 40), s.Height) // it can be cut; whoever wants it whole asks wide()
}
func (r *textRenderer) Objects() []fyne.CanvasObject { return []fyne.CanvasObject{r.canvas} }
func (r *textRenderer) Layout(s fyne.Size) {
	r.canvas.Text = cut(r.t.text, s.Width, r.t.size, r.t.style)
	r.canvas.Resize(s)
	r.canvas.Refresh()
}
func (r *textRenderer) Refresh() {
	r.canvas.Color, r.canvas.TextSize, r.canvas.TextStyle, r.canvas.Alignment = c(r.t.colour), r.t.size, r.t.style, r.t.align
	r.Layout(r.t.Size())
}

// wide is the width that the whole text takes.
func (t *text) wide() float32 { return fyne.MeasureText(t.text, t.size, t.style).Width + 1 }

// cut shortens a text to a width.
func cut(s string, width, size float32, style fyne.TextStyle) string {
	const most = 400 // no row is wider; names can be a megabyte
	if len(s) > most*4 {
		s = s[:most*4]
	}
	if width <= 0 || fyne.MeasureText(s, size, style).Width <= width {
		return s
	}
	r := []rune(s)
	low, high := 0, len(r)
	for low < high {
		mid := (low + high + 1) / 2
		if fyne.MeasureText(string(r[:mid])+"…", size, style).Width <= width {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return string(r[:low]) + "…"
}

// picture is an icon that follows the theme.
type picture struct {
	widget.BaseWidget
	name   string
	colour fyne.ThemeColorName
	size   float32
}

func newPicture(name string, colour fyne.ThemeColorName, size float32) *picture {
	p := &picture{name: name, colour: colour, size: size}
	p.ExtendBaseWidget(p)
	return p
}

func (p *picture) CreateRenderer() fyne.WidgetRenderer {
	r := &pictureRenderer{p: p, img: &canvas.Image{FillMode: canvas.ImageFillContain}}
	r.Refresh()
	return r
}

type pictureRenderer struct {
	p   *picture
	img *canvas.Image
}

func (r *pictureRenderer) Destroy()                     {}
func (r *pictureRenderer) MinSize() fyne.Size           { return fyne.NewSquareSize(r.p.size) }
func (r *pictureRenderer) Objects() []fyne.CanvasObject { return []fyne.CanvasObject{r.img} }
func (r *pictureRenderer) Layout(s fyne.Size) {
	r.img.Move(fyne.NewPos((s.Width-r.p.size)/2, (s.Height-r.p.size)/2))
	r.img.Resize(fyne.NewSquareSize(r.p.size))
}
func (r *pictureRenderer) Refresh() {
	r.img.Resource = icon(r.p.name, r.p.colour)
	r.img.Refresh()
}

// box is a rectangle that follows the theme.
type box struct {
	widget.BaseWidget
	fill, line fyne.ThemeColorName
	radius     float32
	shadow     bool
}

func newBox(fill, line fyne.ThemeColorName, radius float32) *box {
	b := &box{fill: fill, line: line, radius: radius}
	b.ExtendBaseWidget(b)
	return b
}

func (b *box) CreateRenderer() fyne.WidgetRenderer {
	r := &boxRenderer{b: b, rect: canvas.NewRectangle(nil)}
	r.Refresh()
	return r
}

type boxRenderer struct {
	b    *box
	rect *canvas.Rectangle
}

func (r *boxRenderer) Destroy()                     {}
func (r *boxRenderer) MinSize() fyne.Size           { return fyne.Size{} }
func (r *boxRenderer) Objects() []fyne.CanvasObject { return []fyne.CanvasObject{r.rect} }
func (r *boxRenderer) Layout(s fyne.Size)           { r.rect.Resize(s) }
func (r *boxRenderer) Refresh() {
	r.rect.FillColor, r.rect.StrokeColor, r.rect.StrokeWidth, r.rect.CornerRadius = c(r.b.fill), nil, 0, r.b.radius
	if r.b.line != "" {
		r.rect.StrokeColor, r.rect.StrokeWidth = c(r.b.line), 1
	}
	if r.b.shadow {
		r.rect.Shadow = canvas.Shadow{Color: c(theme.ColorNameShadow), BlurRadius: 18, Offset: fyne.NewPos(0, 6)}
	}
	r.rect.Refresh()
}

// keys is what a window does with a key that the focused widget has no use for.
type keys interface {
	key(*fyne.KeyEvent)
	attend()                                                // somebody is there
	tip(o fyne.CanvasObject, below fyne.Position, s string) // says what is under the pointer; nothing ends that
}

// kind is what a button is.
type kind int

const (
	plain   kind = iota
	primary      // the one that most people want
	danger       // destroys
	ghost        // in toolbars: no ground until the pointer is over it
)

// button is a verb, with an icon, a text or both. Enter and Space press it.
type button struct {
	widget.DisableableWidget
	win   keys
	icon  string
	label string
	tip   string // what it does, where there is no label
	kind  kind
	on    bool // a switch that is on
	press func()

	hover, focus bool
}

func newButton(win keys, icon, label string, k kind, press func()) *button {
	b := &button{win: win, icon: icon, label: label, kind: k, press: press}
	b.ExtendBaseWidget(b)
	return b
}

func (b *button) tap() {
	b.win.attend()
	if !b.Disabled() && b.press != nil {
		b.press()
	}
}
func (b *button) Tapped(*fyne.PointEvent) { b.win.tip(b, fyne.Position{}, ""); b.tap() }
func (b *button) MouseIn(*desktop.MouseEvent) {
	b.win.attend()
	b.win.tip(b, fyne.NewPos(b.Size().Width/2, b.Size().Height+6), b.tip)
	b.hover = true
	b.Refresh()
}
func (b *button) MouseMoved(*desktop.MouseEvent) {}
func (b *button) MouseOut() {
	b.win.tip(b, fyne.Position{}, "")
	b.hover = false
	b.Refresh()
}
func (b *button) FocusGained()   { b.focus = true; b.Refresh() }
func (b *button) FocusLost()     { b.focus = false; b.Refresh() }
func (b *button) TypedRune(rune) {}
func (b *button) TypedKey(e *fyne.KeyEvent) {
	switch e.Name {
	case fyne.KeyReturn, fyne.KeyEnter, fyne.KeySpace:
		b.tap()
	default:
		b.win.key(e)
	}
}

// AccessibilityLabel is what a screen reader says, where there is one.
func (b *button) AccessibilityLabel() string {
	if b.label != "" {
		return b.label
	}
	return b.tip
}

func (b *button) CreateRenderer() fyne.WidgetRenderer {
	r := &buttonRenderer{b: b, rect: canvas.NewRectangle(nil), img: &canvas.Image{FillMode: canvas.ImageFillContain}, text: canvas.NewText("", nil)}
	r.Refresh()
	return r
}

type buttonRenderer struct {
	b    *button
	rect *canvas.Rectangle
	img  *canvas.Image
	text *canvas.Text
}

const buttonHeight = 30

func (r *buttonRenderer) Destroy() {}
func (r *buttonRenderer) MinSize() fyne.Size {
	if r.b.label == "" {
		return fyne.NewSquareSize(buttonHeight)
	}
	w := fyne.MeasureText(r.b.label, 13, fyne.TextStyle{Bold: true}).Width + 24
	if r.b.icon != "" {
		w += 22
	}
	return fyne.NewSize(w, buttonHeight)
}
func (r *buttonRenderer) Objects() []fyne.CanvasObject {
	return []fyne.CanvasObject{r.rect, r.img, r.text}
}
func (r *buttonRenderer) Layout(s fyne.Size) {
	r.rect.Resize(s)
	m := fyne.MeasureText(r.b.label, 13, fyne.TextStyle{Bold: true})
	w := m.Width
	if r.b.icon != "" {
		w += 16
		if r.b.label != "" {
			w += 6
		}
	}
	x := (s.Width - w) / 2
	if r.b.icon != "" {
		r.img.Move(fyne.NewPos(x, (s.Height-16)/2))
		r.img.Resize(fyne.NewSquareSize(16))
		x += 22
	}
	r.text.Move(fyne.NewPos(x, (s.Height-m.Height)/2))
	r.text.Resize(m)
}
func (r *buttonRenderer) Refresh() {
	b := r.b
	ground, front := theme.ColorNameButton, theme.ColorNameForeground
	switch b.kind {
	case primary:
		ground, front = fill, theme.ColorNameForegroundOnPrimary
	case danger:
		ground, front = fillBad, theme.ColorNameForegroundOnPrimary
	case ghost:
		ground, front = "", muted
		if b.on {
			ground, front = theme.ColorNameSelection, theme.ColorNameForeground
		} else if b.hover {
			ground, front = theme.ColorNamePressed, theme.ColorNameForeground
		}
	}
	if b.Disabled() {
		front = theme.ColorNameDisabled
		if b.kind != ghost {
			ground = theme.ColorNameDisabledButton
		}
	}
	r.rect.FillColor = nil
	if ground != "" {
		r.rect.FillColor = c(ground)
		if b.hover && !b.Disabled() && b.kind != ghost {
			r.rect.FillColor = over(c(theme.ColorNamePressed), c(ground))
		}
	}
	r.rect.CornerRadius = 6
	r.rect.StrokeWidth = 0
	if b.focus {
		r.rect.StrokeWidth, r.rect.StrokeColor = 2, c(theme.ColorNamePrimary)
		if b.kind == primary {
			r.rect.StrokeColor = c(theme.ColorNameForeground)
		}
	}
	r.text.Text, r.text.TextSize, r.text.TextStyle.Bold, r.text.Color = b.label, 13, true, c(front)
	r.img.Hidden = b.icon == ""
	if b.icon != "" {
		r.img.Resource = icon(b.icon, front)
		r.img.Refresh()
	}
	r.Layout(b.Size())
	canvas.Refresh(b)
}

// field is a line to type in, or several.
type field struct {
	widget.Entry
	win keys
	esc func() bool // first use of Escape; says whether there was one

	other func(*fyne.KeyEvent) bool // first use of any other key, likewise
}

func newField(win keys, hint string) *field {
	f := &field{win: win}
	f.PlaceHolder = hint
	f.ExtendBaseWidget(f)
	return f
}

func newLines(win keys, hint string) *field {
	f := newField(win, hint)
	f.MultiLine = true
	f.SetMinRowsVisible(2)
	return f
}

func (f *field) TypedKey(e *fyne.KeyEvent) {
	f.win.attend()
	if e.Name == fyne.KeyEscape {
		if f.esc == nil || !f.esc() {
			f.win.key(e)
		}
		return
	}
	if f.other != nil && f.other(e) {
		return
	}
	f.Entry.TypedKey(e)
}

// AcceptsTab says that Tab goes on to the next field, also from several lines.
func (f *field) AcceptsTab() bool { return false }

// TypedShortcut hands the window's own shortcuts on: an Entry would swallow them.
func (f *field) TypedShortcut(s fyne.Shortcut) {
	if _, ours := s.(*desktop.CustomShortcut); ours {
		if w, ok := fyne.CurrentApp().Driver().CanvasForObject(f).(fyne.Shortcutable); ok {
			w.TypedShortcut(s)
		}
		return
	}
	f.Entry.TypedShortcut(s)
}

// bar is a thin bar of progress, 0 to 1.
type bar struct {
	widget.BaseWidget
	share  float64
	colour fyne.ThemeColorName
}

func newBar() *bar {
	b := &bar{colour: theme.ColorNamePrimary}
	b.ExtendBaseWidget(b)
	return b
}

func (b *bar) set(share float64, colour fyne.ThemeColorName) {
	b.share, b.colour = min(max(share, 0), 1), colour
	b.Refresh()
}

func (b *bar) CreateRenderer() fyne.WidgetRenderer {
	r := &barRenderer{b: b, ground: canvas.NewRectangle(nil), front: canvas.NewRectangle(nil)}
	r.ground.CornerRadius, r.front.CornerRadius = 3, 3
	r.Refresh()
	return r
}

type barRenderer struct {
	b             *bar
	ground, front *canvas.Rectangle
}

func (r *barRenderer) Destroy()                     {}
func (r *barRenderer) MinSize() fyne.Size           { return fyne.NewSize(40, 16) }
func (r *barRenderer) Objects() []fyne.CanvasObject { return []fyne.CanvasObject{r.ground, r.front} }
func (r *barRenderer) Layout(s fyne.Size) {
	for o, w := range map[*canvas.Rectangle]float32{r.ground: s.Width, r.front: s.Width * float32(r.b.share)} {
		o.Move(fyne.NewPos(0, (s.Height-6)/2))
		o.Resize(fyne.NewSize(w, 6))
	}
}
func (r *barRenderer) Refresh() {
	r.ground.FillColor, r.front.FillColor = c(theme.ColorNameSeparator), c(r.b.colour)
	r.front.Hidden = r.b.share == 0
	r.Layout(r.b.Size())
	canvas.Refresh(r.b)
}

// choice is a row of words of which one is chosen: tabs with a line under the chosen one, or a filter without.
// The arrow keys move in it.
type choice struct {
	widget.BaseWidget
	win    keys
	words  []string
	chosen int
	tabs   bool
	change func(int)

	hover int
	focus bool
}

func newChoice(win keys, tabs bool, change func(int), words ...string) *choice {
	ch := &choice{win: win, words: words, tabs: tabs, change: change, hover: -1}
	ch.ExtendBaseWidget(ch)
	return ch
}

func (ch *choice) choose(i int) {
	if i < 0 || i >= len(ch.words) || i == ch.chosen {
		return
	}
	ch.chosen = i
	ch.Refresh()
	ch.change(i)
}

func (ch *choice) width(i int) float32 {
	return fyne.MeasureText(ch.words[i], 13, fyne.TextStyle{Bold: true}).Width + 24
}
func (ch *choice) at(x float32) int {
	for i := range ch.words {
		if x -= ch.width(i); x < 0 {
			return i
		}
	}
	return -1
}
func (ch *choice) Tapped(e *fyne.PointEvent) { ch.win.attend(); ch.choose(ch.at(e.Position.X)) }
func (ch *choice) MouseIn(e *desktop.MouseEvent) {
	ch.win.attend()
	ch.MouseMoved(e)
}
func (ch *choice) MouseMoved(e *desktop.MouseEvent) {
	if i := ch.at(e.Position.X); i != ch.hover {
		ch.hover = i
		ch.Refresh()
	}
}
func (ch *choice) MouseOut()      { ch.hover = -1; ch.Refresh() }
func (ch *choice) FocusGained()   { ch.focus = true; ch.Refresh() }
func (ch *choice) FocusLost()     { ch.focus = false; ch.Refresh() }
func (ch *choice) TypedRune(rune) {}
func (ch *choice) TypedKey(e *fyne.KeyEvent) {
	switch e.Name {
	case fyne.KeyLeft:
		ch.choose(ch.chosen - 1)
	case fyne.KeyRight:
		ch.choose(ch.chosen + 1)
	default:
		ch.win.key(e)
	}
}

func (ch *choice) CreateRenderer() fyne.WidgetRenderer {
	r := &choiceRenderer{ch: ch, ground: canvas.NewRectangle(nil), line: canvas.NewRectangle(nil), ring: canvas.NewRectangle(nil)}
	r.objects = []fyne.CanvasObject{r.ground, r.ring, r.line}
	for range ch.words {
		t := canvas.NewText("", nil)
		r.texts = append(r.texts, t)
		r.objects = append(r.objects, t)
	}
	r.Refresh()
	return r
}

type choiceRenderer struct {
	ch                 *choice
	ground, line, ring *canvas.Rectangle
	texts              []*canvas.Text
	objects            []fyne.CanvasObject
}

func (r *choiceRenderer) Destroy() {}
func (r *choiceRenderer) MinSize() fyne.Size {
	var w float32
	for i := range r.ch.words {
		w += r.ch.width(i)
	}
	return fyne.NewSize(w, buttonHeight)
}
func (r *choiceRenderer) Objects() []fyne.CanvasObject { return r.objects }
func (r *choiceRenderer) Layout(s fyne.Size) {
	var x float32
	for i, t := range r.texts {
		w := r.ch.width(i)
		m := fyne.MeasureText(t.Text, 13, t.TextStyle)
		t.Move(fyne.NewPos(x+(w-m.Width)/2, (s.Height-m.Height)/2))
		t.Resize(m)
		if i == r.ch.chosen {
			r.ground.Move(fyne.NewPos(x, 0))
			r.ground.Resize(fyne.NewSize(w, s.Height))
			r.ring.Move(fyne.NewPos(x+1, 1))
			r.ring.Resize(fyne.NewSize(w-2, s.Height-2))
			r.line.Move(fyne.NewPos(x+10, s.Height-2))
			r.line.Resize(fyne.NewSize(w-20, 2))
		}
		x += w
	}
}
func (r *choiceRenderer) Refresh() {
	for i, t := range r.texts {
		t.Text, t.TextSize, t.Color = r.ch.words[i], 13, c(muted)
		t.TextStyle.Bold = i == r.ch.chosen
		if i == r.ch.chosen || i == r.ch.hover {
			t.Color = c(theme.ColorNameForeground)
		}
	}
	r.ground.CornerRadius, r.ring.CornerRadius = 6, 6
	r.ground.FillColor = c(theme.ColorNameSelection)
	r.ground.Hidden, r.line.Hidden = r.ch.tabs, !r.ch.tabs
	r.line.FillColor = c(theme.ColorNamePrimary)
	r.ring.FillColor, r.ring.StrokeWidth, r.ring.StrokeColor = nil, 2, c(theme.ColorNamePrimary)
	r.ring.Hidden = !r.ch.focus
	r.Layout(r.ch.Size())
	canvas.Refresh(r.ch)
}
