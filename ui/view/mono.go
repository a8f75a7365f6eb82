package view

import (
	"image"
	"image/color"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"github.com/covedesk/cove/ui/model"
	xfont "golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// A log's text is painted into one picture of the size of what is seen: Fyne keeps a texture for each string that it
// draws, up to a minute, which for a busy log comes to gigabytes.

const monoSize = 12 // of the letters, in Fyne's units

// run is a stretch of a row in one style.
type run struct {
	col, width  int
	text        string // none: ground only
	fore, back  color.Color
	bold, under bool
}

type glyphKey struct {
	r    rune
	bold bool
}

type glyph struct {
	mask   *image.Alpha
	dx, dy int
}

// mono paints rows of runs. All of it is on one goroutine.
type mono struct {
	raster *canvas.Raster
	rows   [][]run
	buf    *image.RGBA

	pixels        float64 // the size that the faces have
	regular, bold xfont.Face
	ascent        int
	advance       float64 // pixels
	glyphs        map[glyphKey]*glyph
}

func newMono() *mono {
	m := &mono{}
	m.raster = canvas.NewRaster(m.paint)
	m.faces(monoSize)
	return m
}

var regularFont, boldFont = parseFont("JetBrainsMono-Regular.ttf"), parseFont("JetBrainsMono-Bold.ttf")

func parseFont(name string) *opentype.Font {
	b, err := assets.ReadFile("assets/fonts/" + name)
	if err == nil {
		var f *opentype.Font
		if f, err = opentype.Parse(b); err == nil {
			return f
		}
	}
	panic(err) // it is built in
}

func (m *mono) faces(pixels float64) {
	if m.pixels == pixels {
		return
	}
	opts := &opentype.FaceOptions{Size: pixels, DPI: 72, Hinting: xfont.HintingNone}
	m.pixels, m.glyphs = pixels, map[glyphKey]*glyph{}
	var err error
	if m.regular, err = opentype.NewFace(regularFont, opts); err == nil {
		m.bold, err = opentype.NewFace(boldFont, opts)
	}
	if err != nil {
		panic(err) // the font is built in
	}
	m.ascent = m.regular.Metrics().Ascent.Ceil()
	a, _ := m.regular.GlyphAdvance('M')
	m.advance = float64(a) / 64
}

// cell is the room of a letter.
func (m *mono) cell() fyne.Size {
	return fyne.NewSize(float32(m.advance*monoSize/m.pixels), 17)
}

func (m *mono) set(rows [][]run) { m.rows = rows; m.raster.Refresh() }

func (m *mono) paint(w, h int) image.Image {
	if m.buf == nil || m.buf.Rect.Dx() != w || m.buf.Rect.Dy() != h {
		m.buf = image.NewRGBA(image.Rect(0, 0, w, h))
	}
	clear(m.buf.Pix)
	size := m.raster.Size()
	if size.Width <= 0 {
		return m.buf
	}
	scale := float64(w) / float64(size.Width)
	m.faces(monoSize * scale)
	cw, chh := m.advance, float64(m.cell().Height)*scale
	for y, row := range m.rows {
		top := float64(y) * chh
		if int(top) >= h {
			break
		}
		base := int(top) + m.ascent + int(chh-m.pixels*1.32)/2
		for _, r := range row {
			if r.back != nil {
				m.ground(image.Rect(int(float64(r.col)*cw), int(top), int(float64(r.col+r.width)*cw+.5), int(top+chh)), r.back)
			}
		}
		for _, r := range row {
			if r.text == "" {
				continue
			}
			col := r.col
			for _, ru := range r.text {
				if ru != ' ' && col >= 0 && float64(col)*cw < float64(w) {
					m.blit(m.glyph(ru, r.bold), int(float64(col)*cw+.5), base, r.fore)
				}
				col++
			}
			if r.under {
				m.ground(image.Rect(int(float64(r.col)*cw), base+2, int(float64(r.col+r.width)*cw), base+2+max(1, int(scale))), r.fore)
			}
		}
	}
	return m.buf
}

func (m *mono) glyph(r rune, bold bool) *glyph {
	k := glyphKey{r, bold}
	if g, ok := m.glyphs[k]; ok {
		return g
	}
	const most = 4096 // glyphs kept: a hostile log has all of Unicode
	if len(m.glyphs) > most {
		clear(m.glyphs)
	}
	face := m.regular
	if bold {
		face = m.bold
	}
	if _, ok := face.GlyphAdvance(r); !ok {
		r = '\ufffd'
	}
	var g *glyph
	if at, mask, from, _, ok := face.Glyph(fixed.P(0, 0), r); ok && !at.Empty() {
		a := image.NewAlpha(image.Rect(0, 0, at.Dx(), at.Dy()))
		for y := range at.Dy() {
			for x := range at.Dx() {
				_, _, _, alpha := mask.At(from.X+x, from.Y+y).RGBA()
				a.Pix[y*a.Stride+x] = uint8(alpha >> 8)
			}
		}
		g = &glyph{a, at.Min.X, at.Min.Y}
	}
	m.glyphs[k] = g
	return g
}

func (m *mono) ground(r image.Rectangle, fill color.Color) {
	r = r.Intersect(m.buf.Rect)
	R, G, B, A := fill.RGBA()
	rest := 255 - A>>8
	for y := r.Min.Y; y < r.Max.Y; y++ {
		p := m.buf.Pix[y*m.buf.Stride+r.Min.X*4 : y*m.buf.Stride+r.Max.X*4]
		for i := 0; i < len(p); i += 4 {
			p[i] = uint8(R>>8 + uint32(p[i])*rest/255)
			p[i+1] = uint8(G>>8 + uint32(p[i+1])*rest/255)
			p[i+2] = uint8(B>>8 + uint32(p[i+2])*rest/255)
			p[i+3] = uint8(A>>8 + uint32(p[i+3])*rest/255)
		}
	}
}

func (m *mono) blit(g *glyph, x, base int, fore color.Color) {
	if g == nil {
		return
	}
	n := color.NRGBAModel.Convert(fore).(color.NRGBA)
	x, y := x+g.dx, base+g.dy
	b := m.buf
	for row := range g.mask.Rect.Dy() {
		if y+row < 0 || y+row >= b.Rect.Max.Y {
			continue
		}
		for col, alpha := range g.mask.Pix[row*g.mask.Stride : row*g.mask.Stride+g.mask.Rect.Dx()] {
			if alpha == 0 || x+col < 0 || x+col >= b.Rect.Max.X {
				continue
			}
			p := b.Pix[(y+row)*b.Stride+(x+col)*4:]
			a := uint32(alpha) * uint32(n.A) / 255
			p[0] = uint8((uint32(n.R)*a + uint32(p[0])*(255-a)) / 255)
			p[1] = uint8((uint32(n.G)*a + uint32(p[1])*(255-a)) / 255)
			p[2] = uint8((uint32(n.B)*a + uint32(p[2])*(255-a)) / 255)
			p[3] = uint8(a + uint32(p[3])*(255-a)/255)
		}
	}
}

// Sixteen colours each for a dark and a light ground: those for one are too pale or too dark on the other.
var (
	darkPalette = [16]uint32{0x5C6880, 0xF2777A, 0x5FCB8F, 0xE8B65A, 0x6BA6FF, 0xC08CF0, 0x56C8D8, 0xD3DAE6,
		0x8793A9, 0xFF9A9C, 0x86E0AD, 0xFFD27F, 0x94C0FF, 0xD7B3FF, 0x84DFEC, 0xFFFFFF}
	lightPalette = [16]uint32{0x141B2A, 0xC0262D, 0x0C7A4A, 0x8A5A00, 0x1D5FD6, 0x7A3DB8, 0x0B7285, 0x4A566B,
		0x667187, 0xD1323A, 0x12804F, 0x9A5B00, 0x1D63ED, 0x8E4FD0, 0x0B7F95, 0x222B3C}
)

// ansi is a colour of a log on the ground that there is.
func ansi(k model.Colour, isDark bool) color.Color {
	switch i := k.Index - 1; {
	case k.True:
		return color.NRGBA{k.R, k.G, k.B, 255}
	case i < 0:
		return nil
	case i < 16 && isDark:
		return rgb(darkPalette[i])
	case i < 16:
		return rgb(lightPalette[i])
	case i >= 232:
		v := uint8(8 + (i-232)*10)
		return color.NRGBA{v, v, v, 255}
	default:
		step := func(n int) uint8 {
			if n == 0 {
				return 0
			}
			return uint8(55 + n*40)
		}
		i -= 16
		return color.NRGBA{step(i / 36), step(i / 6 % 6), step(i % 6), 255}
	}
}
