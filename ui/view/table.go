package view

import (
	"net/url"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/driver/desktop"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"
	"github.com/covedesk/cove/ui/model"
)

// col is a column of a table.
type col struct {
	title string
	width float32 // fixed, or
	share float32 // of what is left
	right bool
	from  float32      // the width of the table from which it is shown
	sort  model.Column // empty: cannot be sorted by
}

// cell is what a row has in a column.
type cell struct {
	text, sub  string
	colour     fyne.ThemeColorName
	bold, mono bool // mono is the second line's
	links      []link
}

type link struct {
	text string
	url  *url.URL
}

// act is a button of a row.
type act struct {
	icon, tip string
	danger    bool
	do        func()
}

// line is a row as it is now.
type line struct {
	key      string
	group    bool
	folded   bool
	chip     string
	tone     model.Tone
	dot      bool // has a dot; hollow where the tone is quiet
	pick     bool // can be selected
	selected bool
	cells    []cell
	acts     []act
	problem  string
}

const (
	rowHeight    = 48
	headerHeight = 34
	actWidth     = 30
	lead         = 44 // what stands before the first column: the box of the selection
)

// table is a list of rows with a header. Only rows that are seen exist as objects, so thousands cost what a screenful
// costs. Rows are known by key, because they move.
type table struct {
	widget.BaseWidget
	win  keys
	cols []col
	acts int // buttons that the widest row has

	sort    model.Column
	reverse bool

	open   func(key string)
	toggle func(key string)
	fold   func(key string)
	delete func(key string)
	order  func(model.Column)
	seen   func(keys []string) // which rows are seen, when that changes
	all    func()              // selects all, or none

	lines  []line
	cursor int
	header *tableHeader
	body   *tableBody
	scroll *container.Scroll
	last   []string
}

func newTable(win keys, acts int, cols ...col) *table {
	t := &table{win: win, cols: cols, acts: acts}
	t.header = &tableHeader{t: t, hover: -1}
	t.header.ExtendBaseWidget(t.header)
	t.body = &tableBody{t: t}
	t.body.ExtendBaseWidget(t.body)
	t.scroll = container.NewVScroll(t.body)
	t.scroll.OnScrolled = func(fyne.Position) { t.win.attend(); t.body.place() }
	t.ExtendBaseWidget(t)
	return t
}

// set shows rows. The cursor stays on its row.
func (t *table) set(lines []line) {
	key := ""
	if t.cursor < len(t.lines) {
		key = t.lines[t.cursor].key
	}
	grown := len(lines) != len(t.lines)
	t.lines = lines
	t.cursor = min(t.cursor, max(0, len(lines)-1))
	for i := range lines {
		if lines[i].key == key {
			t.cursor = i
			break
		}
	}
	if grown {
		t.scroll.Refresh() // its content has another height
	}
	t.header.Refresh()
	t.body.place()
}

// columns are where columns begin and how wide they are; 0 is one that is not shown.
func (t *table) columns(width float32) (x, w []float32) {
	x, w = make([]float32, len(t.cols)), make([]float32, len(t.cols))
	left := width - lead - float32(t.acts)*actWidth - 16
	var shares float32
	for i, cl := range t.cols {
		if width < cl.from {
			continue
		}
		if cl.share > 0 {
			shares += cl.share
		} else {
			w[i] = cl.width
			left -= cl.width
		}
	}
	at := float32(lead)
	for i, cl := range t.cols {
		if cl.share > 0 && width >= cl.from {
			w[i] = max(0, left*cl.share/shares)
		}
		x[i] = at
		at += w[i]
	}
	return x, w
}

func (t *table) CreateRenderer() fyne.WidgetRenderer {
	r := &tableRenderer{t: t, ground: newBox(surface, theme.ColorNameSeparator, 10)}
	return r
}

type tableRenderer struct {
	t      *table
	ground *box
}

func (r *tableRenderer) Destroy()           {}
func (r *tableRenderer) MinSize() fyne.Size { return fyne.NewSize(480, headerHeight+rowHeight) }
func (r *tableRenderer) Objects() []fyne.CanvasObject {
	return []fyne.CanvasObject{r.ground, r.t.header, r.t.scroll}
}
func (r *tableRenderer) Layout(s fyne.Size) {
	r.ground.Resize(s)
	r.t.header.Move(fyne.NewPos(1, 0))
	r.t.header.Resize(fyne.NewSize(s.Width-2, headerHeight))
	r.t.scroll.Move(fyne.NewPos(1, headerHeight))
	r.t.scroll.Resize(fyne.NewSize(s.Width-2, s.Height-headerHeight-6))
	r.t.body.place()
}
func (r *tableRenderer) Refresh() {
	r.ground.Refresh()
	r.t.header.Refresh()
	r.t.body.place()
}

// tableHeader has the titles, which sort, and the box that selects all.
type tableHeader struct {
	widget.BaseWidget
	t     *table
	hover int
}

func (h *tableHeader) at(p fyne.Position) int {
	x, w := h.t.columns(h.Size().Width)
	for i := range x {
		if p.X >= x[i] && p.X < x[i]+w[i] {
			return i
		}
	}
	return -1
}
func (h *tableHeader) Tapped(e *fyne.PointEvent) {
	h.t.win.attend()
	if i := h.at(e.Position); i >= 0 && h.t.cols[i].sort != "" {
		h.t.order(h.t.cols[i].sort)
	} else if e.Position.X < lead-8 && h.t.all != nil {
		h.t.all()
	}
}
func (h *tableHeader) MouseIn(e *desktop.MouseEvent) { h.MouseMoved(e) }
func (h *tableHeader) MouseMoved(e *desktop.MouseEvent) {
	h.t.win.attend()
	if i := h.at(e.Position); i != h.hover {
		h.hover = i
		h.Refresh()
	}
}
func (h *tableHeader) MouseOut() { h.hover = -1; h.Refresh() }

// picked says how many rows can be and are selected.
func (t *table) picked() (can, are int) {
	for i := range t.lines {
		if t.lines[i].pick {
			can++
			if t.lines[i].selected {
				are++
			}
		}
	}
	return can, are
}

func (h *tableHeader) CreateRenderer() fyne.WidgetRenderer {
	r := &headerRenderer{h: h, ground: canvas.NewRectangle(nil), line: canvas.NewRectangle(nil), box: newTick(), arrow: &canvas.Image{FillMode: canvas.ImageFillContain}}
	r.ground.TopLeftCornerRadius, r.ground.TopRightCornerRadius = 9, 9
	r.objects = []fyne.CanvasObject{r.ground, r.line, r.box.rect, r.box.mark, r.arrow}
	for range h.t.cols {
		t := canvas.NewText("", nil)
		r.texts = append(r.texts, t)
		r.objects = append(r.objects, t)
	}
	r.Refresh()
	return r
}

type headerRenderer struct {
	h            *tableHeader
	ground, line *canvas.Rectangle
	box          tick
	arrow        *canvas.Image
	texts        []*canvas.Text
	objects      []fyne.CanvasObject
}

func (r *headerRenderer) Destroy()                     {}
func (r *headerRenderer) MinSize() fyne.Size           { return fyne.NewSize(100, headerHeight) }
func (r *headerRenderer) Objects() []fyne.CanvasObject { return r.objects }
func (r *headerRenderer) Layout(s fyne.Size) {
	r.ground.Move(fyne.NewPos(0, 1))
	r.ground.Resize(fyne.NewSize(s.Width, s.Height-1))
	r.line.Move(fyne.NewPos(0, s.Height-1))
	r.line.Resize(fyne.NewSize(s.Width, 1))
	r.box.place(14, (s.Height-16)/2)
	x, w := r.h.t.columns(s.Width)
	r.arrow.Hide()
	for i, t := range r.texts {
		cl := r.h.t.cols[i]
		t.Hidden = w[i] == 0
		m := fyne.MeasureText(t.Text, t.TextSize, t.TextStyle)
		at := x[i]
		if cl.right {
			at = x[i] + w[i] - 14 - m.Width
		}
		t.Move(fyne.NewPos(at, (s.Height-m.Height)/2))
		t.Resize(m)
		if cl.sort != "" && cl.sort == r.h.t.sort && w[i] > 0 {
			r.arrow.Show()
			r.arrow.Resize(fyne.NewSquareSize(12))
			to := at + m.Width + 4
			if cl.right {
				to = at - 16
			}
			r.arrow.Move(fyne.NewPos(to, (s.Height-12)/2))
		}
	}
}
func (r *headerRenderer) Refresh() {
	t := r.h.t
	r.ground.FillColor, r.line.FillColor = c(raised), c(theme.ColorNameSeparator)
	can, are := t.picked()
	r.box.show(can > 0 && t.all != nil, are > 0, are < can)
	name := "arrow-up"
	if t.reverse {
		name = "arrow-down"
	}
	r.arrow.Resource = icon(name, muted)
	r.arrow.Refresh()
	for i, tx := range r.texts {
		tx.Text, tx.TextSize, tx.TextStyle.Bold, tx.Color = t.cols[i].title, 12, true, c(muted)
		if i == r.h.hover && t.cols[i].sort != "" || t.cols[i].sort != "" && t.cols[i].sort == t.sort {
			tx.Color = c(theme.ColorNameForeground)
		}
	}
	r.Layout(r.h.Size())
	canvas.Refresh(r.h)
}

// tick is a box that can be ticked.
type tick struct {
	rect *canvas.Rectangle
	mark *canvas.Image
}

func newTick() tick {
	r := canvas.NewRectangle(nil)
	r.CornerRadius = 4
	return tick{r, &canvas.Image{FillMode: canvas.ImageFillContain}}
}
func (t tick) place(x, y float32) {
	t.rect.Move(fyne.NewPos(x, y))
	t.rect.Resize(fyne.NewSquareSize(16))
	t.mark.Move(fyne.NewPos(x+2, y+2))
	t.mark.Resize(fyne.NewSquareSize(12))
}
func (t tick) show(there, on, partly bool) {
	t.rect.Hidden, t.mark.Hidden = !there, !there || !on
	t.rect.FillColor, t.rect.StrokeColor, t.rect.StrokeWidth = nil, c(theme.ColorNameInputBorder), 1.5
	if on {
		t.rect.FillColor, t.rect.StrokeWidth = c(fill), 0
		name := "check"
		if partly {
			name = "minus"
		}
		t.mark.Resource = icon(name, theme.ColorNameForegroundOnPrimary)
		t.mark.Refresh()
	}
}

// tableBody is as high as all rows and has those that are seen.
type tableBody struct {
	widget.BaseWidget
	t     *table
	rows  []*rowView
	shown []fyne.CanvasObject
	focus bool
}

func (b *tableBody) CreateRenderer() fyne.WidgetRenderer { return &bodyRenderer{b} }

type bodyRenderer struct{ b *tableBody }

func (r *bodyRenderer) Destroy()         {}
func (r *bodyRenderer) Layout(fyne.Size) { r.b.place() }
func (r *bodyRenderer) MinSize() fyne.Size {
	return fyne.NewSize(100, float32(len(r.b.t.lines))*rowHeight)
}
func (r *bodyRenderer) Objects() []fyne.CanvasObject { return r.b.shown }
func (r *bodyRenderer) Refresh()                     { r.b.place() }

// place puts the rows that are seen where they belong.
func (b *tableBody) place() {
	t := b.t
	size := t.scroll.Size()
	first := max(0, int(t.scroll.Offset.Y/rowHeight))
	n := min(int(size.Height/rowHeight)+2, len(t.lines)-first)
	b.shown = b.shown[:0]
	var keys []string
	for i := 0; i < n; i++ {
		if i == len(b.rows) {
			r := &rowView{t: t, hot: -1}
			r.ExtendBaseWidget(r)
			b.rows = append(b.rows, r)
		}
		r := b.rows[i]
		r.index = first + i
		r.Move(fyne.NewPos(0, float32(first+i)*rowHeight))
		r.Resize(fyne.NewSize(size.Width, rowHeight))
		r.Refresh()
		b.shown = append(b.shown, r)
		if !t.lines[first+i].group {
			keys = append(keys, t.lines[first+i].key)
		}
	}
	canvas.Refresh(b)
	if t.seen != nil && !equal(keys, t.last) {
		t.last = keys
		t.seen(keys)
	}
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func (b *tableBody) FocusGained()   { b.focus = true; b.place() }
func (b *tableBody) FocusLost()     { b.focus = false; b.place() }
func (b *tableBody) TypedRune(rune) {}
func (b *tableBody) TypedKey(e *fyne.KeyEvent) {
	t := b.t
	t.win.attend()
	page := max(1, int(t.scroll.Size().Height/rowHeight)-1)
	if len(t.lines) == 0 {
		t.win.key(e)
		return
	}
	l := t.lines[t.cursor]
	switch e.Name {
	case fyne.KeyUp:
		t.move(t.cursor - 1)
	case fyne.KeyDown:
		t.move(t.cursor + 1)
	case fyne.KeyPageUp:
		t.move(t.cursor - page)
	case fyne.KeyPageDown:
		t.move(t.cursor + page)
	case fyne.KeyHome:
		t.move(0)
	case fyne.KeyEnd:
		t.move(len(t.lines) - 1)
	case fyne.KeyReturn, fyne.KeyEnter:
		t.use(l)
	case fyne.KeySpace:
		if l.pick && t.toggle != nil {
			t.toggle(l.key)
		} else {
			t.use(l)
		}
	case fyne.KeyLeft:
		if l.group && !l.folded {
			t.fold(l.key)
		}
	case fyne.KeyRight:
		if l.group && l.folded {
			t.fold(l.key)
		}
	case fyne.KeyDelete:
		if !l.group && t.delete != nil {
			t.delete(l.key)
		}
	default:
		t.win.key(e)
	}
}

func (t *table) use(l line) {
	if l.group {
		t.fold(l.key)
	} else if t.open != nil {
		t.open(l.key)
	}
}

func (t *table) move(to int) {
	t.cursor = max(0, min(to, len(t.lines)-1))
	y := float32(t.cursor) * rowHeight
	h := t.scroll.Size().Height
	if y < t.scroll.Offset.Y {
		t.scroll.ScrollToOffset(fyne.NewPos(0, y))
	} else if y+rowHeight > t.scroll.Offset.Y+h {
		t.scroll.ScrollToOffset(fyne.NewPos(0, y+rowHeight-h))
	}
	t.body.place()
}

// rowView paints one row with all its cells and buttons and finds out itself what is under the pointer: with widgets
// in it the row would lose the pointer to them.
type rowView struct {
	widget.BaseWidget
	t     *table
	index int
	hover bool
	hot   int      // the button under the pointer
	over  *url.URL // the link under it
}

func (r *rowView) line() *line {
	if r.index < len(r.t.lines) {
		return &r.t.lines[r.index]
	}
	return nil
}

func (r *rowView) MouseIn(e *desktop.MouseEvent) { r.hover = true; r.MouseMoved(e); r.Refresh() }
func (r *rowView) MouseOut() {
	r.t.win.tip(r, fyne.Position{}, "")
	r.hover, r.hot, r.over = false, -1, nil
	r.Refresh()
}
func (r *rowView) MouseMoved(e *desktop.MouseEvent) {
	r.t.win.attend()
	hot, u := r.actAt(e.Position), r.linkAt(e.Position)
	if hot != r.hot || u != r.over {
		say := ""
		if hot >= 0 {
			say = r.line().acts[hot].tip
		} else if u != nil {
			say = u.String()
		}
		r.t.win.tip(r, fyne.NewPos(e.Position.X, rowHeight-4), say)
		r.hot, r.over = hot, u
		r.Refresh()
	}
}

// Cursor is a hand over links and where a click opens.
func (r *rowView) Cursor() desktop.Cursor {
	if r.over != nil || r.hot >= 0 {
		return desktop.PointerCursor
	}
	return desktop.DefaultCursor
}

func (r *rowView) actsLeft() float32 {
	return r.Size().Width - 10 - float32(len(r.line().acts))*actWidth
}

func (r *rowView) actAt(p fyne.Position) int {
	l := r.line()
	if l == nil || p.X < r.actsLeft() {
		return -1
	}
	if i := int((p.X - r.actsLeft()) / actWidth); i < len(l.acts) {
		return i
	}
	return -1
}

func (r *rowView) linkAt(p fyne.Position) *url.URL {
	l := r.line()
	if l == nil {
		return nil
	}
	x, w := r.t.columns(r.Size().Width)
	for i, ce := range l.cells {
		if len(ce.links) == 0 || p.X < x[i] || p.X >= x[i]+w[i] {
			continue
		}
		at := x[i]
		for _, k := range ce.links {
			wide := fyne.MeasureText(k.text, 12, fyne.TextStyle{}).Width
			if p.X >= at && p.X < at+wide {
				return k.url
			}
			at += wide + 10
		}
	}
	return nil
}

func (r *rowView) Tapped(e *fyne.PointEvent) {
	r.t.win.attend()
	r.t.win.tip(r, fyne.Position{}, "")
	l := r.line()
	if l == nil {
		return
	}
	r.t.cursor = r.index
	if cv := fyne.CurrentApp().Driver().CanvasForObject(r.t.body); cv != nil {
		cv.Focus(r.t.body)
	}
	switch i := r.actAt(e.Position); {
	case i >= 0:
		l.acts[i].do()
	case r.linkAt(e.Position) != nil:
		fyne.CurrentApp().OpenURL(r.linkAt(e.Position))
	case l.pick && r.t.toggle != nil && e.Position.X < lead-8:
		r.t.toggle(l.key)
	default:
		r.t.use(*l)
	}
}

func (r *rowView) CreateRenderer() fyne.WidgetRenderer {
	p := &rowRenderer{r: r, ground: canvas.NewRectangle(nil), sep: canvas.NewRectangle(nil), box: newTick(), dot: canvas.NewCircle(nil),
		chip: canvas.NewRectangle(nil), chipText: canvas.NewText("", nil), fold: &canvas.Image{FillMode: canvas.ImageFillContain}}
	p.ground.CornerRadius, p.chip.CornerRadius = 6, 9
	p.objects = []fyne.CanvasObject{p.sep, p.ground, p.box.rect, p.box.mark, p.dot, p.chip, p.chipText, p.fold}
	for range r.t.cols {
		p.texts = append(p.texts, canvas.NewText("", nil))
		p.subs = append(p.subs, canvas.NewText("", nil))
	}
	for i := range p.texts {
		p.objects = append(p.objects, p.texts[i], p.subs[i])
	}
	for range maxLinks {
		t := canvas.NewText("", nil)
		p.links = append(p.links, t)
		p.objects = append(p.objects, t)
	}
	for range r.t.acts {
		g := canvas.NewRectangle(nil)
		g.CornerRadius = 6
		p.actGround = append(p.actGround, g)
		p.actIcon = append(p.actIcon, &canvas.Image{FillMode: canvas.ImageFillContain})
		p.objects = append(p.objects, g, p.actIcon[len(p.actIcon)-1])
	}
	p.Refresh()
	return p
}

const maxLinks = 3 // of a row; more are in its detail

type rowRenderer struct {
	r                  *rowView
	ground, sep, chip  *canvas.Rectangle
	box                tick
	dot                *canvas.Circle
	chipText           *canvas.Text
	fold               *canvas.Image
	texts, subs, links []*canvas.Text
	actGround          []*canvas.Rectangle
	actIcon            []*canvas.Image
	objects            []fyne.CanvasObject
}

func (p *rowRenderer) Destroy()                     {}
func (p *rowRenderer) MinSize() fyne.Size           { return fyne.NewSize(100, rowHeight) }
func (p *rowRenderer) Objects() []fyne.CanvasObject { return p.objects }
func (p *rowRenderer) Layout(fyne.Size)             { p.draw() }
func (p *rowRenderer) Refresh()                     { p.draw(); canvas.Refresh(p.r) }

func (p *rowRenderer) draw() {
	r := p.r
	l := r.line()
	s := r.Size()
	if l == nil || s.Width == 0 {
		return
	}
	p.sep.FillColor = c(theme.ColorNameSeparator)
	p.sep.Move(fyne.NewPos(0, s.Height-1))
	p.sep.Resize(fyne.NewSize(s.Width, 1))
	p.ground.Move(fyne.NewPos(4, 3))
	p.ground.Resize(fyne.NewSize(s.Width-8, s.Height-7))
	p.ground.FillColor, p.ground.StrokeWidth = nil, 0
	switch {
	case l.selected:
		p.ground.FillColor = c(theme.ColorNameSelection)
	case r.hover:
		p.ground.FillColor = c(theme.ColorNameHover)
	}
	if r.t.body.focus && r.index == r.t.cursor {
		p.ground.StrokeColor, p.ground.StrokeWidth = c(theme.ColorNamePrimary), 1.5
	}
	p.box.place(14, (s.Height-16)/2)
	p.box.show(l.pick, l.selected, false)
	x, w := r.t.columns(s.Width)
	first := x[0]
	p.dot.Hidden, p.fold.Hidden, p.chip.Hidden, p.chipText.Hidden = !l.dot, !l.group, l.chip == "", l.chip == ""
	if l.dot {
		p.dot.Move(fyne.NewPos(first+2, (s.Height-9)/2))
		p.dot.Resize(fyne.NewSquareSize(9))
		p.dot.FillColor, p.dot.StrokeWidth = c(toneColour(l.tone)), 0
		if l.tone == model.Quiet {
			p.dot.FillColor, p.dot.StrokeColor, p.dot.StrokeWidth = nil, c(muted), 1.5
		}
		first += 24
	}
	if l.group {
		name := "chevron-down"
		if l.folded {
			name = "chevron-right"
		}
		p.fold.Resource = icon(name, muted)
		p.fold.Move(fyne.NewPos(first-2, (s.Height-16)/2))
		p.fold.Resize(fyne.NewSquareSize(16))
		p.fold.Refresh()
		first += 24
	}
	used := 0
	for i := range p.texts {
		t, sub := p.texts[i], p.subs[i]
		t.Hidden, sub.Hidden = true, true
		if i >= len(l.cells) || w[i] == 0 {
			continue
		}
		ce := l.cells[i]
		at, room := x[i], w[i]-14
		if i == 0 {
			room -= first - at
			at = first
		}
		if l.group {
			room = s.Width - at - 120
		}
		if len(ce.links) > 0 {
			linkAt := at
			for n, k := range ce.links {
				if used == len(p.links) || linkAt-at > room {
					break
				}
				tx := p.links[used]
				tx.Text, tx.TextSize, tx.Color = k.text, 12, c(muted)
				if n == maxLinks-1 && len(ce.links) > maxLinks {
					tx.Text += " …"
				}
				tx.TextStyle.Underline = r.over != nil && k.url == r.over
				if k.url != nil {
					tx.Color = c(theme.ColorNameHyperlink)
				}
				tx.Text = cut(tx.Text, room-(linkAt-at), 12, fyne.TextStyle{})
				m := fyne.MeasureText(tx.Text, 12, fyne.TextStyle{})
				tx.Move(fyne.NewPos(linkAt, (s.Height-m.Height)/2))
				tx.Resize(m)
				linkAt += m.Width + 10
				used++
			}
			continue
		}
		size := float32(12)
		if ce.bold {
			size = 13
		}
		t.Hidden = false
		t.TextSize, t.TextStyle.Bold, t.Color = size, ce.bold, c(ce.colour)
		t.Text = cut(ce.text, room, size, t.TextStyle)
		m := fyne.MeasureText(t.Text, size, t.TextStyle)
		y := (s.Height - m.Height) / 2
		if ce.sub != "" {
			y = 6
			sub.Hidden = false
			sub.TextSize, sub.TextStyle.Monospace, sub.Color = 11, ce.mono, c(muted)
			if l.problem != "" && i == 0 {
				sub.Color = c(theme.ColorNameError)
			}
			sub.Text = cut(ce.sub, room, 11, sub.TextStyle)
			sm := fyne.MeasureText(sub.Text, 11, sub.TextStyle)
			sub.Move(fyne.NewPos(at, 25))
			sub.Resize(sm)
		}
		if r.t.cols[i].right {
			at = x[i] + w[i] - 14 - m.Width
		}
		t.Move(fyne.NewPos(at, y))
		t.Resize(m)
		if i == 0 && l.chip != "" {
			cm := fyne.MeasureText(l.chip, 11, fyne.TextStyle{})
			p.chip.FillColor = over(c(theme.ColorNameHover), c(raised))
			p.chip.Move(fyne.NewPos(at+m.Width+12, (s.Height-18)/2))
			p.chip.Resize(fyne.NewSize(cm.Width+16, 18))
			p.chipText.Text, p.chipText.TextSize, p.chipText.Color = l.chip, 11, c(muted)
			p.chipText.Move(fyne.NewPos(at+m.Width+20, (s.Height-cm.Height)/2))
			p.chipText.Resize(cm)
		}
	}
	for i, t := range p.links {
		t.Hidden = i >= used
	}
	for i := range p.actIcon {
		there := i < len(l.acts)
		p.actGround[i].Hidden, p.actIcon[i].Hidden = !there, !there
		if !there {
			continue
		}
		at := r.actsLeft() + float32(i)*actWidth
		p.actGround[i].Move(fyne.NewPos(at+1, (s.Height-28)/2))
		p.actGround[i].Resize(fyne.NewSquareSize(28))
		p.actIcon[i].Move(fyne.NewPos(at+7, (s.Height-16)/2))
		p.actIcon[i].Resize(fyne.NewSquareSize(16))
		p.actGround[i].FillColor = nil
		colour := muted
		if r.hover && r.hot == i {
			p.actGround[i].FillColor = c(theme.ColorNamePressed)
			colour = theme.ColorNameForeground
			if l.acts[i].danger {
				colour = theme.ColorNameError
			}
		}
		p.actIcon[i].Resource = icon(l.acts[i].icon, colour)
		p.actIcon[i].Refresh()
	}
}
