package model

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/covedesk/cove/app/api"
	"github.com/docker/go-units"
)

// Bytes is a size for people, in the engine's decimal units.
func Bytes(n int64) string {
	if n < 0 {
		n = 0
	}
	return spaced(units.HumanSizeWithPrecision(float64(n), 3))
}

// Memory is an amount of memory for people, in binary units.
func Memory(n int64) string {
	return spaced(units.CustomSize("%.4g%s", float64(max(n, 0)), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB"}))
}

// spaced puts a space before the unit.
func spaced(s string) string {
	i := strings.IndexFunc(s, unicode.IsLetter)
	if i < 0 {
		return s
	}
	return s[:i] + " " + s[i:]
}

// Ago is how long ago something was.
func Ago(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := max(now.Sub(t), 0)
	plural := func(n int, unit string) string {
		if n == 1 {
			return "1 " + unit + " ago"
		}
		return strconv.Itoa(n) + " " + unit + "s ago"
	}
	switch {
	case d < 5*time.Second:
		return "just now"
	case d < time.Minute:
		return plural(int(d.Seconds()), "second")
	case d < time.Hour:
		return plural(int(d.Minutes()), "minute")
	case d < 48*time.Hour:
		return plural(int(d.Hours()), "hour")
	case d < 60*24*time.Hour:
		return plural(int(d.Hours()/24), "day")
	case d < 730*24*time.Hour:
		return plural(int(d.Hours()/24/30), "month")
	}
	return plural(int(d.Hours()/24/365), "year")
}

// status is the engine's sentence: "Up 3 hours (healthy)", "Exited (1) About a minute ago".
var status = regexp.MustCompile(`^(?:Up|Exited \(-?\d+\)|Restarting \(-?\d+\)|Dead|Removal In Progress)\s*(.*?)(?: ago)?(?: \([^)]*\))*$`)

var ageUnit = map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour,
	"week": 7 * 24 * time.Hour, "month": 30 * 24 * time.Hour, "year": 365 * 24 * time.Hour}

// age reads the time out of it: how long, and the words for it.
func age(s string) (time.Duration, string, bool) {
	m := status.FindStringSubmatch(s)
	if m == nil || m[1] == "" {
		return 0, "", false
	}
	switch text := m[1]; text {
	case "Less than a second":
		return 0, text, true
	case "About a minute":
		return time.Minute, text, true
	case "About an hour":
		return time.Hour, text, true
	default:
		var n int
		var unit string
		if _, err := fmt.Sscanf(text, "%d %s", &n, &unit); err != nil {
			return 0, "", false
		}
		d, ok := ageUnit[strings.TrimSuffix(unit, "s")]
		return time.Duration(n) * d, text, ok
	}
}

func humanAge(d time.Duration) string { return units.HumanDuration(d) }

// Plain is a text of somebody else's, such as a name or a label, that may be shown: without what steers terminals
// or turns the direction of writing.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, s)
}

// sentence is an error for people.
func sentence(err error) string {
	var e *api.Error
	if errors.As(err, &e) {
		return Plain(e.Error())
	}
	text := strings.TrimPrefix(Plain(err.Error()), "Error response from daemon: ")
	switch {
	case strings.Contains(text, "address already in use"), strings.Contains(text, "port is already allocated"):
		text += ". Stop what uses the port, or run it with another one."
	case strings.Contains(text, "image is being used by"), strings.Contains(text, "image is referenced"):
		text += ". Remove the containers first."
	}
	if text == "" {
		return "It did not work, and the engine does not say why."
	}
	r := []rune(text)
	r[0] = unicode.ToUpper(r[0])
	return string(r)
}

// safe are words that a shell takes as they are.
var safe = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// Quote makes a command line of words.
func Quote(words ...string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = w
		if !safe.MatchString(w) {
			out[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}
