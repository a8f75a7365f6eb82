package view

import (
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/theme"
)

// tipAfter is how long the pointer rests on a button before it says what it does.
const tipAfter = 600 * time.Millisecond

// tips is a layer over the window with what the button under the pointer does.
type tips struct {
	w     *Window
	layer *fyne.Container
	at    int // counts, so that a late one does not show
}

func newTips(w *Window) *tips { return &tips{w: w, layer: container.NewWithoutLayout()} }

// show says s below a place of an object, in a moment.
func (t *tips) show(o fyne.CanvasObject, below fyne.Position, s string) {
	t.hide()
	if s == "" || len(t.w.modals) > 0 {
		return
	}
	at := t.at
	time.AfterFunc(tipAfter, func() {
		t.w.do(func() {
			if at != t.at {
				return
			}
			words := newText(s, 12, theme.ColorNameForeground)
			ground := newBox(raised, theme.ColorNameInputBorder, 6)
			ground.shadow = true
			size := fyne.NewSize(words.wide()+20, 26)
			box := sized(size.Width, size.Height, container.NewStack(ground, padded(5, 10, 5, 10, words)))
			place := fyne.CurrentApp().Driver().AbsolutePositionForObject(o).Add(below)
			place.X = max(4, min(place.X-size.Width/2, t.layer.Size().Width-size.Width-4))
			if place.Y+size.Height > t.layer.Size().Height {
				place.Y -= size.Height + 44
			}
			box.Move(place)
			box.Resize(size)
			t.layer.Objects = []fyne.CanvasObject{box}
			t.layer.Refresh()
		})
	})
}

func (t *tips) hide() {
	t.at++
	if len(t.layer.Objects) > 0 {
		t.layer.Objects = nil
		t.layer.Refresh()
	}
}
