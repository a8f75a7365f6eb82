package model

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
)

// secret are names of variables whose values are not for every eye.
var secret = regexp.MustCompile(`(?i)(pass(word|wd|phrase)?|secret|token|credential|private|api_?key|access_?key|auth)`)

// masked stands for a value that is not shown.
const masked = "••••••"

// Inspected is what the engine said of a thing, as coloured lines. Values of variables that look like secrets are
// masked unless asked for.
func Inspected(b []byte, secrets bool) []string {
	var out bytes.Buffer
	if json.Indent(&out, b, "", "  ") != nil {
		return []string{string(b)}
	}
	lines := strings.Split(out.String(), "\n")
	inEnv := false
	for i, l := range lines {
		trimmed := strings.TrimSpace(l)
		switch {
		case strings.HasPrefix(trimmed, `"Env": [`):
			inEnv = !strings.Contains(trimmed, "]")
		case inEnv && strings.HasPrefix(trimmed, "]"):
			inEnv = false
		case inEnv && !secrets:
			if name, value, ok := strings.Cut(trimmed, "="); ok && secret.MatchString(name) && value != `"` && value != `",` {
				tail := `"`
				if strings.HasSuffix(trimmed, ",") {
					tail = `",`
				}
				l = l[:len(l)-len(trimmed)] + name + "=" + masked + tail
			}
		}
		lines[i] = colourJSON(l)
	}
	return lines
}

// One line of indented JSON: its key, its value, a comma.
var (
	keyed  = regexp.MustCompile(`^(\s*)("(?:[^"\\]|\\.)*")(: )(.*)$`)
	number = regexp.MustCompile(`^-?[0-9.eE+-]+,?$`)
)

func colourJSON(l string) string {
	const key, text, value, plain = "\x1b[34m", "\x1b[32m", "\x1b[35m", "\x1b[39m"
	paint := func(v string) string {
		switch {
		case strings.HasPrefix(v, `"`):
			return text + v + plain
		case number.MatchString(v), strings.HasPrefix(v, "true"), strings.HasPrefix(v, "false"), strings.HasPrefix(v, "null"):
			return value + v + plain
		}
		return v
	}
	if m := keyed.FindStringSubmatch(l); m != nil {
		return m[1] + key + m[2] + plain + m[3] + paint(m[4])
	}
	trimmed := strings.TrimLeft(l, " ")
	return l[:len(l)-len(trimmed)] + paint(trimmed)
}
