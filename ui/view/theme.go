// Package view draws Cove's window from what ui/model says. It does not import Fyne's app package, so its tests need
// neither cgo nor a display. Everything in it runs on Fyne's goroutine, unless a comment says otherwise.
package view

import (
	"embed"
	"fmt"
	"image/color"
	"regexp"
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/theme"
	"github.com/covedesk/cove/ui/model"
)

//go:embed assets/fonts/*.otf assets/fonts/*.ttf assets/icons/*.svg
var assets embed.FS

// Colours beside Fyne's own.
const (
	surface  fyne.ThemeColorName = "cove-surface"  // lists and cards
	raised   fyne.ThemeColorName = "cove-raised"   // headers, chips, toasts
	railTint fyne.ThemeColorName = "cove-rail"     // the navigation
	muted    fyne.ThemeColorName = "cove-muted"    // secondary text
	faint    fyne.ThemeColorName = "cove-faint"    // decoration; never text that matters
	fill     fyne.ThemeColorName = "cove-fill"     // of the first button, under white text
	fillBad  fyne.ThemeColorName = "cove-fill-bad" // of a button that destroys
	paper    fyne.ThemeColorName = "cove-paper"    // under logs
	ink      fyne.ThemeColorName = "cove-ink"      // of logs
	hit      fyne.ThemeColorName = "cove-hit"      // under what a search found
	thisHit  fyne.ThemeColorName = "cove-this-hit"
)

func rgb(h uint32) color.Color { return rgba(h, 0xff) }
func rgba(h uint32, a uint8) color.Color {
	return color.NRGBA{uint8(h >> 16), uint8(h >> 8), uint8(h), a}
}

var dark = map[fyne.ThemeColorName]color.Color{
	theme.ColorNameBackground: rgb(0x0E131B), surface: rgb(0x151B26), raised: rgb(0x1B2331), railTint: rgb(0x0A0E15),
	theme.ColorNameForeground: rgb(0xE6EBF4), muted: rgb(0x97A3B8), faint: rgb(0x64708A),
	theme.ColorNamePrimary: rgb(0x3D8BFF), fill: rgb(0x2563EB), fillBad: rgb(0xD1323A),
	theme.ColorNameForegroundOnPrimary: rgb(0xFFFFFF), theme.ColorNameButton: rgb(0x222C3D), theme.ColorNameDisabledButton: rgb(0x1A212D),
	theme.ColorNameDisabled: rgb(0x64708A), theme.ColorNameInputBackground: rgb(0x111722), theme.ColorNameInputBorder: rgb(0x5E6D88),
	theme.ColorNameSeparator: rgb(0x232D3D), theme.ColorNameHover: rgba(0xFFFFFF, 0x0D), theme.ColorNamePressed: rgba(0xFFFFFF, 0x1A),
	theme.ColorNameFocus: rgba(0x3D8BFF, 0x40), theme.ColorNameSelection: rgba(0x3D8BFF, 0x38),
	theme.ColorNameMenuBackground: rgb(0x1B2331), theme.ColorNameOverlayBackground: rgb(0x171E2A), theme.ColorNameHeaderBackground: rgb(0x1B2331),
	theme.ColorNamePlaceHolder: rgb(0x8793A9), theme.ColorNameScrollBar: rgba(0xFFFFFF, 0x38), theme.ColorNameScrollBarBackground: color.Transparent,
	theme.ColorNameShadow: rgba(0x000000, 0x70), theme.ColorNameSuccess: rgb(0x2EC27E), theme.ColorNameWarning: rgb(0xF5A524),
	theme.ColorNameError: rgb(0xF2555A), theme.ColorNameHyperlink: rgb(0x6BA6FF),
	paper: rgb(0x0A0E15), ink: rgb(0xD3DAE6), hit: rgba(0xF5A524, 0x50), thisHit: rgba(0xF5A524, 0xB0),
}

var light = map[fyne.ThemeColorName]color.Color{
	theme.ColorNameBackground: rgb(0xF4F6F9), surface: rgb(0xFFFFFF), raised: rgb(0xF0F3F7), railTint: rgb(0xE9EDF3),
	theme.ColorNameForeground: rgb(0x141B2A), muted: rgb(0x566178), faint: rgb(0x8590A6),
	theme.ColorNamePrimary: rgb(0x1D63ED), fill: rgb(0x1D63ED), fillBad: rgb(0xD1323A),
	theme.ColorNameForegroundOnPrimary: rgb(0xFFFFFF), theme.ColorNameButton: rgb(0xE3E8F0), theme.ColorNameDisabledButton: rgb(0xEEF1F5),
	theme.ColorNameDisabled: rgb(0x8590A6), theme.ColorNameInputBackground: rgb(0xFFFFFF), theme.ColorNameInputBorder: rgb(0x7F8BA0),
	theme.ColorNameSeparator: rgb(0xE1E6EE), theme.ColorNameHover: rgba(0x0B1B33, 0x0C), theme.ColorNamePressed: rgba(0x0B1B33, 0x18),
	theme.ColorNameFocus: rgba(0x1D63ED, 0x33), theme.ColorNameSelection: rgba(0x1D63ED, 0x24),
	theme.ColorNameMenuBackground: rgb(0xFFFFFF), theme.ColorNameOverlayBackground: rgb(0xFFFFFF), theme.ColorNameHeaderBackground: rgb(0xF0F3F7),
	theme.ColorNamePlaceHolder: rgb(0x667187), theme.ColorNameScrollBar: rgba(0x0B1B33, 0x48), theme.ColorNameScrollBarBackground: color.Transparent,
	theme.ColorNameShadow: rgba(0x0B1B33, 0x30), theme.ColorNameSuccess: rgb(0x12905A), theme.ColorNameWarning: rgb(0xB86E00),
	theme.ColorNameError: rgb(0xD1323A), theme.ColorNameHyperlink: rgb(0x1D63ED),
	paper: rgb(0xFBFCFE), ink: rgb(0x222B3C), hit: rgba(0xF5A524, 0x55), thisHit: rgba(0xF5A524, 0xC0),
}

// Theme is Cove's look. Variant, if it is set, holds in place of the system's.
type Theme struct{ Variant *fyne.ThemeVariant }

var _ fyne.Theme = (*Theme)(nil)

// Color is a colour of the variant.
func (t *Theme) Color(n fyne.ThemeColorName, v fyne.ThemeVariant) color.Color {
	if t.Variant != nil {
		v = *t.Variant
	}
	m := light
	if v == theme.VariantDark {
		m = dark
	}
	if c, ok := m[n]; ok {
		return c
	}
	return theme.DefaultTheme().Color(n, v)
}

var fonts = map[string]fyne.Resource{}

func font(name string) fyne.Resource {
	if r, ok := fonts[name]; ok {
		return r
	}
	b, err := assets.ReadFile("assets/fonts/" + name)
	if err != nil {
		panic(err) // it is built in
	}
	fonts[name] = fyne.NewStaticResource(name, b)
	return fonts[name]
}

// Font is Inter, or JetBrains Mono without ligatures.
func (t *Theme) Font(s fyne.TextStyle) fyne.Resource {
	switch {
	case s.Symbol:
		return theme.DefaultTheme().Font(s)
	case s.Monospace && s.Bold:
		return font("JetBrainsMono-Bold.ttf")
	case s.Monospace:
		return font("JetBrainsMono-Regular.ttf")
	case s.Bold:
		return font("Inter-SemiBold.otf")
	}
	return font("Inter-Regular.otf")
}

// Icon is one of Fyne's own, for its widgets.
func (t *Theme) Icon(n fyne.ThemeIconName) fyne.Resource { return theme.DefaultTheme().Icon(n) }

// Size is one of the sizes in the grid of 4.
func (t *Theme) Size(n fyne.ThemeSizeName) float32 {
	switch n {
	case theme.SizeNameText:
		return 13
	case theme.SizeNameCaptionText:
		return 11
	case theme.SizeNameHeadingText:
		return 20
	case theme.SizeNamePadding, theme.SizeNameScrollBarSmall, theme.SizeNameScrollBarRadius:
		return 4
	case theme.SizeNameInnerPadding:
		return 7
	case theme.SizeNameInlineIcon:
		return 16
	case theme.SizeNameInputRadius, theme.SizeNameButtonRadius, theme.SizeNameSelectionRadius:
		return 6
	case theme.SizeNameCardRadius, theme.SizeNameScrollBar:
		return 10
	case theme.SizeNameDialogRadius, theme.SizeNamePopupRadius:
		return 12
	case theme.SizeNameSeparatorThickness:
		return 1
	}
	return theme.DefaultTheme().Size(n)
}

// c is a colour as it is now.
func c(n fyne.ThemeColorName) color.Color { return theme.Color(n) }

// toneColour is the colour of a state.
func toneColour(t model.Tone) fyne.ThemeColorName {
	switch t {
	case model.Good:
		return theme.ColorNameSuccess
	case model.Busy:
		return theme.ColorNamePrimary
	case model.Warning:
		return theme.ColorNameWarning
	case model.Bad:
		return theme.ColorNameError
	}
	return muted
}

var icons = map[string]fyne.Resource{}

// icon is a Lucide icon in a colour. Fyne's own way of colouring knows fills only, and keeps pictures by name: so the
// colour is in the name.
func icon(name string, colour fyne.ThemeColorName) fyne.Resource {
	n := color.NRGBAModel.Convert(c(colour)).(color.NRGBA)
	hex := fmt.Sprintf("#%02x%02x%02x", n.R, n.G, n.B)
	key := name + hex + ".svg"
	if r, ok := icons[key]; ok {
		return r
	}
	b, err := assets.ReadFile("assets/icons/" + name + ".svg")
	if err != nil {
		panic(err) // it is built in
	}
	icons[key] = fyne.NewStaticResource(key, []byte(splitArcs(strings.ReplaceAll(string(b), "currentColor", hex))))
	return icons[key]
}

var (
	pathData = regexp.MustCompile(` d="[^"]*"`)
	arcs     = regexp.MustCompile(`([aA])([^a-zA-Z"]+)`)
	numbers  = regexp.MustCompile(`[-+]?(?:\d*\.\d+|\d+)(?:[eE][-+]?\d+)?`)
)

// splitArcs gives each arc of a path a command of its own: oksvg 0.2.0 draws the second and later arcs of one command
// with the numbers of the first.
func splitArcs(svg string) string {
	return pathData.ReplaceAllStringFunc(svg, func(d string) string {
		return arcs.ReplaceAllStringFunc(d, func(a string) string {
			n := numbers.FindAllString(a[1:], -1)
			if len(n)%7 != 0 || len(n) == 7 {
				return a
			}
			var b strings.Builder
			for i := 0; i < len(n); i += 7 {
				b.WriteString(a[:1] + strings.Join(n[i:i+7], " ") + " ")
			}
			return b.String()
		})
	})
}
