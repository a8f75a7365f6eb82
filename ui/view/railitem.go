package view

import (
	"strconv"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/driver/desktop"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"
)

// railItem leads to a page.
type railItem struct {
	widget.BaseWidget
	w              *Window
	entry          railEntry
	badge          string
	active         bool
	hover, focused bool
}

func (n *railItem) open()                          { n.w.attend(); n.w.home(n.entry.page) }
func (n *railItem) Tapped(*fyne.PointEvent)        { n.open() }
func (n *railItem) MouseIn(*desktop.MouseEvent)    { n.w.attend(); n.hover = true; n.Refresh() }
func (n *railItem) MouseMoved(*desktop.MouseEvent) {}
func (n *railItem) MouseOut()                      { n.hover = false; n.Refresh() }
func (n *railItem) FocusGained()                   { n.focused = true; n.Refresh() }
func (n *railItem) FocusLost()                     { n.focused = false; n.Refresh() }
func (n *railItem) TypedRune(rune)                 {}
func (n *railItem) TypedKey(e *fyne.KeyEvent) {
	switch e.Name {
	case fyne.KeySpace, fyne.KeyReturn, fyne.KeyEnter:
		n.open()
	default:
		n.w.key(e)
	}
}

// AccessibilityLabel is what a screen reader says.
func (n *railItem) AccessibilityLabel() string { return n.entry.label }

func (n *railItem) CreateRenderer() fyne.WidgetRenderer {
	r := &railItemRenderer{n: n, ground: canvas.NewRectangle(nil), mark: canvas.NewRectangle(nil), img: &canvas.Image{FillMode: canvas.ImageFillContain}, text: canvas.NewText("", nil), badge: canvas.NewText("", nil)}
	r.ground.CornerRadius, r.mark.CornerRadius = 7, 1.5
	r.Refresh()
	return r
}

type railItemRenderer struct {
	n            *railItem
	ground, mark *canvas.Rectangle
	img          *canvas.Image
	text, badge  *canvas.Text
}

func (r *railItemRenderer) Destroy()           {}
func (r *railItemRenderer) MinSize() fyne.Size { return fyne.NewSize(railWidth, 36) }
func (r *railItemRenderer) Objects() []fyne.CanvasObject {
	return []fyne.CanvasObject{r.ground, r.mark, r.img, r.text, r.badge}
}
func (r *railItemRenderer) Layout(s fyne.Size) {
	r.ground.Move(fyne.NewPos(8, 1))
	r.ground.Resize(fyne.NewSize(s.Width-16, s.Height-2))
	r.mark.Move(fyne.NewPos(8, 9))
	r.mark.Resize(fyne.NewSize(3, s.Height-18))
	r.img.Move(fyne.NewPos(20, (s.Height-18)/2))
	r.img.Resize(fyne.NewSquareSize(18))
	m := r.text.MinSize()
	r.text.Move(fyne.NewPos(48, (s.Height-m.Height)/2))
	r.text.Resize(m)
	m = r.badge.MinSize()
	r.badge.Move(fyne.NewPos(s.Width-20-m.Width, (s.Height-m.Height)/2))
	r.badge.Resize(m)
}
func (r *railItemRenderer) Refresh() {
	n := r.n
	front, pic := muted, muted
	r.ground.FillColor, r.ground.StrokeWidth, r.mark.FillColor = nil, 0, nil
	if n.active {
		front, pic = theme.ColorNameForeground, theme.ColorNamePrimary
		r.ground.FillColor, r.mark.FillColor = c(theme.ColorNameSelection), c(theme.ColorNamePrimary)
	} else if n.hover {
		r.ground.FillColor = c(theme.ColorNameHover)
	}
	if n.focused {
		r.ground.StrokeColor, r.ground.StrokeWidth = c(theme.ColorNamePrimary), 1.5
	}
	r.img.Resource = icon(n.entry.icon, pic)
	r.img.Refresh()
	r.text.Text, r.text.TextSize, r.text.Color, r.text.TextStyle.Bold = n.entry.label, 13, c(front), n.active
	r.badge.Text, r.badge.TextSize, r.badge.Color = n.badge, 11, c(muted)
	r.Layout(n.Size())
	canvas.Refresh(n)
}

func numberOf(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func countOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
