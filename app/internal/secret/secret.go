// Package secret keeps passwords, tokens and keys from being printed: whatever shows one shows [secret].
// Standard library only.
package secret

import (
	"fmt"
	"log/slog"
)

const shown = "[secret]"

// Text is a secret. It shows as [secret] by every verb of fmt, in JSON, in slog and in errors, also where it
// is a field of something that is shown. There is no way to read one from JSON.
type Text struct{ text *string } // behind a pointer: reflection that goes past the methods shows an address

// New keeps a secret.
func New(text string) Text { return Text{&text} }

// RevealSecret is the secret itself. The caller hands it on, and neither keeps nor shows it.
func (t Text) RevealSecret() string {
	if t.text == nil {
		return ""
	}
	return *t.text
}

// IsZero says whether there is none, or an empty one.
func (t Text) IsZero() bool { return t.text == nil || *t.text == "" }

func (Text) String() string               { return shown }
func (Text) GoString() string             { return shown }
func (Text) Format(f fmt.State, _ rune)   { fmt.Fprint(f, shown) }
func (Text) MarshalText() ([]byte, error) { return []byte(shown), nil }
func (Text) LogValue() slog.Value         { return slog.StringValue(shown) }
