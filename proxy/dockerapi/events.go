package dockerapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

// events is the body of an answer to GET /events. It goes on over sleeps of the engine: where its stream
// ended because the engine slept, it is opened again after the wake, from the last event on (the engine
// keeps 256: moby, daemon/events), less what was given already. A slow client may not see the sleep at all.
type events struct {
	f     *Front
	r     *http.Request
	query url.Values
	form  string    // the Content-Type that the client was told
	until time.Time // of the client; zero without one

	life  *life // of the stream that is open; none before the first
	body  io.ReadCloser
	from  *bufio.Reader
	again bool // it is not what the client asked for itself

	since  time.Time // of the client; zero without one
	begin  time.Time // what was before it is not the client's, on the engine's clock
	opened time.Time // when the engine answered in the second of begin; zero where that is exact
	newest time.Time // of the events that came
	seen   []uint64  // the last events that came, as hashes
	seed   maphash.Seed

	ready []byte // for the client
	ended error  // what it gets after that
}

const (
	// keptEvents is how many the engine keeps, and so can say twice.
	keptEvents = 256
	// disorder is how far an event can come behind a later one: the engine takes the time of an event and
	// then waits its turn to give it out.
	disorder = time.Second
)

// openEvents answers GET /events.
func (f *Front) openEvents(r *http.Request) (*http.Response, error) {
	e := &events{f: f, r: r, seed: maphash.MakeSeed()}
	var bad [3]error // what only the engine can refuse is passed on as it is
	e.query, bad[0] = url.ParseQuery(r.URL.RawQuery)
	e.since, bad[1] = unixTime(e.query.Get("since"))
	e.until, bad[2] = unixTime(e.query.Get("until"))
	e.begin = e.since
	plain := errors.Join(bad[:]...) != nil
	for {
		l, engine, err := f.engine(r.Context(), false)
		if errors.Is(err, ErrAsleep) {
			s, again := f.recall(r.Context())
			if again {
				continue
			}
			if !plain {
				if resp := e.asleep(s); resp != nil {
					return resp, nil
				}
			}
			if err = r.Context().Err(); err == nil {
				l, engine, err = f.engine(r.Context(), true)
			}
		}
		if err != nil {
			return nil, err
		}
		resp, err := l.roundTrip(r, engine)
		if err == errSuspended && r.Context().Err() == nil {
			continue
		}
		if err != nil || plain || resp.StatusCode != http.StatusOK {
			return resp, err
		}
		e.form, e.life, e.body, e.from = resp.Header.Get("Content-Type"), l, resp.Body, bufio.NewReader(resp.Body)
		if !e.past() {
			if e.begin, err = http.ParseTime(resp.Header.Get("Date")); err == nil {
				e.opened = f.now()
			}
		}
		resp.Body = e
		return resp, nil
	}
}

// asleep answers without the engine: from the snapshot what is over, and with a stream that waits for the
// wake what is to come. It is nil for what only the engine knows.
func (e *events) asleep(s *snapshot) *http.Response {
	now := e.f.now()
	over := !e.until.IsZero() && !e.until.After(now)
	var kept *answer
	if s != nil {
		kept = s.find(asked(e.r))
	}
	a := &answer{Status: http.StatusOK, Header: http.Header{}}
	switch {
	case kept != nil && kept.Status != http.StatusOK:
		a = kept
		over = true
	case kept != nil:
		a.Header = kept.Header.Clone()
		a.Body = e.between(kept.Body)
	case over && (s == nil || e.since.Before(s.taken.Add(disorder))):
		return nil
	case s != nil:
		a.Header = s.engineHeader()
	}
	if kept == nil {
		a.Header.Set("Content-Type", eventsForm(e.r))
	}
	if over {
		return s.response(e.r, a, now)
	}
	a.Header.Del("Content-Length")
	e.form, e.ready = a.Header.Get("Content-Type"), a.Body
	if !e.past() && s != nil {
		e.begin = s.lastEvent().Add(1)
	}
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.Header, Body: e, ContentLength: -1, Request: e.r}
}

// past says whether the client asked for what was, too.
func (e *events) past() bool { return !e.since.IsZero() || !e.until.IsZero() }

// between are the events that the client asked for out of those that were kept. The engine may say any of
// them again after the wake.
func (e *events) between(kept []byte) []byte {
	var out []byte
	for line := range bytes.Lines(kept) {
		t := eventTime(line)
		if e.fresh(line) && e.past() && !t.Before(e.since) && (e.until.IsZero() || !t.After(e.until)) {
			out = append(out, line...)
		}
	}
	return out
}

func (e *events) Read(p []byte) (int, error) {
	for len(e.ready) == 0 {
		if e.ended != nil {
			return 0, e.ended
		}
		if e.from == nil {
			e.ended = e.reopen()
			continue
		}
		line, err := e.from.ReadBytes('\n')
		switch {
		case err == nil:
			if e.fresh(line) && !(e.again && eventTime(line).Before(e.beginning())) {
				e.ready = line
			}
		case e.life.over(): // half a line is said again
			e.body.Close()
			e.from = nil
		default:
			e.ready, e.ended = line, err
		}
	}
	n := copy(p, e.ready)
	e.ready = e.ready[n:]
	return n, nil
}

func (e *events) Close() error {
	if e.body == nil {
		return nil
	}
	return e.body.Close()
}

// reopen waits for the wake and goes on after it. It is io.EOF when the client's time is over first.
func (e *events) reopen() error {
	ctx := e.r.Context()
	for {
		l, engine, err := e.f.engine(ctx, false)
		if errors.Is(err, ErrAsleep) {
			if err := e.wait(ctx); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		r := e.r.Clone(ctx)
		query := maps.Clone(e.query)
		if t := e.goesOn(); !t.IsZero() {
			query.Set("since", engineTime(t))
		}
		r.URL.RawQuery = query.Encode()
		resp, err := l.roundTrip(r, engine)
		if err == errSuspended && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		if form := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || form != e.form {
			resp.Body.Close()
			return fmt.Errorf("events after the wake: %s, %s", resp.Status, form)
		}
		e.life, e.body, e.from, e.again = l, resp.Body, bufio.NewReader(resp.Body), true
		return nil
	}
}

func (e *events) wait(ctx context.Context) error {
	waiting := ctx
	if !e.until.IsZero() {
		var cancel context.CancelFunc
		waiting, cancel = context.WithDeadline(ctx, e.until)
		defer cancel()
	}
	if err := e.f.waker.Woken(waiting); err == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return io.EOF
}

// beginning is when the events begin that are the client's.
func (e *events) beginning() time.Time {
	// The engine says in whole seconds when it was asked. What was of the same second came at once, if at all.
	if !e.opened.IsZero() && e.f.now().Sub(e.opened) > 2*disorder {
		return e.begin.Add(time.Second)
	}
	return e.begin
}

// goesOn is from when on the engine is asked for the events of the next stream. It looks for the first that is
// earlier, from the end on, and so would find one that came late first.
func (e *events) goesOn() time.Time {
	t := e.beginning()
	if e.newest.After(t) {
		t = e.newest
	}
	if t.IsZero() {
		return t
	}
	return t.Add(-disorder)
}

// fresh says whether an event is new, and remembers it.
func (e *events) fresh(line []byte) bool {
	hash := maphash.Bytes(e.seed, line)
	if slices.Contains(e.seen, hash) {
		return false
	}
	e.seen = append(e.seen, hash)
	e.seen = e.seen[max(0, len(e.seen)-keptEvents):]
	if t := eventTime(line); t.After(e.newest) {
		e.newest = t
	}
	return true
}

// eventTime is when an event was, on the engine's clock. One form begins each event with a byte of its own
// (RFC 7464).
func eventTime(line []byte) time.Time {
	return time.Unix(0, gjson.GetBytes(bytes.TrimPrefix(line, []byte{0x1e}), "timeNano").Int())
}

// pastEvents asks for all events that the engine keeps.
func pastEvents(query string, now time.Time) string {
	values, err := url.ParseQuery(query)
	if err != nil {
		values = url.Values{}
	}
	values.Set("until", engineTime(now))
	return values.Encode()
}

// lastEvent is the time of the last event before the snapshot, on the engine's clock; 0 before the first.
func (s *snapshot) lastEvent() time.Time {
	last := time.Unix(0, 0)
	if kept := s.answers[question{Method: http.MethodGet, Path: s.version + "/events"}]; kept != nil {
		for line := range bytes.Lines(kept.Body) {
			if t := eventTime(line); t.After(last) {
				last = t
			}
		}
	}
	return last
}

func engineTime(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }

// unixTime reads what the engine takes for a time here: seconds and perhaps a fraction.
func unixTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	whole, fraction, _ := strings.Cut(s, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	if fraction == "" {
		return time.Unix(seconds, 0), nil
	}
	nano, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 64)
	return time.Unix(seconds, int64(nano)), err
}

// eventsForms are the forms that a client can ask for, the first of which the engine likes best.
var eventsForms = []string{"application/jsonl", "application/x-ndjson", "application/json-seq"}

// eventsForm is the form in which the engine will answer (moby, daemon/server/router/system, getEvents).
func eventsForm(r *http.Request) string {
	form, best := "application/jsonl", 0.0
	if v := strings.TrimPrefix(apiVersion(r.URL.Path), "/v1."); v != apiVersion(r.URL.Path) {
		if minor, err := strconv.Atoi(v); err == nil && minor < 52 {
			form = "application/json"
		}
	}
	for _, offer := range eventsForms {
		for _, accepted := range strings.Split(strings.Join(r.Header.Values("Accept"), ","), ",") {
			kind, parameters, err := mime.ParseMediaType(accepted)
			if err != nil || kind != offer {
				continue
			}
			q := 1.0
			if text, ok := parameters["q"]; ok {
				if q, err = strconv.ParseFloat(text, 64); err != nil {
					continue
				}
			}
			if q > best {
				form, best = offer, q
			}
		}
	}
	return form
}
