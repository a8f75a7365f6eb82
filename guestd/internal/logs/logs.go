//go:build linux

// Package logs keeps the end of what the guest's programs say, in bounded memory and in files on the
// data disk, and gives it to any number of followers; a slow one loses lines, never holds anybody up.
package logs

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"
)

const (
	keep    = 512 << 10 // bytes of one log in memory: some thousand lines
	maxFile = 4 << 20   // bytes of one file; the one before it is kept too
	maxLine = 64 << 10  // a line that is longer is taken in parts
)

// Log is one program's. Write to it from any goroutine.
type Log struct {
	name string

	mu      sync.Mutex
	begun   []byte // a line that has not ended, and may have half a secret
	kept    []byte
	total   int64 // bytes written in all
	changed chan struct{}
	file    *os.File
	size    int64
	path    string
}

// New returns an empty log.
func New(name string) *Log { return &Log{name: name, changed: make(chan struct{})} }

// Persist writes the log to dir/NAME.log too, from now on and with what is kept. A file that cannot be
// written costs the file only.
func (l *Log) Persist(dir string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.path = filepath.Join(dir, l.name+".log")
	l.openLocked()
	l.storeLocked(l.kept)
}

func (l *Log) openLocked() {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	if st, err := f.Stat(); err == nil {
		l.size = st.Size()
	}
	l.file = f
}

func (l *Log) storeLocked(b []byte) {
	if l.file == nil {
		return
	}
	if l.size+int64(len(b)) > maxFile {
		l.file.Close()
		l.file = nil
		os.Rename(l.path, l.path+".1")
		l.size = 0
		l.openLocked()
		if l.file == nil {
			return
		}
	}
	n, _ := l.file.Write(b)
	l.size += int64(n)
}

// CloseFile ends the writing to the file, so that the disk can be unmounted.
func (l *Log) CloseFile() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takeLocked(len(l.begun))
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}

// Write implements io.Writer; it does not fail. Secrets in URLs do not get into the log, which takes whole
// lines to know them by.
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun = append(l.begun, b...)
	whole := bytes.LastIndexByte(l.begun, '\n') + 1
	if len(l.begun)-whole > maxLine {
		whole = len(l.begun)
	}
	l.takeLocked(whole)
	return len(b), nil
}

// takeLocked moves the first n bytes of what has begun into the log.
func (l *Log) takeLocked(n int) {
	if n == 0 {
		return
	}
	b := hide(l.begun[:n])
	l.kept = append(l.kept, b...)
	l.total += int64(len(b))
	if len(l.kept) > 2*keep {
		// Cut at a line, so that no half line is shown as a whole one.
		cut := l.kept[len(l.kept)-keep:]
		if i := bytes.IndexByte(cut, '\n'); i >= 0 {
			cut = cut[i+1:]
		}
		l.kept = append(l.kept[:0], cut...)
	}
	l.storeLocked(b)
	l.begun = append(l.begun[:0], l.begun[n:]...)
	close(l.changed)
	l.changed = make(chan struct{})
}

// Tail is the last n lines, or all that is kept if n is 0.
func (l *Log) Tail(n int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]byte(nil), lastLines(l.kept, n)...)
}

func lastLines(b []byte, n int) []byte {
	if n <= 0 {
		return b
	}
	i := len(b)
	if i > 0 && b[i-1] == '\n' {
		i--
	}
	for ; n > 0; n-- {
		j := bytes.LastIndexByte(b[:i], '\n')
		if j < 0 {
			return b
		}
		i = j
	}
	return b[i+1:]
}

// Copy writes the last n lines to w and then, with follow, what comes, until ctx ends or w fails.
func (l *Log) Copy(ctx context.Context, w io.Writer, n int, follow bool) error {
	l.mu.Lock()
	b, at, changed := append([]byte(nil), lastLines(l.kept, n)...), l.total, l.changed
	l.mu.Unlock()
	for {
		if _, err := w.Write(b); err != nil || !follow {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		l.mu.Lock()
		missed := min(l.total-at, int64(len(l.kept)))
		b, at, changed = append([]byte(nil), l.kept[int64(len(l.kept))-missed:]...), l.total, l.changed
		l.mu.Unlock()
	}
}
