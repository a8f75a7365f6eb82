package view

import (
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/driver/desktop"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"
	"github.com/covedesk/cove/ui/model"
)

// logView shows a log: a hundred thousand lines cost what a screenful costs. Lines are counted from the first there
// ever was, so that a selection stays on its text when old lines are dropped.
type logView struct {
	widget.BaseWidget
	win    keys
	log    *model.Log
	times  bool
	follow bool
	moved  func() // following or the hits changed

	query string
	hits  []int // lines, as the log counts them at the time of the search
	hit   int

	mono   *mono
	scroll *container.Scroll
	body   *logBody
	ground *box

	from, to spot
	marked   bool
}

type spot struct{ line, col int }

func (s spot) before(t spot) bool { return s.line < t.line || s.line == t.line && s.col < t.col }

func newLogView(win keys, log *model.Log) *logView {
	v := &logView{win: win, log: log, follow: true, mono: newMono(), ground: newBox(paper, theme.ColorNameSeparator, 8), moved: func() {}}
	v.body = &logBody{v: v}
	v.body.ExtendBaseWidget(v.body)
	v.scroll = container.NewScroll(v.body)
	v.scroll.OnScrolled = func(p fyne.Position) {
		v.win.attend()
		n, _, _ := v.log.Size()
		end := float32(n)*v.mono.cell().Height - v.scroll.Size().Height
		if at := p.Y >= end-1; at != v.follow {
			v.follow = at
			v.moved()
		}
		v.draw()
	}
	v.ExtendBaseWidget(v)
	return v
}

// update draws what has come.
func (v *logView) update() {
	v.body.Refresh()
	v.scroll.Refresh()
	if v.follow {
		v.scroll.ScrollToBottom()
	}
	v.draw()
}

// search marks a text and goes to its last line.
func (v *logView) search(text string) {
	v.query = strings.ToLower(text)
	v.hits = v.log.Find(v.query)
	v.hit = len(v.hits) - 1
	v.toHit()
}

// next goes to another hit, round the end.
func (v *logView) next(step int) {
	v.hits = v.log.Find(v.query)
	if n := len(v.hits); n > 0 {
		v.hit = ((v.hit+step)%n + n) % n
		v.toHit()
	}
}

func (v *logView) toHit() {
	if v.hit >= 0 && v.hit < len(v.hits) {
		v.follow = false
		y := float32(v.hits[v.hit])*v.mono.cell().Height - v.scroll.Size().Height/2
		v.scroll.ScrollToOffset(fyne.NewPos(v.scroll.Offset.X, max(0, y)))
	}
	v.moved()
	v.draw()
}

func (v *logView) setFollow(on bool) {
	v.follow = on
	if on {
		v.scroll.ScrollToBottom()
	}
	v.moved()
	v.draw()
}

const stampWidth = 25 // columns of a time and a space

func (v *logView) indent() int {
	if v.times {
		return stampWidth
	}
	return 0
}

func (v *logView) draw() {
	cell := v.mono.cell()
	size := v.scroll.Size()
	if size.Height <= 0 {
		return
	}
	first := max(0, int(v.scroll.Offset.Y/cell.Height))
	n := int(size.Height/cell.Height) + 2
	_, dropped, _ := v.log.Size()
	shift := int(v.scroll.Offset.X / cell.Width)
	isDark := isDark()
	fore := c(ink)
	from, to := v.from, v.to
	if to.before(from) {
		from, to = to, from
	}
	var rows [][]run
	for i, e := range v.log.Lines(first, n) {
		var runs []run
		plain := ""
		col := v.indent() - shift
		for _, s := range model.Parse(e.Text) {
			w := utf8.RuneCountInString(s.Text)
			r := run{col: col, width: w, text: s.Text, fore: ansi(s.Fore, isDark), back: ansi(s.Back, isDark), bold: s.Bold, under: s.Under}
			if r.fore == nil {
				r.fore = fore
			}
			if s.Faint {
				r.fore = c(muted)
			}
			if s.Flip {
				r.fore, r.back = c(paper), r.fore
			}
			runs = append(runs, r)
			plain += s.Text
			col += w
		}
		runs = append(runs, v.marks(plain, first+i, shift)...)
		at := dropped + first + i
		if v.marked && at >= from.line && at <= to.line {
			a, b := 0, utf8.RuneCountInString(plain)+1
			if at == from.line {
				a = from.col
			}
			if at == to.line {
				b = to.col
			}
			if b > a {
				runs = append(runs, run{col: v.indent() + a - shift, width: b - a, back: c(theme.ColorNameSelection)})
			}
		}
		if v.times {
			runs = append(runs, run{col: -shift, width: stampWidth - 1, text: e.Stamp(), fore: c(muted)})
		}
		rows = append(rows, runs)
	}
	v.mono.raster.Move(fyne.NewPos(v.scroll.Offset.X, float32(first)*cell.Height))
	v.mono.raster.Resize(fyne.NewSize(size.Width, float32(n)*cell.Height))
	v.mono.set(rows)
}

// marks are the grounds of a line's hits.
func (v *logView) marks(plain string, line, shift int) []run {
	if v.query == "" {
		return nil
	}
	ground := hit
	if v.hit >= 0 && v.hit < len(v.hits) && v.hits[v.hit] == line {
		ground = thisHit
	}
	var out []run
	lower := strings.ToLower(plain)
	for off := 0; ; {
		k := strings.Index(lower[off:], v.query)
		if k < 0 {
			return out
		}
		off += k
		out = append(out, run{col: v.indent() + utf8.RuneCountInString(lower[:off]) - shift, width: utf8.RuneCountInString(v.query), back: c(ground)})
		off += len(v.query)
	}
}

// selected is the marked text, or nothing.
func (v *logView) selected() string {
	if !v.marked {
		return ""
	}
	from, to := v.from, v.to
	if to.before(from) {
		from, to = to, from
	}
	_, dropped, _ := v.log.Size()
	var b strings.Builder
	for i, e := range v.log.Lines(from.line-dropped, to.line-from.line+1) {
		at := max(from.line-dropped, 0) + dropped + i
		r := []rune(model.Clean(e.Text))
		a, z := 0, len(r)
		if at == from.line {
			a = min(from.col, z)
		}
		if at == to.line {
			z = min(to.col, z)
		}
		if a < z {
			b.WriteString(string(r[a:z]))
		}
		if at != to.line {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func (v *logView) CreateRenderer() fyne.WidgetRenderer { return &logRenderer{v} }

type logRenderer struct{ v *logView }

func (r *logRenderer) Destroy()           {}
func (r *logRenderer) MinSize() fyne.Size { return fyne.NewSize(200, 80) }
func (r *logRenderer) Objects() []fyne.CanvasObject {
	return []fyne.CanvasObject{r.v.ground, r.v.scroll}
}
func (r *logRenderer) Layout(s fyne.Size) {
	r.v.ground.Resize(s)
	r.v.scroll.Move(fyne.NewPos(12, 8))
	r.v.scroll.Resize(s.SubtractWidthHeight(16, 16))
	if r.v.follow {
		r.v.scroll.ScrollToBottom()
	}
	r.v.draw()
}
func (r *logRenderer) Refresh() {
	r.v.ground.Refresh()
	r.v.draw()
}

// logBody is as large as the whole text, and takes mouse and keys.
type logBody struct {
	widget.BaseWidget
	v *logView
}

var (
	_ desktop.Mouseable = (*logBody)(nil)
	_ fyne.Draggable    = (*logBody)(nil)
	_ fyne.Focusable    = (*logBody)(nil)
	_ fyne.Shortcutable = (*logBody)(nil)
)

func (b *logBody) at(p fyne.Position) spot {
	cell := b.v.mono.cell()
	n, dropped, _ := b.v.log.Size()
	return spot{dropped + max(0, min(int(p.Y/cell.Height), n-1)), max(0, int(p.X/cell.Width+0.5)-b.v.indent())}
}

// Cursor is the one for text.
func (b *logBody) Cursor() desktop.Cursor { return desktop.TextCursor }
func (b *logBody) MouseDown(e *desktop.MouseEvent) {
	b.v.win.attend()
	b.v.from = b.at(e.Position)
	b.v.to, b.v.marked = b.v.from, false
	if cv := fyne.CurrentApp().Driver().CanvasForObject(b); cv != nil {
		cv.Focus(b)
	}
	b.v.draw()
}
func (b *logBody) MouseUp(*desktop.MouseEvent) {}
func (b *logBody) Dragged(e *fyne.DragEvent) {
	b.v.win.attend()
	b.v.to, b.v.marked = b.at(e.Position), true
	b.v.draw()
}
func (b *logBody) DragEnd()       {}
func (b *logBody) FocusGained()   {}
func (b *logBody) FocusLost()     {}
func (b *logBody) TypedRune(rune) {}
func (b *logBody) TypedKey(e *fyne.KeyEvent) {
	v := b.v
	v.win.attend()
	y := v.scroll.Offset.Y
	line, page := v.mono.cell().Height, v.scroll.Size().Height*0.9
	switch e.Name {
	case fyne.KeyEnd:
		v.setFollow(true)
		return
	case fyne.KeyHome:
		y = 0
	case fyne.KeyUp:
		y -= line
	case fyne.KeyDown:
		y += line
	case fyne.KeyPageUp:
		y -= page
	case fyne.KeyPageDown:
		y += page
	default:
		v.win.key(e)
		return
	}
	v.follow = false
	v.scroll.ScrollToOffset(fyne.NewPos(v.scroll.Offset.X, max(0, y)))
	v.moved()
	v.draw()
}
func (b *logBody) TypedShortcut(s fyne.Shortcut) {
	v := b.v
	switch s.(type) {
	case *fyne.ShortcutCopy:
		if t := v.selected(); t != "" {
			fyne.CurrentApp().Clipboard().SetContent(t)
		}
	case *fyne.ShortcutSelectAll:
		n, dropped, _ := v.log.Size()
		v.from, v.to, v.marked = spot{dropped, 0}, spot{dropped + n - 1, 1 << 20}, true
		v.draw()
	default:
		if w, ok := fyne.CurrentApp().Driver().CanvasForObject(b).(fyne.Shortcutable); ok {
			w.TypedShortcut(s)
		}
	}
}
func (b *logBody) CreateRenderer() fyne.WidgetRenderer { return &logBodyRenderer{b} }

type logBodyRenderer struct{ b *logBody }

func (r *logBodyRenderer) Destroy()         {}
func (r *logBodyRenderer) Layout(fyne.Size) {}
func (r *logBodyRenderer) MinSize() fyne.Size {
	n, _, longest := r.b.v.log.Size()
	cell := r.b.v.mono.cell()
	return fyne.NewSize(float32(longest+r.b.v.indent())*cell.Width, float32(n)*cell.Height)
}
func (r *logBodyRenderer) Objects() []fyne.CanvasObject {
	return []fyne.CanvasObject{r.b.v.mono.raster}
}
func (r *logBodyRenderer) Refresh() { r.b.v.draw() }

// isDark says which of the two palettes is on.
func isDark() bool {
	r, g, b, _ := c(theme.ColorNameBackground).RGBA()
	return r+g+b < 3*0x8000
}

// calmly makes a function that may be called from any goroutine, as often as one likes: f then runs on Fyne's
// goroutine, at the most once in d.
func (w *Window) calmly(d time.Duration, f func()) func() {
	var due atomic.Bool
	return func() {
		if due.CompareAndSwap(false, true) {
			time.AfterFunc(d, func() {
				due.Store(false)
				w.do(f)
			})
		}
	}
}
