package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/client"
	"golang.org/x/term"
)

// isTerminal says whether a file is one.
func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// Colours, for terminals only: no-color.org.
const (
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
	amber = "33"
)

// colour dresses a text if the file is a terminal and the user wants colours.
func colour(f *os.File, code, text string) string {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || !isTerminal(f) {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// evidenceLines is how much of the evidence is shown; `cove status --json` has all.
const evidenceLines = 12

// explain says what happened, why, and what to do.
func explain(f *os.File, err error) {
	var e *api.Error
	if !errors.As(err, &e) {
		fmt.Fprintln(f, colour(f, red, "cove:"), err)
		if errors.Is(err, client.ErrNoDaemon) {
			fmt.Fprintln(f, "Start it with `cove start`.")
		}
		return
	}
	fmt.Fprintln(f, colour(f, red, "cove:"), e.Summary)
	explainMore(f, e.Failure)
}

func explainMore(f *os.File, e api.Failure) {
	if e.Evidence != "" {
		lines := strings.Split(strings.TrimSpace(e.Evidence), "\n")
		if extra := len(lines) - evidenceLines; extra > 0 {
			lines = lines[extra:]
		}
		for _, l := range lines {
			fmt.Fprintln(f, colour(f, faint, "    "+printable(l)))
		}
	}
	if e.Remedy != "" {
		fmt.Fprintln(f, e.Remedy)
	}
}

// printable keeps what the guest printed from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}

// printJSON is the form for programs.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%.0f GiB", float64(n)/(1<<30))
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}
