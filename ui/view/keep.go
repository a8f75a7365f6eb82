package view

import (
	"encoding/json"
	"os"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/theme"
	"github.com/moby/sys/atomicwriter"
)

// Kept is what the window remembers over its end: its size, and the look if somebody chose one.
type Kept struct {
	path string

	Width  float32 `json:"width"`
	Height float32 `json:"height"`
	Look   string  `json:"look,omitempty"` // "dark" or "light"; empty: the system's
}

// Remember reads it from a file. What cannot be read is as if there were none.
func Remember(path string) *Kept {
	k := &Kept{path: path}
	if b, err := os.ReadFile(path); err != nil || json.Unmarshal(b, k) != nil || k.Width < minWidth || k.Height < minHeight {
		k.Width, k.Height = 1280, 800
	}
	return k
}

const minWidth, minHeight = 600, 400

// Size is the window's.
func (k *Kept) Size() fyne.Size { return fyne.NewSize(k.Width, k.Height) }

// Variant is the look that was chosen; nil is the system's.
func (k *Kept) Variant() *fyne.ThemeVariant {
	v := theme.VariantDark
	switch k.Look {
	case "light":
		v = theme.VariantLight
	case "dark":
	default:
		return nil
	}
	return &v
}

// Save writes it. That it cannot be written ends nothing: the window opens as it did before.
func (k *Kept) Save(look *fyne.ThemeVariant, size fyne.Size) {
	k.Width, k.Height = size.Width, size.Height
	if look != nil {
		k.Look = "light"
		if *look == theme.VariantDark {
			k.Look = "dark"
		}
	}
	if b, err := json.Marshal(k); err == nil {
		atomicwriter.WriteFile(k.path, append(b, '\n'), 0o600)
	}
}

// Icon is the program's.
func Icon() fyne.Resource { return icon("boxes", theme.ColorNamePrimary) }
