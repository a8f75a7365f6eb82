package protocol

import (
	"encoding/json"
	"fmt"
	"log/slog"
)

// Secret is a text that may hold a password or a key, so it prints as [secret]. On the wire it is itself.
type Secret struct{ text string }

// NewSecret keeps a text.
func NewSecret(text string) Secret { return Secret{text} }

// RevealSecret gives the text.
func (s Secret) RevealSecret() string { return s.text }

func (Secret) String() string             { return "[secret]" }
func (Secret) GoString() string           { return "[secret]" }
func (Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, "[secret]") }
func (Secret) LogValue() slog.Value       { return slog.StringValue("[secret]") }

// IsZero says whether there is none.
func (s Secret) IsZero() bool { return s.text == "" }

// MarshalJSON and UnmarshalJSON are for the control port alone.
func (s Secret) MarshalJSON() ([]byte, error)     { return json.Marshal(s.text) }
func (s *Secret) UnmarshalJSON(text []byte) error { return json.Unmarshal(text, &s.text) }
