package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestNothingShowsIt(t *testing.T) {
	const text = "hunter2"
	s := New(text)
	inside := struct {
		Password Text
		password Text
		list     []Text
		at       *Text
	}{s, s, []Text{s}, &s}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+verb+verb+"\n", s, &s, inside)
	}
	for _, v := range []any{s, &s, inside, map[string]Text{"k": s}} {
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("said", "secret", s, "at", &s, "inside", inside)
	}
	fmt.Fprintln(&out, errors.New(s.String()), fmt.Errorf("login %v: %w", s, errors.ErrUnsupported))
	for _, form := range []string{text, fmt.Sprintf("%x", text), fmt.Sprint([]byte(text))} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q shows in:\n%s", form, out.String())
		}
	}
	if !strings.Contains(out.String(), shown) {
		t.Errorf("%s is nowhere in:\n%s", shown, out.String())
	}
	if s.RevealSecret() != text || s.IsZero() || !(Text{}).IsZero() || !New("").IsZero() || (Text{}).RevealSecret() != "" {
		t.Error("the secret itself is not what was kept")
	}
}
