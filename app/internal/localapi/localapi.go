// Package localapi serves coved's local API (docs/api.md) to the user's own programs. A browser is not
// one of them: a request with an Origin or with a foreign Host is refused before it is routed.
package localapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/covedesk/cove/app/api"
)

// Core is what the handlers ask of the daemon. Errors are *api.Error where people can do something.
type Core interface {
	// Status is how it is, and a channel that is closed at the next change.
	Status() (api.Status, <-chan struct{})
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
	// Suspend saves the engine with its containers, and waits until it is saved.
	Suspend(ctx context.Context) error
	// Quit ends the daemon after the answer.
	Quit(ctx context.Context) error

	Settings() ([]api.Setting, error)
	Setting(key string) (api.Setting, error)
	// Set and Unset change one; in a dry run they say what they would change.
	Set(ctx context.Context, key, value string, dry bool) (api.SettingChange, error)
	Unset(ctx context.Context, key string, dry bool) (api.SettingChange, error)

	// Memory is how the VM's memory stands. It does not start an engine, nor wake one.
	Memory(ctx context.Context) (api.Memory, error)

	// ImportDisk makes the data disk of an image file, where there is no data disk yet.
	ImportDisk(ctx context.Context, path string) (api.Disk, error)
	// DiskUsage is what the data disk holds, as far as that is known now.
	DiskUsage(ctx context.Context) (api.DiskUsage, error)
	// CompactDisk gives what is free in the data disk back to the host.
	CompactDisk(ctx context.Context) (api.Compacted, error)
	Image(ctx context.Context) (api.Image, error)
	// VerifyImage checks the signature of an image. It starts no engine and wakes none.
	VerifyImage(ctx context.Context, q api.VerifyRequest) (api.Verification, error)
	// Ports are the ports of the host that lead to containers, in their numbers' order.
	Ports(ctx context.Context) ([]api.Port, error)
	// Logs writes the last lines of a log (0: all that is kept) and, if asked, those that come.
	Logs(ctx context.Context, w io.Writer, name string, tail int, follow bool) error
	// Shell dials the guest's shell service; Join carries its bytes to a connection until both ended.
	Shell(ctx context.Context) (Joiner, error)
	Measure(ctx context.Context, bytes int64) (api.Measured, error)
}

// Joiner joins a client's connection, from which some bytes have been read ahead, with one to the guest.
type Joiner interface {
	Join(client net.Conn, ahead io.Reader) error
	Close() error
}

// Serve answers on the listener until the context ends.
func Serve(ctx context.Context, l net.Listener, core Core) error {
	srv := &http.Server{
		Handler:           Handler(core),
		ErrorLog:          log.New(io.Discard, "", 0),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 30 * time.Second,
	}
	down := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(down)
		// Answers that are on their way, such as the one to quit, still go.
		grace, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})
	err := srv.Serve(l)
	if stop() {
		return fmt.Errorf("serve the local API: %w", err)
	}
	<-down // srv.Serve returns when Shutdown begins
	return nil
}

// Handler is the whole API.
func Handler(core Core) http.Handler {
	h := handlers{core}
	mux := http.NewServeMux()
	for pattern, f := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /v1/status":            h.status,
		"GET /v1/events":            h.events,
		"POST /v1/start":            h.start,
		"POST /v1/stop":             h.stop,
		"POST /v1/suspend":          h.suspend,
		"POST /v1/quit":             h.quit,
		"GET /v1/settings":          h.settings,
		"GET /v1/settings/{key}":    h.setting,
		"PUT /v1/settings/{key}":    h.set,
		"DELETE /v1/settings/{key}": h.unset,
		"GET /v1/memory":            h.memory,
		"GET /v1/image":             h.image,
		"POST /v1/image/verify":     h.verifyImage,
		"POST /v1/disk/import":      h.importDisk,
		"GET /v1/disk":              h.diskUsage,
		"POST /v1/disk/compact":     h.compactDisk,
		"GET /v1/ports":             h.ports,
		"GET /v1/logs/{name}":       h.logs,
		"POST /v1/shell":            h.shell,
		"POST /v1/diag/transport":   h.measure,
		"/":                         notFound,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := f(w, r); err != nil {
				fail(w, err)
			}
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := stranger(r); err != nil {
			fail(w, err)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// stranger refuses what a browser sends: DNS rebinding shows in Host, another site's page in Origin.
func stranger(r *http.Request) error {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	foreign := host != "" && host != "cove" && host != "localhost"
	if foreign || r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
		return &api.Error{Failure: api.Failure{Cause: api.CauseForbidden, Summary: "This API is not for browsers.", Remedy: "Ask it as http://localhost, without an Origin."}}
	}
	return nil
}

type handlers struct{ core Core }

func answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.Encode(v) // a client that went away is no error of ours
	return nil
}

var statusOf = map[string]int{
	api.CauseInvalid: http.StatusBadRequest, api.CauseSettings: http.StatusBadRequest, api.CauseNotFound: http.StatusNotFound, api.CauseForbidden: http.StatusForbidden,
	api.CauseStopped: http.StatusConflict, api.CauseNotRunning: http.StatusConflict,
	api.CauseNotOffered: http.StatusNotImplemented,
}

func fail(w http.ResponseWriter, err error) {
	var e *api.Error
	if !errors.As(err, &e) {
		e = &api.Error{Failure: api.Failure{Cause: api.CauseInternal, Summary: err.Error()}}
	}
	code := statusOf[e.Cause]
	if code == 0 {
		code = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(e)
}

func invalid(format string, args ...any) error {
	return &api.Error{Failure: api.Failure{Cause: api.CauseInvalid, Summary: fmt.Sprintf(format, args...)}}
}

func notFound(_ http.ResponseWriter, r *http.Request) error {
	return &api.Error{Failure: api.Failure{Cause: api.CauseNotFound, Summary: fmt.Sprintf("There is no %s %s.", r.Method, r.URL.Path), Remedy: "See docs/api.md."}}
}

func (h handlers) status(w http.ResponseWriter, r *http.Request) error {
	s, _ := h.core.Status()
	return answer(w, s)
}

// events sends one JSON object a line, the first at once.
func (h handlers) events(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	e, flush := json.NewEncoder(w), http.NewResponseController(w)
	told := 0
	var first api.Step
	for {
		s, changed := h.core.Status()
		if told > len(s.Timeline) || told > 0 && s.Timeline[0] != first {
			told = 0 // a new start began a new timeline
		}
		if len(s.Timeline) > 0 {
			first = s.Timeline[0]
		}
		for _, step := range s.Timeline[told:] {
			if e.Encode(api.Event{Type: "step", Step: &step}) != nil {
				return nil
			}
		}
		told = len(s.Timeline)
		if e.Encode(api.Event{Type: "status", Status: &s}) != nil || flush.Flush() != nil {
			return nil
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-changed:
		}
	}
}

func (h handlers) start(w http.ResponseWriter, r *http.Request) error {
	if err := h.core.Start(r.Context()); err != nil {
		return err
	}
	return h.status(w, r)
}

func (h handlers) stop(w http.ResponseWriter, r *http.Request) error {
	if err := h.core.Stop(r.Context()); err != nil {
		return err
	}
	return h.status(w, r)
}

func (h handlers) suspend(w http.ResponseWriter, r *http.Request) error {
	if err := h.core.Suspend(r.Context()); err != nil {
		return err
	}
	return h.status(w, r)
}

func (h handlers) quit(w http.ResponseWriter, r *http.Request) error {
	if err := h.core.Quit(r.Context()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h handlers) settings(w http.ResponseWriter, r *http.Request) error {
	all, err := h.core.Settings()
	if err != nil {
		return err
	}
	return answer(w, all)
}

func (h handlers) setting(w http.ResponseWriter, r *http.Request) error {
	s, err := h.core.Setting(r.PathValue("key"))
	if err != nil {
		return err
	}
	return answer(w, s)
}

// maxValue bounds a setting's value; the largest is a daemon.json.
const maxValue = 256 << 10

func (h handlers) set(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Value *string `json:"value"`
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxValue))
	if err != nil || json.Unmarshal(b, &body) != nil || body.Value == nil {
		return invalid(`The body must be {"value": "…"}.`)
	}
	dry, err := dryRun(r)
	if err != nil {
		return err
	}
	c, err := h.core.Set(r.Context(), r.PathValue("key"), *body.Value, dry)
	if err != nil {
		return err
	}
	return answer(w, c)
}

func (h handlers) unset(w http.ResponseWriter, r *http.Request) error {
	dry, err := dryRun(r)
	if err != nil {
		return err
	}
	c, err := h.core.Unset(r.Context(), r.PathValue("key"), dry)
	if err != nil {
		return err
	}
	return answer(w, c)
}

// dryRun says whether the caller wants to know only. One that misspells it must not have the change made.
func dryRun(r *http.Request) (bool, error) {
	for name, values := range r.URL.Query() {
		dry, err := strconv.ParseBool(values[0])
		if name != "dry-run" || err != nil {
			return false, invalid("%s=%s is not understood: dry-run=true makes no change.", name, values[0])
		}
		return dry, nil
	}
	return false, nil
}

func (h handlers) memory(w http.ResponseWriter, r *http.Request) error {
	m, err := h.core.Memory(r.Context())
	if err != nil {
		return err
	}
	return answer(w, m)
}

func (h handlers) verifyImage(w http.ResponseWriter, r *http.Request) error {
	var q api.VerifyRequest
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxValue)).Decode(&q)
	if err != nil || q.Reference == "" && q.Path == "" || q.Path != "" && !filepath.IsAbs(q.Path) {
		return invalid(`The body must be {"reference": "…"} or {"path": "…"} with an absolute path.`)
	}
	v, err := h.core.VerifyImage(r.Context(), q)
	if err != nil {
		return err
	}
	return answer(w, v)
}

func (h handlers) importDisk(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Path string `json:"path"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxValue)).Decode(&body); err != nil || !filepath.IsAbs(body.Path) {
		return invalid(`The body must be {"path": "…"} with an absolute path.`)
	}
	d, err := h.core.ImportDisk(r.Context(), body.Path)
	if err != nil {
		return err
	}
	return answer(w, d)
}

func (h handlers) diskUsage(w http.ResponseWriter, r *http.Request) error {
	u, err := h.core.DiskUsage(r.Context())
	if err != nil {
		return err
	}
	return answer(w, u)
}

func (h handlers) compactDisk(w http.ResponseWriter, r *http.Request) error {
	c, err := h.core.CompactDisk(r.Context())
	if err != nil {
		return err
	}
	return answer(w, c)
}

func (h handlers) ports(w http.ResponseWriter, r *http.Request) error {
	p, err := h.core.Ports(r.Context())
	if err != nil {
		return err
	}
	return answer(w, p)
}

func (h handlers) image(w http.ResponseWriter, r *http.Request) error {
	i, err := h.core.Image(r.Context())
	if err != nil {
		return err
	}
	return answer(w, i)
}

func (h handlers) logs(w http.ResponseWriter, r *http.Request) error {
	tail := 0
	if t := r.URL.Query().Get("tail"); t != "" {
		var err error
		if tail, err = strconv.Atoi(t); err != nil || tail < 0 {
			return invalid("tail=%s is not a number of lines.", t)
		}
	}
	follow := r.URL.Query().Get("follow")
	out := &flusher{w: w, c: http.NewResponseController(w)}
	err := h.core.Logs(r.Context(), out, r.PathValue("name"), tail, follow == "1" || follow == "true")
	if out.begun {
		return nil // too late for another answer
	}
	return err
}

// flusher sends what is written at once.
type flusher struct {
	w     http.ResponseWriter
	c     *http.ResponseController
	begun bool
}

func (f *flusher) Write(b []byte) (int, error) {
	if !f.begun {
		f.begun = true
		f.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	n, err := f.w.Write(b)
	f.c.Flush()
	return n, err
}

// ShellProtocol is the name of the stream that POST /v1/shell upgrades to: the frames of
// guestd/protocol, after one line of JSON with the request.
const ShellProtocol = "cove-shell"

func (h handlers) shell(w http.ResponseWriter, r *http.Request) error {
	if !strings.EqualFold(r.Header.Get("Upgrade"), ShellProtocol) {
		return invalid("POST /v1/shell needs Connection: Upgrade and Upgrade: %s.", ShellProtocol)
	}
	j, err := h.core.Shell(r.Context())
	if err != nil {
		return err
	}
	defer j.Close()
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", ShellProtocol); err != nil {
		return nil
	}
	j.Join(conn, ahead(buffered.Reader))
	return nil
}

// ahead is what has been read of a connection already.
func ahead(r *bufio.Reader) io.Reader {
	return io.LimitReader(r, int64(r.Buffered()))
}

// maxMeasure bounds a measurement.
const maxMeasure = 1 << 30

func (h handlers) measure(w http.ResponseWriter, r *http.Request) error {
	n, err := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64)
	if err != nil || n <= 0 || n > maxMeasure {
		return invalid("bytes must be between 1 and %d.", maxMeasure)
	}
	m, err := h.core.Measure(r.Context(), n)
	if err != nil {
		return err
	}
	return answer(w, m)
}
