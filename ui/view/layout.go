package view

import (
	"image/color"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
)

// over mixes a colour that lets some through with the one under it.
func over(top, under color.Color) color.Color {
	r, g, b, a := top.RGBA()
	R, G, B, _ := under.RGBA()
	mix := func(t, u uint32) uint8 { return uint8((t + u*(0xffff-a)/0xffff) >> 8) }
	return color.NRGBA{mix(r, R), mix(g, G), mix(b, B), 0xff}
}

// row lays its objects out from left to right, each in its least width and in the middle of the height; spring ones
// share what is left. The order is that of the Tab key.
type row struct {
	gap    float32
	spring map[fyne.CanvasObject]bool
}

func newRow(gap float32, objects ...fyne.CanvasObject) *fyne.Container {
	return container.New(&row{gap: gap, spring: springs(objects)}, objects...)
}

// spring marks an object that takes the room that is left.
type spring struct{ fyne.CanvasObject }

func springs(objects []fyne.CanvasObject) map[fyne.CanvasObject]bool {
	m := map[fyne.CanvasObject]bool{}
	for i, o := range objects {
		if s, ok := o.(spring); ok {
			objects[i] = s.CanvasObject
			m[s.CanvasObject] = true
		}
	}
	return m
}

func least(o fyne.CanvasObject) fyne.Size {
	m := o.MinSize()
	if t, ok := o.(*text); ok {
		m.Width = t.wide()
	}
	return m
}

func (l *row) MinSize(objects []fyne.CanvasObject) fyne.Size {
	var s fyne.Size
	for _, o := range objects {
		if o.Visible() {
			m := least(o)
			if l.spring[o] {
				m.Width = o.MinSize().Width
			}
			s.Width += m.Width + l.gap
			s.Height = max(s.Height, m.Height)
		}
	}
	s.Width = max(0, s.Width-l.gap)
	return s
}

func (l *row) Layout(objects []fyne.CanvasObject, size fyne.Size) {
	left, n := size.Width, 0
	for _, o := range objects {
		if !o.Visible() {
			continue
		}
		left -= l.gap
		if l.spring[o] {
			n++
		} else {
			left -= least(o).Width
		}
	}
	left = max(0, left+l.gap)
	var x float32
	for _, o := range objects {
		if !o.Visible() {
			continue
		}
		m := least(o)
		if l.spring[o] {
			m.Width = left / float32(n)
		}
		o.Move(fyne.NewPos(x, (size.Height-m.Height)/2))
		o.Resize(m)
		x += m.Width + l.gap
	}
}

// column lays its objects out from top to bottom over the whole width; spring ones share the height that is left.
type column struct {
	gap    float32
	spring map[fyne.CanvasObject]bool
}

func newColumn(gap float32, objects ...fyne.CanvasObject) *fyne.Container {
	return container.New(&column{gap: gap, spring: springs(objects)}, objects...)
}

func (l *column) MinSize(objects []fyne.CanvasObject) fyne.Size {
	var s fyne.Size
	for _, o := range objects {
		if o.Visible() {
			m := o.MinSize()
			s.Width = max(s.Width, m.Width)
			s.Height += m.Height + l.gap
		}
	}
	s.Height = max(0, s.Height-l.gap)
	return s
}

func (l *column) Layout(objects []fyne.CanvasObject, size fyne.Size) {
	left, n := size.Height, 0
	for _, o := range objects {
		if !o.Visible() {
			continue
		}
		left -= l.gap
		if l.spring[o] {
			n++
		} else {
			left -= o.MinSize().Height
		}
	}
	left = max(0, left+l.gap)
	var y float32
	for _, o := range objects {
		if !o.Visible() {
			continue
		}
		h := o.MinSize().Height
		if l.spring[o] {
			h = left / float32(n)
		}
		o.Move(fyne.NewPos(0, y))
		o.Resize(fyne.NewSize(size.Width, h))
		y += h + l.gap
	}
}

// pad leaves room around an object: top, right, bottom, left.
type pad struct{ t, r, b, l float32 }

func padded(t, r, b, l float32, o fyne.CanvasObject) *fyne.Container {
	return container.New(&pad{t, r, b, l}, o)
}

func (p *pad) MinSize(o []fyne.CanvasObject) fyne.Size {
	return o[0].MinSize().AddWidthHeight(p.l+p.r, p.t+p.b)
}
func (p *pad) Layout(o []fyne.CanvasObject, s fyne.Size) {
	o[0].Move(fyne.NewPos(p.l, p.t))
	o[0].Resize(s.SubtractWidthHeight(p.l+p.r, p.t+p.b))
}

// ownSize gives an object a size of its own; 0 leaves it as it is.
type ownSize struct{ w, h float32 }

func sized(w, h float32, o fyne.CanvasObject) *fyne.Container {
	return container.New(&ownSize{w, h}, o)
}

func (f *ownSize) MinSize(o []fyne.CanvasObject) fyne.Size {
	m := o[0].MinSize()
	if f.w > 0 {
		m.Width = f.w
	}
	if f.h > 0 {
		m.Height = f.h
	}
	return m
}
func (f *ownSize) Layout(o []fyne.CanvasObject, s fyne.Size) { o[0].Resize(s) }

// columns are side by side, each as wide as the others.
type columns struct{ gap float32 }

func newColumns(gap float32, objects ...fyne.CanvasObject) *fyne.Container {
	return container.New(&columns{gap}, objects...)
}

func (l *columns) MinSize(objects []fyne.CanvasObject) fyne.Size {
	var s fyne.Size
	for _, o := range objects {
		s = s.Max(o.MinSize())
	}
	n := float32(len(objects))
	return fyne.NewSize(s.Width*n+l.gap*(n-1), s.Height)
}

func (l *columns) Layout(objects []fyne.CanvasObject, size fyne.Size) {
	n := float32(len(objects))
	w := (size.Width - l.gap*(n-1)) / n
	for i, o := range objects {
		o.Move(fyne.NewPos(float32(i)*(w+l.gap), 0))
		o.Resize(fyne.NewSize(w, size.Height))
	}
}
