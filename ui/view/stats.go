package view

import (
	"fmt"
	"image"
	"image/color"
	"math"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/driver/desktop"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"
	"github.com/covedesk/cove/ui/model"
	"golang.org/x/image/vector"
)

// statsView is a container's numbers of the last two minutes.
type statsView struct {
	all    fyne.CanvasObject
	charts [4]*chart
}

func newStatsView() *statsView {
	s := &statsView{}
	per := func(v float64) string { return fmt.Sprintf("%.1f %%", v) }
	mem := func(v float64) string { return model.Memory(int64(v)) }
	rate := func(v float64) string { return model.Bytes(int64(v)) + "/s" }
	s.charts = [4]*chart{newChart("CPU", theme.ColorNamePrimary, per, 10), newChart("Memory", theme.ColorNameSuccess, mem, 1<<20),
		newChart("Network, received and sent", theme.ColorNameWarning, rate, 1000), newChart("Disk, read and written", theme.ColorNameHyperlink, rate, 1000)}
	s.all = container.NewGridWithColumns(2, s.charts[0], s.charts[1], s.charts[2], s.charts[3])
	return s
}

func (s *statsView) show(k *model.Container, history []model.Stats) {
	values := [4][]float64{}
	for _, h := range history {
		for i, v := range []float64{h.CPU, float64(h.Memory), h.Received + h.Sent, h.Reads + h.Writes} {
			values[i] = append(values[i], v)
		}
	}
	for i, ch := range s.charts {
		ch.values = values[i]
		ch.Refresh()
	}
}

// chart is a line over time, with its value under the pointer.
type chart struct {
	widget.BaseWidget
	title  string
	colour fyne.ThemeColorName
	words  func(float64) string
	least  float64 // that the scale goes up to
	values []float64
	at     float32 // of the pointer; below 0: none
}

const chartSpan = 120 // values over the whole width

func newChart(title string, colour fyne.ThemeColorName, words func(float64) string, least float64) *chart {
	ch := &chart{title: title, colour: colour, words: words, least: least, at: -1}
	ch.ExtendBaseWidget(ch)
	return ch
}

func (ch *chart) MouseIn(e *desktop.MouseEvent)    { ch.MouseMoved(e) }
func (ch *chart) MouseMoved(e *desktop.MouseEvent) { ch.at = e.Position.X; ch.Refresh() }
func (ch *chart) MouseOut()                        { ch.at = -1; ch.Refresh() }

func (ch *chart) top() float64 {
	top := ch.least
	for _, v := range ch.values {
		top = max(top, v)
	}
	return top * 1.15
}

func (ch *chart) CreateRenderer() fyne.WidgetRenderer {
	r := &chartRenderer{ch: ch, ground: canvas.NewRectangle(nil), title: canvas.NewText("", nil), value: canvas.NewText("", nil), tip: canvas.NewText("", nil), scale: canvas.NewText("", nil), hair: canvas.NewRectangle(nil)}
	r.raster = canvas.NewRaster(r.paint)
	for i := range r.lines {
		r.lines[i] = canvas.NewRectangle(nil)
	}
	r.Refresh()
	return r
}

type chartRenderer struct {
	ch                       *chart
	ground, hair             *canvas.Rectangle
	title, value, tip, scale *canvas.Text
	lines                    [3]*canvas.Rectangle
	raster                   *canvas.Raster
}

func (r *chartRenderer) Destroy()           {}
func (r *chartRenderer) MinSize() fyne.Size { return fyne.NewSize(180, 130) }
func (r *chartRenderer) Objects() []fyne.CanvasObject {
	return []fyne.CanvasObject{r.ground, r.lines[0], r.lines[1], r.lines[2], r.raster, r.hair, r.title, r.value, r.tip, r.scale}
}

const chartHead, chartSide = 58, 14

func (r *chartRenderer) Layout(s fyne.Size) {
	r.ground.Resize(s)
	r.title.Move(fyne.NewPos(chartSide, 10))
	r.value.Move(fyne.NewPos(chartSide, 26))
	plot := fyne.NewSize(s.Width-2*chartSide, s.Height-chartHead-14)
	r.raster.Move(fyne.NewPos(chartSide, chartHead))
	r.raster.Resize(plot)
	for i, l := range r.lines {
		l.Move(fyne.NewPos(chartSide, chartHead+plot.Height*float32(i)/2))
		l.Resize(fyne.NewSize(plot.Width, 1))
	}
	m := r.scale.MinSize()
	r.scale.Move(fyne.NewPos(s.Width-chartSide-m.Width, chartHead-m.Height-1))
	t := r.tip.MinSize()
	r.tip.Move(fyne.NewPos(s.Width-chartSide-t.Width, 12))
}

func (r *chartRenderer) Refresh() {
	ch := r.ch
	r.ground.FillColor, r.ground.StrokeColor, r.ground.StrokeWidth, r.ground.CornerRadius = c(surface), c(theme.ColorNameSeparator), 1, 10
	r.title.Text, r.title.TextSize, r.title.Color = ch.title, 12, c(muted)
	r.value.Text, r.value.TextSize, r.value.Color, r.value.TextStyle.Bold = wordNone, 20, c(theme.ColorNameForeground), true
	r.scale.Text, r.scale.TextSize, r.scale.Color = ch.words(ch.top()), 11, c(muted)
	for _, l := range r.lines {
		l.FillColor = c(theme.ColorNameSeparator)
	}
	r.hair.Hide()
	r.tip.Hide()
	if n := len(ch.values); n > 0 {
		r.value.Text = ch.words(ch.values[n-1])
		plot := r.raster.Size()
		if ch.at >= chartSide && ch.at <= chartSide+plot.Width && plot.Width > 0 {
			i := int(math.Round(float64((ch.at-chartSide)/plot.Width*(chartSpan-1)))) - (chartSpan - n)
			if i >= 0 && i < n {
				r.tip.Text, r.tip.TextSize, r.tip.Color = fmt.Sprintf("%s, %d s ago", ch.words(ch.values[i]), n-1-i), 11, c(theme.ColorNameForeground)
				r.hair.FillColor = c(muted)
				r.hair.Move(fyne.NewPos(ch.at, chartHead))
				r.hair.Resize(fyne.NewSize(1, plot.Height))
				r.hair.Show()
				r.tip.Show()
			}
		}
	}
	r.Layout(ch.Size())
	r.raster.Refresh()
	canvas.Refresh(ch)
}

// paint draws the line and what is below it.
func (r *chartRenderer) paint(w, h int) image.Image {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	d := r.ch.values
	if len(d) < 2 || w < 4 || h < 4 {
		return img
	}
	step := float32(w) / (chartSpan - 1)
	left := float32(w) - step*float32(len(d)-1)
	thick := max(1.2, float32(h)/130)
	top := r.ch.top()
	y := func(i int) float32 {
		return float32(h) - thick - float32(d[i]/top)*(float32(h)-2*thick)
	}
	area, edge := vector.NewRasterizer(w, h), vector.NewRasterizer(w, h)
	area.MoveTo(left, float32(h))
	for i := range d {
		area.LineTo(left+step*float32(i), y(i))
	}
	area.LineTo(float32(w), float32(h))
	area.ClosePath()
	// One outline for the whole line, so that it has no knots where its pieces meet.
	nx, ny := make([]float32, len(d)), make([]float32, len(d)) // how far the line's sides are from its middle
	for i := range d {
		a, b := max(i-1, 0), min(i+1, len(d)-1)
		dx, dy := step*float32(b-a), y(b)-y(a)
		long := float32(math.Hypot(float64(dx), float64(dy)))
		nx[i], ny[i] = -dy/long*thick, dx/long*thick
	}
	edge.MoveTo(left-nx[0], y(0)-ny[0])
	for i := 1; i < len(d); i++ {
		edge.LineTo(left+step*float32(i)-nx[i], y(i)-ny[i])
	}
	for i := len(d) - 1; i >= 0; i-- {
		edge.LineTo(left+step*float32(i)+nx[i], y(i)+ny[i])
	}
	edge.ClosePath()
	n := color.NRGBAModel.Convert(c(r.ch.colour)).(color.NRGBA)
	area.Draw(img, img.Bounds(), image.NewUniform(color.NRGBA{n.R, n.G, n.B, 40}), image.Point{})
	edge.Draw(img, img.Bounds(), image.NewUniform(n), image.Point{})
	return img
}
