package model

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
)

// Limits of a log that is shown.
const (
	maxLines = 100_000
	maxBytes = 64 << 20 // of lines, so that long ones do not take the machine's memory
	maxLine  = 16 << 10 // of a line that is kept; nobody reads further, and says how much is missing
)

// Entry is a line of a log as the program wrote it, escape sequences included.
type Entry struct {
	At   time.Time
	Text string
	Err  bool // of the error stream
}

// Log keeps the last lines of a log. Its methods may be called from any goroutine.
type Log struct {
	mu      sync.Mutex
	lines   []Entry
	start   int // the first that is kept
	bytes   int
	dropped int // lines before the first
	longest int // columns, of all there were
	waits   string
	touch   func()
}

// NewLog returns an empty one that calls touch, often, when it has grown.
func NewLog(touch func()) *Log { return &Log{touch: touch} }

// Add appends a line.
func (l *Log) Add(e Entry) {
	if extra := len(e.Text) - maxLine; extra > 0 {
		cut := maxLine
		for cut > 0 && !utf8.RuneStart(e.Text[cut]) {
			cut--
		}
		e.Text = fmt.Sprintf("%s\x1b[0m … and %s more", e.Text[:cut], Bytes(int64(extra)))
	}
	l.mu.Lock()
	l.longest = max(l.longest, utf8.RuneCountInString(e.Text))
	l.lines = append(l.lines, e)
	l.bytes += len(e.Text)
	for len(l.lines)-l.start > maxLines || l.bytes > maxBytes && len(l.lines)-l.start > 1 {
		l.bytes -= len(l.lines[l.start].Text)
		l.lines[l.start] = Entry{}
		l.start++
		l.dropped++
	}
	if l.start > len(l.lines)/2 && l.start > 1024 {
		l.lines = append(make([]Entry, 0, len(l.lines)), l.lines[l.start:]...)
		l.start = 0
	}
	l.mu.Unlock()
	l.touch()
}

// Size is how many lines there are, how many were dropped before them, and how many columns the longest had.
func (l *Log) Size() (n, dropped, longest int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines) - l.start, l.dropped, l.longest
}

// Lines are those from first on, n at the most.
func (l *Log) Lines(first, n int) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := l.lines[l.start:]
	first = max(first, 0)
	if first >= len(kept) {
		return nil
	}
	return slices.Clone(kept[first:min(first+n, len(kept))])
}

// Clear forgets what came so far.
func (l *Log) Clear() {
	l.mu.Lock()
	l.dropped += len(l.lines) - l.start
	l.lines, l.start, l.bytes, l.longest = nil, 0, 0, 0
	l.mu.Unlock()
	l.touch()
}

// Find are the lines that have a text in them, without regard to case, counted from the first that is kept.
func (l *Log) Find(text string) []int {
	if text == "" {
		return nil
	}
	text = strings.ToLower(text)
	var hits []int
	for i, e := range l.Lines(0, maxLines) {
		if strings.Contains(strings.ToLower(Clean(e.Text)), text) {
			hits = append(hits, i)
		}
	}
	return hits
}

// Waits says why nothing comes, such as that the engine sleeps; empty while it flows.
func (l *Log) Waits() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waits
}

func (l *Log) wait(why string) {
	l.mu.Lock()
	changed := l.waits != why
	l.waits = why
	l.mu.Unlock()
	if changed {
		l.touch()
	}
}

// Write writes all of it as plain text, with times if asked.
func (l *Log) Write(w io.Writer, times bool) error {
	b := bufio.NewWriter(w)
	for _, e := range l.Lines(0, maxLines) {
		if times && !e.At.IsZero() {
			b.WriteString(e.At.UTC().Format(stamp) + " ")
		}
		b.WriteString(Clean(e.Text))
		b.WriteByte('\n')
	}
	return b.Flush()
}

// stamp is how times of lines are shown: to the millisecond, in UTC as logs are.
const stamp = "2006-01-02T15:04:05.000Z"

// Stamp is a line's time.
func (e Entry) Stamp() string {
	if e.At.IsZero() {
		return ""
	}
	return e.At.UTC().Format(stamp)
}

// Why nothing comes.
const (
	WaitsAsleep = "The engine sleeps. Logs go on when it is awake."
	WaitsAway   = "Paused while nobody looks, so that the engine can sleep."
	WaitsEnded  = "The container does not run."
	WaitsGone   = "The container is gone."
)

// Follow copies a container's log into l until the context ends, over restarts of the container and sleeps of the
// engine. Following counts as use of the engine, so it pauses while nobody attends.
func (s *Store) Follow(ctx context.Context, id string, l *Log) {
	var last time.Time
	for first := true; ctx.Err() == nil; first = false {
		if !s.await(ctx, func() bool {
			c := s.containers[id]
			why := ""
			switch {
			case s.life.Phase == "suspended", s.life.Phase == "suspending":
				why = WaitsAsleep
			case !s.attended && s.life.Phase == "running":
				why = WaitsAway
			case s.loaded && c == nil:
				why = WaitsGone
			case c != nil && !c.Running() && !first:
				why = WaitsEnded
			}
			l.wait(why)
			return why == "" && c != nil && s.flowsLocked()
		}) {
			return
		}
		if err := s.followOnce(ctx, id, l, &last); err != nil {
			pause(ctx, again)
		}
	}
}

// followOnce reads until the stream ends, or nobody attends any more.
func (s *Store) followOnce(ctx context.Context, id string, l *Log, last *time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		if s.await(ctx, func() bool { return !s.flowsLocked() }) {
			cancel()
		}
	})
	in, _, err := s.docker.ContainerInspectWithRaw(ctx, id, false)
	if err != nil {
		return err
	}
	opts := container.LogsOptions{ShowStdout: true, ShowStderr: true, Follow: true, Timestamps: true, Tail: fmt.Sprint(maxLines)}
	if !last.IsZero() {
		opts.Since = last.Add(time.Nanosecond).Format(time.RFC3339Nano)
	}
	body, err := s.docker.ContainerLogs(ctx, id, opts)
	if err != nil {
		return err
	}
	defer body.Close()
	out := &lines{to: l, last: last}
	bad := &lines{to: l, last: last, err: true}
	if in.Config != nil && in.Config.Tty {
		_, err = io.Copy(out, body)
	} else {
		_, err = stdcopy.StdCopy(out, bad, body)
	}
	out.flush()
	bad.flush()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// lines cuts a stream of one kind into lines, each of which begins with its time.
type lines struct {
	to   *Log
	last *time.Time
	err  bool
	rest []byte
}

func (w *lines) Write(b []byte) (int, error) {
	n := len(b)
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			if len(w.rest) < 1<<20 { // of a line without an end
				w.rest = append(w.rest, b...)
			}
			return n, nil
		}
		w.rest = append(w.rest, b[:i]...)
		w.flush()
		b = b[i+1:]
	}
}

func (w *lines) flush() {
	if len(w.rest) == 0 {
		return
	}
	e := Entry{Text: strings.TrimSuffix(string(w.rest), "\r"), Err: w.err}
	w.rest = w.rest[:0]
	if stamp, text, ok := strings.Cut(e.Text, " "); ok {
		if at, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
			e.At, e.Text = at, text
			if at.After(*w.last) {
				*w.last = at
			}
		}
	}
	w.to.Add(e)
}
