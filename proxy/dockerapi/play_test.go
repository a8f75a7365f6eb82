package dockerapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy"
)

// played is an engine with containers, images, networks and volumes in its lists, and with events as the real
// one has them: it keeps the last 256, and loses what a connection that is cut did not take.
type played struct {
	t    *testing.T
	dial proxy.Dialer

	mu     sync.Mutex // guards all below
	calls  map[string]int
	things map[string]string // path without version -> answer
	kept   []playedEvent
	next   chan struct{} // closed at the next event
	clock  time.Time     // of the last event
	subs   int
}

type playedEvent struct {
	Type, Action string
	Actor        struct{ ID string }
	Time         int64 `json:"time"`
	TimeNano     int64 `json:"timeNano"`
}

const (
	web   = "3c1ebb5669e952ce6e4cb44f8a7bfbefa94b69ad6216ddedb179fa55c9754451"
	db    = "3c2eb5669e952ce6e4cb44f8a7bfbefa94b69ad6216ddedb179fa55c97544510"
	box   = "sha256:4dfc1e6d4de5456ed3d2045584a8cfddf798c838a4fa671820f51190108a6fb6"
	net1  = "47661d4c21f2fd34a6734cb96bab6d11952744c9447b451cdb4fe745b6223332"
	twin1 = "5766000000000000000000000000000000000000000000000000000000000000"
	twin2 = "5867000000000000000000000000000000000000000000000000000000000000"
)

func play(t *testing.T) *played {
	p := &played{t: t, calls: map[string]int{}, next: make(chan struct{}), clock: time.Now(), things: map[string]string{
		"/version":                            `{"Version":"29.0","ApiVersion":"1.56"}`,
		"/info":                               `{"ID":"played","Containers":2}`,
		"/containers/json":                    `[{"Id":"` + web + `","Names":["/web"],"Labels":{"project":"p","n":"1"},"State":"running"}]`,
		"/containers/json?all=1":              `[{"Id":"` + web + `","Names":["/web"],"Labels":{"project":"p","n":"1"},"State":"running"},{"Id":"` + db + `","Names":["/db","/web/alias"],"Labels":{"project":"q"},"State":"exited"}]`,
		"/images/json":                        `[{"Id":"` + box + `","RepoTags":["busybox:latest","localhost:5000/a/b:v1"]}]`,
		"/images/json?manifests=1":            `[{"Id":"` + box + `","RepoTags":["busybox:latest"],"Manifests":[]}]`,
		"/networks":                           `[{"Id":"` + net1 + `","Name":"net1"},{"Id":"` + twin1 + `","Name":"twin"},{"Id":"` + twin2 + `","Name":"twin"}]`,
		"/volumes":                            `{"Volumes":[{"Name":"vol1"}],"Warnings":null}`,
		"/containers/" + web + "/json":        `{"Id":"` + web + `","Config":{"Env":["PASSWORD=hunter2"]},"ExecIDs":["e1"]}`,
		"/containers/" + db + "/json":         `{"Id":"` + db + `","ExecIDs":null}`,
		"/images/busybox/json":                `{"Id":"` + box + `"}`,
		"/networks/net1":                      `{"Id":"` + net1 + `"}`,
		"/containers/web/json":                `{"Id":"` + web + `","By":"name"}`,
		"/exec/e1/json":                       `{"ID":"e1","Running":true}`,
		"/images/" + box + "/json":            `{"Id":"` + box + `","By":"id"}`,
		"/images/busybox:latest/json":         `{"Id":"` + box + `","By":"tag"}`,
		"/images/localhost:5000/a/b:v1/json":  `{"Id":"` + box + `","By":"long tag"}`,
		"/networks/" + net1:                   `{"Id":"` + net1 + `"}`,
		"/networks/" + twin1:                  `{"Id":"` + twin1 + `"}`,
		"/networks/" + twin2:                  `{"Id":"` + twin2 + `"}`,
		"/volumes/vol1":                       `{"Name":"vol1"}`,
		"/system/df":                          `{"ImageUsage":{}}`,
		"/containers/json?limit=1":            `[]`,
		"/containers/" + web + "/json?size=1": `{"Id":"` + web + `","SizeRw":7}`,
	}}
	p.dial = engine(t, p.ServeHTTP)
	return p
}

func (p *played) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := version.ReplaceAllString(r.URL.Path, "/")
	p.mu.Lock()
	p.calls[r.Method+" "+r.URL.RequestURI()]++
	if q := canonical(r.URL.RawQuery); q != "" {
		path += "?" + q
	}
	thing, ok := p.things[path]
	p.mu.Unlock()
	w.Header().Set("Api-Version", "1.56")
	w.Header().Set("Server", "Docker/29.0 (played)")
	w.Header().Set("Content-Type", "application/json")
	switch {
	case path == ping:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Builder-Version", "2")
		io.WriteString(w, "OK")
	case strings.HasSuffix(r.URL.Path, "/events") && r.Method == http.MethodGet:
		p.events(w, r)
	case ok && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		io.WriteString(w, thing+"\n")
	case r.Method == http.MethodPost:
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	default:
		fail(w, &Error{http.StatusNotFound, "page not found"})
	}
}

// asked is how often a call came.
func (p *played) asked(call string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[call]
}

// emit makes an event happen.
func (p *played) emit(kind, action string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clock = p.clock.Add(time.Nanosecond) // two never share a time
	if now := time.Now(); now.After(p.clock) {
		p.clock = now
	}
	e := playedEvent{Type: kind, Action: action, Time: p.clock.Unix(), TimeNano: p.clock.UnixNano()}
	p.kept = append(p.kept, e)
	close(p.next)
	p.next = make(chan struct{})
}

// late is an event whose turn comes after a later one's.
func (p *played) late(kind, action string, by time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.clock.Add(-by)
	p.kept = append(p.kept, playedEvent{Type: kind, Action: action, Time: at.Unix(), TimeNano: at.UnixNano()})
	close(p.next)
	p.next = make(chan struct{})
}

// subscribers is how many streams of events are open.
func (p *played) subscribers() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.subs
}

func (p *played) events(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	since, err1 := unixTime(q.Get("since"))
	until, err2 := unixTime(q.Get("until"))
	var filters map[string]map[string]bool
	if err := errors.Join(err1, err2); err != nil {
		fail(w, &Error{http.StatusBadRequest, err.Error()})
		return
	}
	if f := q.Get("filters"); f != "" {
		if err := json.Unmarshal([]byte(f), &filters); err != nil {
			fail(w, &Error{http.StatusBadRequest, err.Error()})
			return
		}
	}
	form := eventsForm(r)
	w.Header().Set("Content-Type", form)
	w.WriteHeader(http.StatusOK)
	ctx := r.Context()
	past := false
	if !until.IsZero() {
		past = until.Before(time.Now())
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	give := func(e playedEvent) {
		if kinds := filters["type"]; len(kinds) > 0 && !kinds[e.Type] {
			return
		}
		if form == "application/json-seq" {
			io.WriteString(w, "\x1e")
		}
		json.NewEncoder(w).Encode(e)
	}
	p.mu.Lock()
	from := len(p.kept)
	p.subs++
	if !since.IsZero() || !until.IsZero() {
		first := len(p.kept)
		for first > max(0, len(p.kept)-keptEvents) && (since.IsZero() || p.kept[first-1].TimeNano >= since.UnixNano()) {
			first--
		}
		for _, e := range p.kept[first:] {
			if until.IsZero() || e.TimeNano <= until.UnixNano() {
				give(e)
			}
		}
	}
	p.mu.Unlock()
	defer func() { p.mu.Lock(); p.subs--; p.mu.Unlock() }()
	http.NewResponseController(w).Flush()
	for !past {
		p.mu.Lock()
		news, next := p.kept[from:], p.next
		from = len(p.kept)
		p.mu.Unlock()
		for _, e := range news {
			give(e)
		}
		http.NewResponseController(w).Flush()
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

// sleep puts the engine of a bed to sleep as the daemon does.
func (b *bed) sleep() {
	b.t.Helper()
	b.drowse()
	if err := b.Snapshot(b.t.Context(), b.engine); err != nil {
		b.t.Errorf("Snapshot = %v", err)
	}
	b.Suspend()
}

// rise is the wake that nobody's call caused.
func (b *bed) rise() {
	b.wake()
	b.Resume()
}

// get makes one call, and gives the answer with its body read.
func (b *bed) get(call string) (*http.Response, string) {
	b.t.Helper()
	method, uri, _ := strings.Cut(call, " ")
	c, r := client(b.t, b.path)
	defer c.Close()
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: d\r\n\r\n", method, uri); err != nil {
		b.t.Fatal(err)
	}
	resp, err := http.ReadResponse(r, &http.Request{Method: method, URL: &url.URL{}})
	if err != nil {
		b.t.Fatalf("%s: %v", call, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Errorf("%s: %v", call, err)
	}
	return resp, string(body)
}
