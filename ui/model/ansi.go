package model

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Colour is one of the palette's, one more than its number so that the zero value is none: 1 to 16 the classic ones,
// up to 256 xterm's; or a colour of its own with True set.
type Colour struct {
	Index   int
	True    bool
	R, G, B uint8
}

// Span is a stretch of a line in one style.
type Span struct {
	Text                     string
	Fore, Back               Colour
	Bold, Faint, Under, Flip bool
}

const tab = 8

// Parse reads a line with its escape sequences: colours count, everything else that would steer a terminal is left
// out. Bytes that are no text show as �, so that nothing hides.
func Parse(line string) []Span {
	var out []Span
	var style Span
	var text strings.Builder
	col := 0
	end := func() {
		if text.Len() > 0 {
			s := style
			s.Text = text.String()
			out = append(out, s)
			text.Reset()
		}
	}
	for i := 0; i < len(line); {
		r, n := utf8.DecodeRuneInString(line[i:])
		switch {
		case r == 0x1b:
			final, args, length := escape(line[i:])
			i += length
			if final == 'm' {
				end()
				style.apply(args)
			}
			continue
		case r == '\t':
			for k := tab - col%tab; k > 0; k-- {
				text.WriteByte(' ')
				col++
			}
		case r == '\r':
			if i+n < len(line) { // progress bars write over themselves: the last writing is what stands
				out, col = nil, 0
				text.Reset()
			}
		case r == utf8.RuneError && n == 1:
			text.WriteRune(utf8.RuneError)
			col++
		case unicode.IsControl(r):
		case unicode.Is(unicode.Cf, r), unicode.Is(unicode.Mn, r): // turns the direction, or sits on the letter before
		default:
			text.WriteRune(r)
			col++
		}
		i += n
	}
	end()
	return out
}

// Clean is a line as it reads, without escape sequences.
func Clean(line string) string {
	if !strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
		return line
	}
	var b strings.Builder
	for _, s := range Parse(line) {
		b.WriteString(s.Text)
	}
	return b.String()
}

// escape measures an escape sequence: its final byte (0 for one that is no CSI), its arguments, its length.
func escape(s string) (final byte, args string, length int) {
	if len(s) < 2 {
		return 0, "", len(s)
	}
	switch s[1] {
	case '[':
		for i := 2; i < len(s); i++ {
			if c := s[i]; c >= 0x40 && c <= 0x7e {
				return c, s[2:i], i + 1
			} else if c < 0x20 || c > 0x7e {
				return 0, "", i
			}
		}
		return 0, "", len(s)
	case ']', 'P', 'X', '^', '_': // a string, up to BEL or ST
		for i := 2; i < len(s); i++ {
			if s[i] == 7 {
				return 0, "", i + 1
			}
			if s[i] == 0x1b {
				if i+1 < len(s) && s[i+1] == '\\' {
					return 0, "", i + 2
				}
				return 0, "", i
			}
		}
		return 0, "", len(s)
	}
	for i := 1; i < len(s); i++ { // intermediates, then one final byte
		if s[i] >= 0x30 && s[i] <= 0x7e {
			return 0, "", i + 1
		} else if s[i] < 0x20 || s[i] > 0x7e {
			return 0, "", i
		}
	}
	return 0, "", len(s)
}

// apply is Select Graphic Rendition (ECMA-48, 8.3.117).
func (s *Span) apply(args string) {
	var n []int
	for _, a := range strings.FieldsFunc(args+";", func(r rune) bool { return r == ':' }) {
		for _, b := range strings.Split(strings.TrimSuffix(a, ";"), ";") {
			v, _ := strconv.Atoi(b)
			n = append(n, v)
		}
	}
	for i := 0; i < len(n); i++ {
		switch v := n[i]; {
		case v == 0:
			*s = Span{}
		case v == 1:
			s.Bold = true
		case v == 2:
			s.Faint = true
		case v == 4:
			s.Under = true
		case v == 7:
			s.Flip = true
		case v == 22:
			s.Bold, s.Faint = false, false
		case v == 24:
			s.Under = false
		case v == 27:
			s.Flip = false
		case v >= 30 && v <= 37:
			s.Fore = Colour{Index: v - 29}
		case v == 39:
			s.Fore = Colour{}
		case v >= 40 && v <= 47:
			s.Back = Colour{Index: v - 39}
		case v == 49:
			s.Back = Colour{}
		case v >= 90 && v <= 97:
			s.Fore = Colour{Index: v - 81}
		case v >= 100 && v <= 107:
			s.Back = Colour{Index: v - 91}
		case v == 38 || v == 48:
			c, used := extended(n[i+1:])
			i += used
			if v == 38 {
				s.Fore = c
			} else {
				s.Back = c
			}
		}
	}
}

func extended(n []int) (Colour, int) {
	switch {
	case len(n) >= 2 && n[0] == 5:
		return Colour{Index: n[1]&255 + 1}, 2
	case len(n) >= 4 && n[0] == 2:
		return Colour{True: true, R: uint8(n[1]), G: uint8(n[2]), B: uint8(n[3])}, 4
	}
	return Colour{}, len(n)
}
