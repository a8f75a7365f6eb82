package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/guestd/protocol"
	"gopkg.in/natefinch/lumberjack.v2"
)

// Log files are kept small: a daemon runs for months.
const (
	logMegabytes = 5
	logBackups   = 2
)

// logFile is one for each file and coved: lumberjack leaves a goroutine behind for each that was written to.
// After Close it opens the file again when it is written to.
func logFile(path string) io.WriteCloser {
	return &lumberjack.Logger{Filename: path, MaxSize: logMegabytes, MaxBackups: logBackups}
}

// logLevel is info, or debug where COVE_DEBUG is set.
func logLevel() slog.Level {
	if os.Getenv("COVE_DEBUG") != "" {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// guestLogs are those that the guest keeps and serves.
var guestLogs = []string{"guestd", "containerd", "dockerd", "kernel"}

// hostLogs are files of ours.
func (d *Daemon) hostLogs() map[string]string {
	return map[string]string{"coved": d.home.Dir("log", "coved.log"), "console": d.home.Dir("vm", profile, "console.log")}
}

// Logs writes a log: see localapi.Core.
func (d *Daemon) Logs(ctx context.Context, w io.Writer, name string, tail int, follow bool) error {
	if path := d.hostLogs()[name]; path != "" {
		return copyFile(ctx, w, path, tail, follow)
	}
	if !slices.Contains(guestLogs, name) {
		return &api.Error{Failure: api.Failure{Cause: api.CauseNotFound, Summary: fmt.Sprintf("There is no log %q.", name), Remedy: "There are coved, console, " + strings.Join(guestLogs, ", ") + "."}}
	}
	defer d.uses.begin()()
	v, err := d.current(ctx)
	if err != nil {
		return err
	}
	conn, err := v.Dial(ctx, protocol.ServiceLogs)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	line, err := json.Marshal(protocol.LogsRequest{Service: name, Tail: tail, Follow: follow})
	if err != nil {
		return err
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("ask for the log: %w", err)
	}
	if _, err := io.Copy(w, struct{ io.Reader }{conn}); err != nil && ctx.Err() == nil {
		return fmt.Errorf("read the log: %w", err)
	}
	return nil
}

// current is the VM that runs; while it starts this waits for it.
func (d *Daemon) current(ctx context.Context) (*vm, error) {
	ctx, cancel := context.WithTimeout(ctx, enginePatience)
	defer cancel()
	defer d.uses.begin()()
	v, err := d.life.Await(ctx, "its guest is asked for something")
	if err != nil {
		return nil, err
	}
	return v.(*vm), nil
}

// followEvery is how often a followed file is looked at.
const followEvery = 300 * time.Millisecond

func copyFile(ctx context.Context, w io.Writer, path string, tail int, follow bool) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // nothing was logged yet
	}
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	defer func() { f.Close() }()
	b, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if _, err := w.Write(lastLines(b, tail)); err != nil || !follow {
		return nil
	}
	t := time.NewTicker(followEvery)
	defer t.Stop()
	for {
		if _, err := io.Copy(w, f); err != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		// A full file is set aside and a new one begun.
		now, err := os.Stat(path)
		was, werr := f.Stat()
		if err == nil && werr == nil && !os.SameFile(now, was) {
			if next, err := os.Open(path); err == nil {
				io.Copy(w, f)
				f.Close()
				f = next
			}
		}
	}
}

// lastLines is the end of a text, n lines of it; 0 means all.
func lastLines(b []byte, n int) []byte {
	if n <= 0 {
		return b
	}
	at := len(bytes.TrimSuffix(b, []byte("\n")))
	for ; n > 0 && at >= 0; n-- {
		at = bytes.LastIndexByte(b[:at], '\n')
	}
	return b[at+1:]
}

// tailOf is the end of a log of ours, as evidence.
func (d *Daemon) tailOf(name string, n int) string {
	b, err := os.ReadFile(d.hostLogs()[name])
	if err != nil {
		return ""
	}
	return string(lastLines(b, n))
}
