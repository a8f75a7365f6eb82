package dockerapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/covedesk/cove/proxy"
)

// snapshot is what the engine answered to passive calls before it went to sleep.
type snapshot struct {
	taken   time.Time // on the host's clock, when the first was asked
	version string    // what the engine takes a path without a version for, such as "/v1.56"
	answers map[question]*answer
}

type answer struct {
	Status int         `json:"status"`
	Header http.Header `json:"header"`
	Body   []byte      `json:"body,omitempty"`
}

// Limits of a snapshot. A sleep waits for it, so it takes what it gets in its time.
const (
	snapshotTime   = 10 * time.Second // on a host under load; some 0.1 s else
	snapshotSize   = 16 << 20         // bytes of all answers
	maxAnswer      = 4 << 20          // bytes of one: the list of some thousand containers
	maxInspections = 1024             // containers, images, networks, volumes and execs, in all versions
	snapshotConns  = 8                // questions at a time
)

// What an answer from a snapshot carries beside the engine's own headers, its Date among them.
const (
	// ageHeader is RFC 9111, 5.1: seconds since the engine gave the answer.
	ageHeader = "Age"
	// snapshotHeader says since when the engine is not asked: a time of RFC 3339. It is there on
	// such answers only.
	snapshotHeader = "Cove-Snapshot"
)

// Snapshot asks the engine what clients are likely to ask while it sleeps: the usual lists, an inspection of
// everything in them, and all passive calls that clients made lately, each in the API versions that they
// speak. What an earlier one has and what nothing has changed since, by the engine's events, it does not ask
// again. It takes some 0.1 s, and 10 s at the most, after which what is there is enough. With an error there
// is no snapshot, and passive calls wake the engine. Passive calls meanwhile wait for it.
//
// The snapshot is dropped by Resume. It holds what the calls hold, the environment of containers among it,
// where people put passwords.
func (f *Front) Snapshot(ctx context.Context, engine proxy.Dialer) error {
	ctx, cancel := context.WithTimeout(ctx, snapshotTime)
	defer cancel()
	f.mu.Lock()
	f.forgetLocked()
	t := f.takingLocked(engine, snapshotConns)
	known := slices.Clone(f.known)
	f.mu.Unlock()
	err := t.take(ctx, known)
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.settleLocked()
	if err != nil {
		return fmt.Errorf("take a snapshot of the engine: %w", err)
	}
	f.snapshot = t.s
	f.keepLocked(t)
	f.log.Info("snapshot of the engine", "answers", len(t.s.answers), "again", t.again, "bytes", t.size, "took", f.now().Sub(t.s.taken))
	return nil
}

// Prepare asks the engine, one question at a time, what takes it long and is soon to be asked by Snapshot, which
// asks it no more then if nothing changes in between. It is for an engine that nobody uses.
func (f *Front) Prepare(ctx context.Context, engine proxy.Dialer) error {
	f.mu.Lock()
	t := f.takingLocked(engine, 1)
	f.mu.Unlock()
	if err := t.begin(ctx); err != nil {
		return fmt.Errorf("prepare a snapshot of the engine: %w", err)
	}
	for _, questions := range []func(v string) []question{lists, t.s.things} {
		var some []question
		for _, v := range t.versions {
			some = append(some, questions(v)...)
		}
		t.all(ctx, slices.DeleteFunc(some, func(q question) bool { return subjectOf(q) == aboutOther }))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keepLocked(t)
	return ctx.Err()
}

// keepLocked keeps of what was asked what the next may use.
func (f *Front) keepLocked(t *taking) {
	if f.altering == t.altering {
		f.kept = keep(t.s, t.events)
	}
}

// Resume drops the snapshot. It is called when the engine serves again.
func (f *Front) Resume() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgetLocked()
}

func (f *Front) forgetLocked() {
	f.settleLocked() // who waits for it asks again
	f.snapshot, f.settled = nil, make(chan struct{})
}

// settleLocked says that there is a snapshot now, or none to come.
func (f *Front) settleLocked() {
	select {
	case <-f.settled:
	default:
		close(f.settled)
	}
}

// recall gives the snapshot of an engine that sleeps, and waits while it is being taken. It is nil when there
// is none. Again means that this sleep is over.
func (f *Front) recall(ctx context.Context) (s *snapshot, again bool) {
	f.mu.Lock()
	settled := f.settled
	f.mu.Unlock()
	select {
	case <-settled:
	default:
		again = !f.awaitSettled(ctx, settled)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.snapshot, again || f.settled != settled
}

// awaitSettled waits for the snapshot of a sleep that is known, and is false if the sleep ends first.
func (f *Front) awaitSettled(ctx context.Context, settled <-chan struct{}) bool {
	ctx, cancel := context.WithTimeout(ctx, snapshotTime+time.Second)
	woken := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { woken <- f.waker.Woken(ctx) })
	defer wg.Wait()
	defer cancel()
	select {
	case <-settled:
	case err := <-woken:
		return err != nil // the time is up: there is none
	}
	return true
}

// Recall answers a passive call from the snapshot, whatever the engine does: it wakes nobody and waits for
// nobody. What the snapshot does not know is an error.
func (f *Front) Recall(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	s := f.snapshot
	f.mu.Unlock()
	if s != nil {
		if a := s.find(asked(r)); a != nil {
			return s.response(r, a, f.now()), nil
		}
	}
	return nil, fmt.Errorf("%s %s is not in the snapshot of the engine", r.Method, r.URL.Path)
}

// taking is a snapshot that is being taken.
type taking struct {
	life     *life
	engine   proxy.Dialer
	conns    chan struct{}
	now      func() time.Time
	versions []string // of the API, the clients' own first, the latest before the others
	kept     *kept    // of an earlier one
	altering int      // see Front
	events   []byte   // that the engine had before it was asked
	again    int      // answers of an earlier one

	mu    sync.Mutex // guards all below
	s     *snapshot
	asked map[question]bool
	size  int
}

func (f *Front) takingLocked(engine proxy.Dialer, conns int) *taking {
	return &taking{life: f.life, engine: engine, conns: make(chan struct{}, conns), now: f.now,
		versions: reversed(f.versions), kept: f.kept, altering: f.altering,
		s: &snapshot{taken: f.now(), answers: map[question]*answer{}}, asked: map[question]bool{}}
}

// begin asks what engine it is, and takes over what still holds of an earlier snapshot.
func (t *taking) begin(ctx context.Context) error {
	// The CLI negotiates with a HEAD, others with a GET.
	t.all(ctx, []question{{Method: http.MethodHead, Path: ping}, {Method: http.MethodGet, Path: ping}})
	pong := t.s.answers[question{Method: http.MethodGet, Path: ping}]
	if pong == nil {
		return fmt.Errorf("the engine does not answer: %w", context.Cause(ctx))
	}
	t.s.version = "/v" + pong.Header.Get("Api-Version")
	if !slices.Contains(t.versions, t.s.version) {
		t.versions = append(t.versions, t.s.version)
	}
	// First, since the answers are of after them.
	if a := t.ask(ctx, t.allEvents()); a != nil && a.Status == http.StatusOK {
		t.events = a.Body
	}
	for q, a := range t.kept.after(t.s.version, t.events) {
		if t.size += len(a.Body); t.size > snapshotSize {
			break
		}
		t.asked[q], t.s.answers[q] = true, a
		t.again++
	}
	return nil
}

// allEvents asks for those that the engine keeps.
func (t *taking) allEvents() question {
	return question{Method: http.MethodGet, Path: t.s.version + "/events"}
}

// lists are what is always asked in a version.
func lists(v string) (out []question) {
	for _, uri := range []string{"/containers/json?all=1", "/containers/json", "/images/json", "/images/json?manifests=1", "/networks", "/volumes", "/version", "/info"} {
		path, query, _ := strings.Cut(uri, "?")
		out = append(out, question{Method: http.MethodGet, Path: v + path, Query: query})
	}
	return out
}

func (t *taking) take(ctx context.Context, known []question) error {
	if err := t.begin(ctx); err != nil {
		return err
	}
	var always, things, execs []question
	for _, v := range t.versions {
		always = append(always, lists(v)...)
	}
	t.all(ctx, always)
	known = reversed(known)
	past := slices.DeleteFunc(slices.Clone(known), func(q question) bool { return !isEvents(q.Method, q.Path) })
	t.all(ctx, slices.DeleteFunc(known, func(q question) bool { return isEvents(q.Method, q.Path) }))
	for _, v := range t.versions {
		things = append(things, t.s.things(v)...)
	}
	t.all(ctx, things[:min(len(things), maxInspections)])
	// A CLI whose exec was cut asks what became of it.
	for _, q := range things[:min(len(things), maxInspections)] {
		execs = append(execs, t.s.execs(q)...)
	}
	t.all(ctx, execs[:min(len(execs), maxInspections)])
	// Last, since more are to come until the engine sleeps.
	t.all(ctx, append(past, t.allEvents()))
	return nil
}

const ping = "/_ping"

func reversed[T any](list []T) []T {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

// all asks questions, the first ones first, and returns when it has the answers or its time is up.
func (t *taking) all(ctx context.Context, qs []question) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, q := range qs {
		t.mu.Lock()
		asked := t.asked[q]
		t.asked[q] = true
		t.mu.Unlock()
		if asked {
			continue
		}
		select {
		case t.conns <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-t.conns }()
			t.one(ctx, q)
		})
	}
}

func (t *taking) one(ctx context.Context, q question) {
	a := t.ask(ctx, q)
	if a == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.size += len(a.Body); t.size <= snapshotSize {
		t.s.answers[q] = a
	} else {
		t.size -= len(a.Body)
	}
}

// ask is nil without a whole answer.
func (t *taking) ask(ctx context.Context, q question) *answer {
	target, err := url.Parse("http://engine" + q.Path)
	if err != nil {
		return nil
	}
	target.RawQuery = q.Query
	if isEvents(q.Method, target.Path) {
		target.RawQuery = pastEvents(q.Query, t.now())
	}
	r := &http.Request{Method: q.Method, URL: target, Host: Service, Header: http.Header{"User-Agent": {""}}}
	if q.Accept != "" {
		r.Header.Set("Accept", q.Accept)
	}
	resp, err := t.life.roundTrip(r.WithContext(ctx), t.engine)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil || len(body) > maxAnswer || resp.StatusCode >= http.StatusInternalServerError {
		return nil
	}
	for _, name := range []string{"Connection", "Transfer-Encoding"} {
		resp.Header.Del(name)
	}
	return &answer{resp.StatusCode, resp.Header, body}
}

// response is an answer as it is given to a client.
func (s *snapshot) response(r *http.Request, a *answer, now time.Time) *http.Response {
	header := a.Header.Clone()
	header.Set(ageHeader, strconv.Itoa(max(0, int(now.Sub(s.taken).Seconds()))))
	header.Set(snapshotHeader, s.taken.UTC().Format(time.RFC3339))
	length := int64(len(a.Body))
	if r.Method == http.MethodHead {
		length = -1 // the header has it, if the engine gave it
	} else {
		header.Set("Content-Length", strconv.Itoa(len(a.Body)))
	}
	return &http.Response{
		StatusCode: a.Status, Status: strconv.Itoa(a.Status) + " " + http.StatusText(a.Status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(bytes.NewReader(a.Body)), ContentLength: length, Request: r,
	}
}

// fileVersion is of the form of a saved snapshot.
const fileVersion = 1

// maxFile bounds what is read of one: the answers in base64, their headers, and the questions.
const maxFile = snapshotSize*3/2 + maxKnown*maxQuestion + 16<<20

// saved is a snapshot in a file: JSON.
type saved struct {
	Version  int        `json:"version"`
	Taken    time.Time  `json:"taken"`
	Engine   string     `json:"engine"`
	Answers  []entry    `json:"answers"`
	Known    []question `json:"known"`
	Versions []string   `json:"versions"`
}

type entry struct {
	question
	answer
}

// Save writes the snapshot, for a coved that is started while the engine sleeps. It has the environment of
// containers in it, where people put passwords: the file is to be 0600 in a folder of 0700, as the image of
// the guest's memory is that lies beside it and has all of this in it too. Without a snapshot it is an error.
func (f *Front) Save(w io.Writer) error {
	f.mu.Lock()
	s := f.snapshot
	file := saved{Version: fileVersion, Known: slices.Clone(f.known), Versions: slices.Clone(f.versions)}
	f.mu.Unlock()
	if s == nil {
		return fmt.Errorf("save the snapshot: there is none")
	}
	file.Taken, file.Engine = s.taken, s.version
	for q, a := range s.answers { // nobody changes it any more
		file.Answers = append(file.Answers, entry{q, *a})
	}
	if err := json.NewEncoder(w).Encode(file); err != nil {
		return fmt.Errorf("save the snapshot: %w", err)
	}
	return nil
}

// Load reads what Save wrote. It is called before Serve where the engine sleeps already. With an error there
// is no snapshot, and passive calls wake the engine.
func (f *Front) Load(r io.Reader) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settleLocked()
	limited := &io.LimitedReader{R: r, N: maxFile}
	var file saved
	if err := json.NewDecoder(limited).Decode(&file); err != nil {
		if limited.N <= 0 {
			err = fmt.Errorf("it is larger than %d MiB", maxFile>>20)
		}
		return fmt.Errorf("load the snapshot: %w", err)
	}
	if file.Version != fileVersion {
		return fmt.Errorf("load the snapshot: it is of version %d, and this is version %d", file.Version, fileVersion)
	}
	s := &snapshot{taken: file.Taken, version: file.Engine, answers: map[question]*answer{}}
	for _, e := range file.Answers {
		if e.Status < 200 || e.Status > 599 {
			return fmt.Errorf("load the snapshot: %s %s has the status %d", e.Method, e.Path, e.Status)
		}
		s.answers[e.question] = &e.answer
	}
	f.snapshot = s
	f.known, f.versions = file.Known[max(0, len(file.Known)-maxKnown):], file.Versions[max(0, len(file.Versions)-maxVersions):]
	return nil
}
