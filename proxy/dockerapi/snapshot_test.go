package dockerapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy"
)

func TestPassiveCallsOfASleepingEngineAreAnsweredAsAwake(t *testing.T) {
	p := play(t)
	b := newBed(t, p.dial)
	b.get("GET /v1.45/info") // what a client speaks
	calls := []string{
		"HEAD /_ping", "GET /_ping", "HEAD /v1.45/_ping", "GET /v1.45/version", "GET /version", "GET /v1.56/info", "GET /info",
		"GET /v1.45/containers/json", "GET /v1.45/containers/json?all=1", "GET /v1.45/containers/json?all=true&filters=%7B%7D", "GET /v1.45/containers/json?all=0&size=false",
		"GET /v1.45/images/json", "GET /v1.56/images/json?manifests=1", "GET /v1.45/networks", "GET /v1.45/networks?filters=", "GET /v1.45/volumes",
		"GET /v1.45/containers/" + web + "/json", "GET /v1.45/containers/" + web + "/json?size=0", "GET /v1.56/images/busybox:latest/json", "GET /images/localhost%3A5000/a/b%3Av1/json",
		"GET /v1.45/networks/" + net1, "GET /volumes/vol1", "GET /v1.45/exec/e1/json",
	}
	awake := map[string]string{}
	heads := map[string]http.Header{}
	for _, call := range calls {
		resp, body := b.get(call)
		if resp.StatusCode != 200 || resp.Header.Get(ageHeader) != "" || resp.Header.Get(snapshotHeader) != "" {
			t.Fatalf("%s of an engine that runs = %s with %v; want 200 without an age", call, resp.Status, resp.Header)
		}
		awake[call], heads[call] = body, resp.Header
	}
	b.known = nil // only what is always in it
	b.sleep()
	b.now = func() time.Time { return time.Now().Add(90 * time.Second) }
	for _, call := range calls {
		resp, body := b.get(call)
		if resp.StatusCode != 200 || body != awake[call] {
			t.Errorf("%s of an engine that sleeps = %s %q; want %q", call, resp.Status, body, awake[call])
		}
		age, _ := strconv.Atoi(resp.Header.Get(ageHeader))
		if age < 90 || age > 90+int(patience.Seconds()) {
			t.Errorf("Age of %s = %q; want 90 s and what passed here", call, resp.Header.Get(ageHeader))
		}
		if at, err := time.Parse(time.RFC3339, resp.Header.Get(snapshotHeader)); err != nil || time.Since(at) > patience {
			t.Errorf("Cove-Snapshot of %s = %q; want when it was taken", call, resp.Header.Get(snapshotHeader))
		}
		for _, h := range []http.Header{resp.Header, heads[call]} {
			for _, name := range []string{ageHeader, snapshotHeader, "Date"} {
				h.Del(name)
			}
		}
		if !reflect.DeepEqual(resp.Header, heads[call]) {
			t.Errorf("headers of %s = %v asleep and %v awake; want the same", call, resp.Header, heads[call])
		}
	}
	list, err := http.NewRequest("GET", "http://engine/v1.45/containers/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := b.Recall(list); err != nil || resp.StatusCode != 200 {
		t.Errorf("Recall of the containers = %+v, %v", resp, err)
	}
	list.URL.Path = "/v1.45/system/df"
	if resp, err := b.Recall(list); err == nil {
		t.Errorf("Recall of what is not known = %+v", resp)
	}
	if n := b.wakeups(); n != 0 {
		t.Errorf("passive calls woke the engine %d times", n)
	}
	b.rise()
	if resp, _ := b.get("GET /info"); resp.Header.Get(snapshotHeader) != "" {
		t.Error("an engine that runs again is answered for by the snapshot")
	}
	if b.Save(io.Discard) == nil {
		t.Error("the snapshot is kept after the wake")
	}
}

func TestAnUnknownPassiveCallWakesTheEngineOnce(t *testing.T) {
	p := play(t)
	b := newBed(t, p.dial)
	const odd = "GET /v1.50/containers/json?limit=1"
	for i := range 3 {
		b.sleep()
		resp, body := b.get(odd)
		if resp.StatusCode != 200 || body != "[]\n" {
			t.Errorf("%s = %s %q; want the engine's answer", odd, resp.Status, body)
		}
		if n := b.wakeups(); n != 1 {
			t.Errorf("after sleep %d and the same odd call in each the engine woke %d times; want once", i+1, n)
		}
		if use := b.Activity(); use != (Activity{}) {
			t.Errorf("a passive call that wakes is use: %+v", use)
		}
		b.rise()
	}
}

func TestActiveCallsWakeTheEngine(t *testing.T) {
	p := play(t)
	b := newBed(t, p.dial)
	for i, call := range []string{"POST /v1.50/containers/web/start", "GET /v1.50/containers/web/top", "DELETE /v1.50/containers/web"} {
		b.sleep()
		if resp, _ := b.get(call); resp.Header.Get(snapshotHeader) != "" {
			t.Errorf("%s is answered from the snapshot", call)
		}
		if n := b.wakeups(); n != i+1 || p.asked(call) != 1 {
			t.Errorf("%s woke the engine %d times, which got it %d times; want one more wake and one call", call, n-i, p.asked(call))
		}
		b.rise()
	}
}

func TestFind(t *testing.T) {
	p := play(t)
	b := newBed(t, p.dial)
	b.get("GET /v1.45/info")
	b.sleep()
	header := func(a *answer) string { return a.Header.Get("Api-Version") }
	for _, row := range []struct {
		says, uri, want string // want is a part of the answer; empty: the engine is to be asked
		status          int
	}{
		{"a container by its name", "/v1.45/containers/web/json", web, 200},
		{"a container by its name with a slash", "/v1.45/containers/%2Fweb/json", "", 0},
		{"a container by a link's name", "/v1.45/containers/web%2Falias/json", "", 0},
		{"a container by the begin of its ID", "/v1.45/containers/3c1/json", web, 200},
		{"a begin that two IDs have", "/v1.45/containers/3c/json", "", 0},
		{"a container in a way that was not asked", "/v1.45/containers/web/json?size=1", "", 0},
		{"a container that is not there", "/v1.45/containers/nobody/json", `{"message":"No such container: nobody"}`, 404},
		{"a container in a version that nobody speaks", "/v1.30/containers/web/json", "", 0},
		{"an image by its short name", "/v1.45/images/busybox/json", "by tag", 200},
		{"an image by its full name", "/v1.45/images/docker.io/library/busybox:latest/json", "by tag", 200},
		{"an image by its full name without a tag", "/v1.45/images/docker.io/library/busybox/json", "by tag", 200},
		{"an image of another registry", "/images/localhost:5000/a/b:v1/json", "by long tag", 200},
		{"an image by its ID", "/v1.45/images/" + box + "/json", "by id", 200},
		{"an image by its ID without the algorithm", "/v1.45/images/" + box[7:] + "/json", "by id", 200},
		{"an image by the begin of its ID", "/v1.45/images/4dfc1e6d4de5/json", "by id", 200},
		{"an image with another tag", "/v1.45/images/busybox:1/json", `{"message":"No such image: busybox:1"}`, 404},
		{"an image that is not there", "/v1.45/images/vol1/json", `{"message":"No such image: vol1:latest"}`, 404},
		{"an image by a digest", "/v1.45/images/busybox@" + box + "/json", "", 0},
		{"an image by an ID that is not listed", "/v1.45/images/beef/json", "", 0},
		{"an image with its manifests", "/v1.45/images/busybox/json?manifests=1", "", 0},
		{"a network by its name", "/v1.45/networks/net1", net1, 200},
		{"a network by the begin of its ID", "/v1.45/networks/4766", net1, 200},
		{"a name that two networks have", "/v1.45/networks/twin", "", 0},
		{"a network that is not there", "/v1.45/networks/vol1", `{"message":"network vol1 not found"}`, 404},
		{"a volume", "/v1.45/volumes/vol1", "vol1", 200},
		{"a volume that is not there", "/v1.45/volumes/vol2", `{"message":"get vol2: no such volume"}`, 404},
		{"containers with a label", `/v1.45/containers/json?all=1&filters={"label":{"project":true}}`, db, 200},
		{"containers with a label's value", `/v1.45/containers/json?all=1&filters={"label":{"project=q":true}}`, db, 200},
		{"containers with two labels", `/v1.45/containers/json?all=1&filters={"label":{"project=p":true,"n=1":true}}`, web, 200},
		{"running containers with a label that only others have", `/v1.45/containers/json?filters={"label":{"project=q":true}}`, "[]", 200},
		{"containers with another filter", `/v1.45/containers/json?all=1&filters={"name":{"web":true}}`, "", 0},
		{"containers with a label and another filter", `/v1.45/containers/json?filters={"label":{"n":true},"name":{"web":true}}`, "", 0},
		{"labels as a list, which not all versions take", `/v1.45/containers/json?filters={"label":["n"]}`, "", 0},
		{"a limit", "/v1.45/containers/json?limit=1", "", 0},
		{"an exec that is over", "/v1.45/exec/e2/json", "", 0},
		{"what nobody asked yet", "/v1.45/system/df", "", 0},
		{"a path that is none", "/v1.45/", "", 0},
		{"a path with a bad name", "/v1.45/images//json", "", 0},
	} {
		r, err := http.NewRequest("GET", "http://d"+strings.ReplaceAll(row.uri, `"`, "%22"), nil)
		if err != nil {
			t.Fatal(err)
		}
		a := b.snapshot.find(asked(r))
		switch {
		case a == nil && row.want != "":
			t.Errorf("%s: find(%s) = nil; want %q", row.says, row.uri, row.want)
		case a != nil && row.want == "":
			t.Errorf("%s: find(%s) = %q; want that the engine is asked", row.says, row.uri, a.Body)
		case a != nil && (a.Status != row.status || !strings.Contains(strings.ReplaceAll(string(a.Body), `"By":"`, "by "), row.want) || header(a) != "1.56"):
			t.Errorf("%s: find(%s) = %d %q, API %q; want %d with %q, API 1.56", row.says, row.uri, a.Status, a.Body, header(a), row.status, row.want)
		}
	}
}

func TestCanonical(t *testing.T) {
	for _, row := range []struct{ says, a, b string }{
		{"the order does not matter", "a=1&b=2", "b=2&a=1"},
		{"the escapes do not matter", "a=%31+2", "a=1%202"},
		{"a switch that is off is not there", "all=0&size=false&digests=&manifests=no&verbose=none", ""},
		{"a switch is on in many ways", "all=true", "all=1"},
		{"no filters are none", "filters=%7B%7D", ""},
		{"empty filters are none", "filters=", ""},
		{"the order of filters does not matter", `filters={"b":{"y":true,"x":true},"a":["1"]}`, `filters={"a":["1"], "b":{"x":true,"y":true}}`},
	} {
		if got, want := canonical(row.a), canonical(row.b); got != want {
			t.Errorf("%s: canonical(%q) = %q; want %q, as of %q", row.says, row.a, got, want, row.b)
		}
	}
	for _, row := range []struct{ says, a, b string }{
		{"a limit that is 0 is said", "limit=0", ""},
		{"filters differ by their values", `filters={"a":{"1":true}}`, `filters={"a":{"1":false}}`},
		{"what is no query is taken as it is", "a=1;b=2", "a=1"},
		{"filters that are none are the engine's to refuse", "filters=x", ""},
	} {
		if canonical(row.a) == canonical(row.b) {
			t.Errorf("%s: canonical(%q) = canonical(%q)", row.says, row.a, row.b)
		}
	}
}

func TestASnapshotIsSavedAndLoaded(t *testing.T) {
	p := play(t)
	old := newBed(t, p.dial)
	const odd = "GET /v1.50/containers/json?limit=1"
	old.get(odd)
	old.sleep()
	var file bytes.Buffer
	if err := old.Save(&file); err != nil {
		t.Fatal(err)
	}
	text := file.String()

	b := newBed(t, p.dial)
	b.drowse()
	if err := b.Load(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	for _, call := range []string{"HEAD /_ping", "GET /v1.50/containers/json", "GET /v1.50/containers/web/json", odd} {
		want, wantBody := old.get(call)
		resp, body := b.get(call)
		if resp.StatusCode != want.StatusCode || body != wantBody || resp.Header.Get(snapshotHeader) != want.Header.Get(snapshotHeader) || resp.Header.Get("Date") != want.Header.Get("Date") {
			t.Errorf("%s after loading = %s %q with %v; want as before: %s %q with %v", call, resp.Status, body, resp.Header, want.Status, wantBody, want.Header)
		}
	}
	if n := b.wakeups(); n != 0 {
		t.Errorf("calls that the loaded snapshot has woke the engine %d times", n)
	}
	b.rise()
	b.sleep()
	if b.get(odd); b.wakeups() != 0 {
		t.Error("what clients asked of an earlier coved is not known any more")
	}

	for _, row := range []struct{ says, text, err string }{
		{"an empty file", "", "EOF"},
		{"half a file", text[:len(text)/2], "EOF"},
		{"another version", strings.Replace(text, `"version":1`, `"version":2`, 1), "of version 2"},
		{"an answer that is none", strings.Replace(text, `"status":200`, `"status":20`, 1), "status 20"},
		{"a file that is too large", `{"version":1,"answers":[` + strings.Repeat(" ", maxFile), "larger than"},
	} {
		b := newBed(t, p.dial)
		b.drowse()
		if err := b.Load(strings.NewReader(row.text)); err == nil || !strings.Contains(err.Error(), row.err) {
			t.Errorf("%s: Load = %v; want %q", row.says, err, row.err)
		}
		if resp, _ := b.get("GET /info"); resp.StatusCode != 200 || resp.Header.Get(snapshotHeader) != "" || b.wakeups() != 1 {
			t.Errorf("%s: a passive call = %s after %d wakes; want the engine's answer after one", row.says, resp.Status, b.wakeups())
		}
	}
}

// The phase is known before the snapshot is begun, and polls come all the time.
func TestPassiveCallsWaitForTheSnapshotThatIsTaken(t *testing.T) {
	p := play(t)
	begun, let := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b := newBed(t, engine(t, func(w http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(begun); <-let })
		p.ServeHTTP(w, r)
	}))
	b.drowse()
	early, r := client(t, b.path)
	io.WriteString(early, "GET /info HTTP/1.1\r\nHost: d\r\n\r\n")
	done := make(chan error, 1)
	go func() { done <- b.Snapshot(context.Background(), b.engine) }()
	<-begun
	late, r2 := client(t, b.path)
	io.WriteString(late, "GET /info HTTP/1.1\r\nHost: d\r\n\r\n")
	close(let)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for says, r := range map[string]*bufio.Reader{"before": r, "during": r2} {
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.Header.Get(snapshotHeader) == "" {
			t.Errorf("a call %s the snapshot = %v, %v; want it from the snapshot", says, resp, err)
		}
	}
	if n := b.wakeups(); n != 0 {
		t.Errorf("%d wakes; want none", n)
	}
}

// The snapshot is dropped a moment before the phase says that the engine runs.
func TestPassiveCallsWaitForTheEndOfTheWake(t *testing.T) {
	p := play(t)
	waits := make(chan struct{}, 1)
	b := newBed(t, p.dial)
	b.Front.waker = watched{b, func() { waits <- struct{}{} }, nil}
	b.sleep()
	b.Resume()
	c, r := client(t, b.path)
	io.WriteString(c, "GET /info HTTP/1.1\r\nHost: d\r\n\r\n")
	<-waits
	b.wake()
	begun := time.Now()
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 200 || resp.Header.Get(snapshotHeader) != "" || b.wakeups() != 0 {
		t.Errorf("the call = %v, %v after %d wakes; want the engine's answer and none", resp, err, b.wakeups())
	}
	if took := time.Since(begun); took > snapshotTime {
		t.Errorf("the call waited %v after the wake; want that it goes on at once", took)
	}
}

func TestAClientThatGoesBeforeTheSnapshotIsTakenWakesNobody(t *testing.T) {
	p := play(t)
	ctx, cancel := context.WithCancel(t.Context())
	b := newBed(t, p.dial)
	b.Front.waker = watched{b, cancel, nil}
	for _, uri := range []string{"/info", "/events?until=1"} {
		b.drowse()
		if _, err := b.trip(mustRequest(t, uri).WithContext(ctx)); !errors.Is(err, context.Canceled) || b.wakeups() != 0 {
			t.Errorf("%s of a client that went = %v after %d wakes; want its context's error and none", uri, err, b.wakeups())
		}
	}
}

func TestASnapshotThatCannotBeTakenLeavesACallToTheEngine(t *testing.T) {
	p := play(t)
	b := newBed(t, p.dial)
	b.drowse()
	gone := proxy.DialFunc(func(context.Context, string) (proxy.Conn, error) { return nil, errors.New("nobody is there") })
	if err := b.Snapshot(t.Context(), gone); err == nil {
		t.Error("Snapshot of nobody = nil")
	}
	b.Suspend()
	if resp, body := b.get("GET /info"); resp.StatusCode != 200 || resp.Header.Get(snapshotHeader) != "" || b.wakeups() != 1 {
		t.Errorf("info = %s %q after %d wakes; want the engine's answer after one", resp.Status, body, b.wakeups())
	}
}

func TestASnapshotIsBounded(t *testing.T) {
	p := play(t)
	large := strings.Repeat("x", maxAnswer+1)
	p.things["/system/df"] = large
	for i := range 20 {
		p.things[fmt.Sprintf("/containers/json?limit=%d", 100+i)] = large[:1<<20]
	}
	b := newBed(t, p.dial)
	b.get("GET /system/df")
	for i := range 20 {
		b.get(fmt.Sprintf("GET /containers/json?limit=%d", 100+i))
	}
	for i := range 2 * maxKnown {
		b.note(Call{}, mustRequest(t, fmt.Sprintf("/containers/c%d/json", i)))
	}
	b.note(Call{}, mustRequest(t, "/info?x="+strings.Repeat("y", maxQuestion)))
	if len(b.known) != maxKnown || b.known[maxKnown-1].Path != fmt.Sprintf("/containers/c%d/json", 2*maxKnown-1) {
		t.Errorf("%d questions are known, the last one %v; want %d, and the last that is not too long", len(b.known), b.known[len(b.known)-1], maxKnown)
	}
	for i := range 20 {
		b.get(fmt.Sprintf("GET /containers/json?limit=%d", 100+i))
	}
	b.sleep()
	size := 0
	for a := range maps.Values(b.snapshot.answers) {
		size += len(a.Body)
	}
	if size > snapshotSize || size < snapshotSize-1<<20 {
		t.Errorf("the snapshot has %d bytes; want up to %d, and as much as fits", size, snapshotSize)
	}
	if a := b.snapshot.answers[question{Method: "GET", Path: "/system/df"}]; a != nil {
		t.Errorf("an answer of %d bytes is kept; want none over %d", len(a.Body), maxAnswer)
	}
	for i := range 2 * maxVersions {
		b.note(Call{Active: true}, mustRequest(t, fmt.Sprintf("/v1.%d/info", 24+i)))
	}
	if len(b.versions) != maxVersions {
		t.Errorf("%d versions are known; want %d", len(b.versions), maxVersions)
	}
}

func mustRequest(t *testing.T, uri string) *http.Request {
	r, err := http.NewRequest("GET", "http://d"+uri, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A passive call that the engine has begun to answer is let to its end; one that it does not end is answered
// from the snapshot.
func TestPassiveCallsInFlightAtTheSleep(t *testing.T) {
	p := play(t)
	arrived := make(chan struct{}, 1)
	slow := make(chan struct{})
	var hang sync.Once
	b := newBed(t, engine(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1.45/version":
			io.WriteString(w, "half")
			http.NewResponseController(w).Flush()
			arrived <- struct{}{}
			<-slow
			io.WriteString(w, ", whole")
		case r.URL.Path == "/v1.45/info":
			hung := false
			hang.Do(func() { hung = true })
			if hung {
				arrived <- struct{}{}
				<-r.Context().Done()
				return
			}
			fallthrough
		default:
			p.ServeHTTP(w, r)
		}
	}))
	whole, r := client(t, b.path)
	resp := ask(t, whole, r, "GET /v1.45/version HTTP/1.1\nHost: d", "")
	<-arrived
	hanging, r2 := client(t, b.path)
	io.WriteString(hanging, "GET /v1.45/info HTTP/1.1\r\nHost: d\r\n\r\n")
	<-arrived
	b.known = nil
	b.versions = []string{"/v1.45"}
	b.drowse()
	go func() { // the snapshot asks for the version too
		<-arrived
		close(slow)
	}()
	if err := b.Snapshot(t.Context(), b.engine); err != nil {
		t.Fatal(err)
	}
	b.Suspend()
	if got, err := io.ReadAll(resp.Body); string(got) != "half, whole" || err != nil {
		t.Errorf("an answer that was half given is %q, %v; want the whole", got, err)
	}
	resp, err := http.ReadResponse(r2, nil)
	if err != nil || resp.StatusCode != 200 || resp.Header.Get(snapshotHeader) == "" {
		t.Errorf("a call that hangs in the engine = %v, %v; want it from the snapshot", resp, err)
	}
	if b.wakeups() != 0 {
		t.Error("a passive call in flight woke the engine")
	}
}

// Polls, uses and sleeps at once: no call fails, and the polls wake nobody.
func TestNoCallFailsOverManySleeps(t *testing.T) {
	p := play(t)
	b := newBed(t, p.dial)
	b.get("GET /v1.45/containers/json")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	ask := func(calls ...string) {
		wg.Go(func() {
			for ctx.Err() == nil {
				for _, call := range calls {
					if resp, body := b.get(call); resp.StatusCode > 299 {
						t.Errorf("%s = %s %s", call, resp.Status, body)
					}
				}
			}
		})
	}
	ask("HEAD /_ping", "GET /v1.45/containers/json?all=1", "GET /v1.45/containers/web/json")
	ask("GET /v1.45/info", "GET /v1.45/containers/json?limit=1")
	ask("GET /v1.45/images/json", "GET /v1.45/events?until=1")
	for range 30 {
		b.sleep()
		b.rise()
	}
	if n := b.wakeups(); n > 2 {
		t.Errorf("polls woke the engine %d times; want at most once for each odd call", n)
	}
}

func TestTheSnapshotLogsNothing(t *testing.T) {
	var log bytes.Buffer
	p := play(t)
	b := &bed{t: t, engine: p.dial}
	b.Front = New(b, GuestPaths, shared{}, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	b.path, _ = serve(t, b.Front)
	b.sleep()
	if _, body := b.get("GET /containers/web/json"); !strings.Contains(body, "hunter2") {
		t.Fatalf("the container is %q; want it with its password", body)
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("a password is in the log: %s", log.String())
	}
}
