package dockerapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy"
)

// stream is a client's stream of events.
type stream struct {
	t    *testing.T
	resp *http.Response
	r    *bufio.Reader
	conn io.Closer
}

// follow opens one.
func (b *bed) follow(uri string, headers ...string) *stream {
	b.t.Helper()
	c, r := client(b.t, b.path)
	head := "GET " + uri + " HTTP/1.1\nHost: d"
	for _, h := range headers {
		head += "\n" + h
	}
	resp := ask(b.t, c, r, head, "")
	return &stream{b.t, resp, bufio.NewReader(resp.Body), c}
}

// want reads events and compares them with the wanted ones, by their actions.
func (s *stream) want(actions ...string) {
	s.t.Helper()
	for _, action := range actions {
		line, err := s.r.ReadBytes('\n')
		if err != nil {
			s.t.Fatalf("the stream ended with %q, %v; want %s", line, err, action)
		}
		var e playedEvent
		if err := json.Unmarshal(bytes.TrimPrefix(line, []byte{0x1e}), &e); err != nil || e.Action != action {
			s.t.Fatalf("the next event is %q, %v; want %s", line, err, action)
		}
	}
}

// end reads its end.
func (s *stream) end(want error) {
	s.t.Helper()
	if rest, err := io.ReadAll(s.r); len(rest) > 0 || !errors.Is(err, want) {
		s.t.Errorf("the stream goes on with %q, %v; want its end with %v", rest, err, want)
	}
}

func TestEventsGoOnOverSleeps(t *testing.T) {
	p := play(t)
	b := newBed(t, p.dial)
	p.late("container", "before", 10*time.Second) // nobody's
	all := b.follow("/v1.45/events")
	some := b.follow(`/v1.52/events?filters=`+url.QueryEscape(`{"type":{"image":true}}`), "Accept: application/json-seq")
	quiet := b.follow(`/events?filters=` + url.QueryEscape(`{"type":{"daemon":true}}`))
	if got := all.resp.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type for 1.45 = %q; want application/json", got)
	}
	p.emit("container", "start")
	p.emit("image", "pull")
	all.want("start", "pull")
	some.want("pull")
	for i := range 5 {
		n := func(s string) string { return fmt.Sprint(s, i) }
		p.emit("container", n("just before"))
		b.drowse()
		p.emit("image", n("while saving"))
		if err := b.Snapshot(t.Context(), b.engine); err != nil {
			t.Fatal(err)
		}
		p.emit("container", n("before the cut"))
		all.want(n("just before"), n("while saving"), n("before the cut"))
		b.Suspend()
		p.late("container", n("late"), time.Nanosecond) // it took its time before what came already
		p.emit("image", n("after the cut"))
		eventually(t, "no stream is open in the engine", func() bool { return p.subscribers() == 0 })
		during := b.follow("/events")
		b.rise()
		p.emit("container", n("after the wake"))
		all.want(n("late"), n("after the cut"), n("after the wake"))
		some.want(n("while saving"), n("after the cut"))
		// Of what was before it was opened it gets no more than what was since the snapshot.
		during.want(n("before the cut"), n("late"), n("after the cut"), n("after the wake"))
		during.conn.Close()
		eventually(t, "the streams are open again, and the client's that went is not", func() bool { return p.subscribers() == 3 })
	}
	p.emit("daemon", "reload")
	quiet.want("reload")
	if n := b.wakeups(); n != 0 {
		t.Errorf("streams of events woke the engine %d times", n)
	}
	if use := b.Activity(); use != (Activity{}) {
		t.Errorf("streams of events are use: %+v", use)
	}
}

// A client that does not read sees nothing of a sleep that comes and goes meanwhile.
func TestASlowClientMissesTheSleepAndNoEvent(t *testing.T) {
	p := play(t)
	b := newBed(t, p.dial)
	s := b.follow("/events")
	var want []string
	long := strings.Repeat("x", 8<<10) // what waits in the sockets does not fit in them
	for i := range 100 {
		want = append(want, fmt.Sprint(i, long))
		p.emit("container", want[i])
	}
	b.sleep()
	b.rise()
	for i := range 100 {
		want = append(want, fmt.Sprint("later", i, long))
		p.emit("container", want[100+i])
	}
	s.want(want...)
}

func TestEventsOfASleepingEngine(t *testing.T) {
	p := play(t)
	b := newBed(t, p.dial)
	unix := func(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
	begin := time.Now()
	p.emit("container", "one")
	between := p.clock.Add(1)
	time.Sleep(time.Millisecond)
	p.emit("container", "two")
	p.emit("image", "three")
	const images = `filters=%7B%22type%22%3A%7B%22image%22%3Atrue%7D%7D`
	b.follow("/events").conn.Close()
	b.follow("/events?" + images).conn.Close()
	eventually(t, "the streams are closed", func() bool { return p.subscribers() == 0 })
	b.sleep()
	later := time.Now().Add(time.Hour)
	b.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	for i, row := range []struct {
		says, query string
		want        []string
	}{
		{"all of the past", "since=" + unix(begin) + "&until=" + unix(time.Now()), []string{"one", "two", "three"}},
		{"all up to a time", "until=" + unix(between), []string{"one"}},
		{"a part of the past", "since=" + unix(between) + "&until=" + unix(time.Now()), []string{"two", "three"}},
		{"a part of the past with a filter", images + "&since=1&until=" + unix(time.Now()), []string{"three"}},
		{"what was since it sleeps", "since=" + unix(later) + "&until=" + unix(later), nil},
		{"what was since it sleeps with a filter that is new", "filters=%7B%22type%22%3A%7B%22daemon%22%3Atrue%7D%7D&since=" + unix(later) + "&until=" + unix(later), nil},
		{"all of the past, and what will be for a moment", "until=" + unix(time.Now().Add(20*time.Millisecond)), []string{"one", "two", "three"}},
		{"what was and will be for a moment", "since=" + unix(between) + "&until=" + unix(time.Now().Add(20*time.Millisecond)), []string{"two", "three"}},
	} {
		t.Run(row.says, func(t *testing.T) {
			if b.t = t; i == 6 {
				b.now = time.Now
			}
			s := b.follow("/events?" + row.query)
			s.t = t
			s.want(row.want...)
			s.end(nil)
			if n := b.wakeups(); n != 0 {
				t.Errorf("it woke the engine %d times", n)
			}
		})
	}
	b.t = t
	s := b.follow("/events?since=" + unix(between))
	s.want("two", "three")
	b.rise()
	p.emit("container", "four")
	s.want("four")

	b.sleep()
	if resp, body := b.get("GET /events?since=x"); resp.StatusCode != 400 || b.wakeups() != 1 {
		t.Errorf("a time that is none = %s %q after %d wakes; want the engine's refusal after one", resp.Status, body, b.wakeups())
	}
	b.rise()
	b.sleep()
	const odd = "GET /events?filters=%7B%22type%22%3A%7B%22volume%22%3Atrue%7D%7D&since=1&until=2"
	for range 2 {
		if resp, body := b.get(odd); resp.StatusCode != 200 || body != "" || b.wakeups() != 2 {
			t.Errorf("a filter that nobody used = %s %q after %d wakes; want the engine's answer after one more, and none the next time", resp.Status, body, b.wakeups())
		}
		b.rise()
		b.sleep()
	}
}

func TestEventsEndAsTheEngineEndsThem(t *testing.T) {
	for _, row := range []struct {
		says, chunks, came string
		end                error
	}{
		{"an engine that ends them", "6\r\n{\"a\"}\n\r\n0\r\n\r\n", "{\"a\"}\n", nil},
		{"an engine that is lost", "6\r\n{\"a\"}\n\r\n", "{\"a\"}\n", io.ErrUnexpectedEOF},
		{"an engine that is lost within an event", "4\r\nhalf\r\n", "half", io.ErrUnexpectedEOF},
	} {
		t.Run(row.says, func(t *testing.T) {
			b := newBed(t, rawEngine(t, func(c *net.UnixConn) {
				http.ReadRequest(bufio.NewReader(c))
				io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+row.chunks)
			}))
			s := b.follow("/events")
			got, err := io.ReadAll(s.r)
			if !errors.Is(err, row.end) || string(got) != row.came {
				t.Errorf("the stream gave %q, %v; want %q and %v", got, err, row.came, row.end)
			}
		})
	}
	t.Run("an engine that is stopped while it sleeps", func(t *testing.T) {
		p := play(t)
		b := newBed(t, p.dial)
		s := b.follow("/events")
		b.sleep()
		b.engine = proxy.DialFunc(func(context.Context, string) (proxy.Conn, error) { return nil, errors.New("it is stopped") })
		b.rise()
		s.end(io.ErrUnexpectedEOF)
	})
	t.Run("a client that goes while the engine sleeps", func(t *testing.T) {
		p := play(t)
		gone := make(chan struct{})
		b := newBed(t, p.dial)
		b.sleep()
		inner := b.Front.waker
		b.Front.waker = watched{inner, nil, func() { close(gone) }}
		b.follow("/events").conn.Close()
		select {
		case <-gone:
		case <-time.After(patience):
			t.Error("the stream of a client that went is held")
		}
	})
}

// watched is a Waker that tells of a wait, and of its end that came to nothing.
type watched struct {
	Waker
	begun, ended func()
}

func (w watched) Woken(ctx context.Context) error {
	if w.begun != nil {
		w.begun()
	}
	err := w.Waker.Woken(ctx)
	if err != nil && w.ended != nil {
		w.ended()
	}
	return err
}

func TestEventsForm(t *testing.T) {
	for _, row := range []struct{ path, accept, want string }{
		{"/events", "", "application/jsonl"},
		{"/v1.52/events", "", "application/jsonl"},
		{"/v1.51/events", "", "application/json"},
		{"/v1.51/events", "application/json-seq", "application/json-seq"},
		{"/events", "*/*", "application/jsonl"},
		{"/events", "application/jsonl, application/x-ndjson;q=0.9, application/json-seq;q=0.5", "application/jsonl"},
		{"/events", "application/jsonl;q=0.1, application/x-ndjson;q=0.9", "application/x-ndjson"},
		{"/events", "application/jsonl;q=0, text/html", "application/jsonl"},
	} {
		r := mustRequest(t, row.path)
		if row.accept != "" {
			r.Header.Set("Accept", row.accept)
		}
		if got := eventsForm(r); got != row.want {
			t.Errorf("eventsForm(%s, Accept: %s) = %s; want %s", row.path, row.accept, got, row.want)
		}
	}
}

func TestUnixTime(t *testing.T) {
	for _, row := range []struct {
		text string
		want time.Time
		bad  bool
	}{
		{"", time.Time{}, false},
		{"0", time.Unix(0, 0), false},
		{"12", time.Unix(12, 0), false},
		{"12.", time.Unix(12, 0), false},
		{"12.5", time.Unix(12, 5e8), false},
		{"12.000000001", time.Unix(12, 1), false},
		{"12.0000000019", time.Unix(12, 1), false},
		{"1m", time.Time{}, true},
		{"12.-5", time.Time{}, true},
		{"2026-01-01", time.Time{}, true},
	} {
		if got, err := unixTime(row.text); !got.Equal(row.want) && err == nil || (err != nil) != row.bad {
			t.Errorf("unixTime(%q) = %v, %v; want %v", row.text, got, err, row.want)
		}
	}
}

// The real CLI follows the events over two sleeps, and lists what there is between.
func TestTheDockerCLIOverSleeps(t *testing.T) {
	cli, err := filepath.Abs("../../bin/docker")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(cli); err != nil {
		t.Skip("no docker CLI: make image")
	}
	p := play(t)
	b := newBed(t, p.dial)
	run := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), cli, args...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+b.path, "DOCKER_CONFIG="+t.TempDir(), "DOCKER_CONTEXT=")
		return cmd
	}
	events := run("events", "--format", "{{.Action}}")
	out, err := events.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := events.Start(); err != nil {
		t.Fatal(err)
	}
	defer events.Wait()
	defer events.Process.Kill()
	lines := bufio.NewScanner(out)
	want := func(action string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != action {
			t.Fatalf("docker events prints %q; want %s", lines.Text(), action)
		}
	}
	eventually(t, "docker events follows", func() bool { return p.subscribers() == 1 })
	for i := range 2 {
		p.emit("container", fmt.Sprint("before", i))
		b.sleep()
		eventually(t, "it is cut", func() bool { return p.subscribers() == 0 })
		want(fmt.Sprint("before", i))
		for _, args := range [][]string{
			{"version"}, {"ps", "-q"}, {"ps", "-aq"}, {"images", "-q"}, {"network", "ls", "-q"}, {"volume", "ls", "-q"},
			{"inspect", "web"}, {"inspect", "busybox"}, {"inspect", "net1"}, {"inspect", "vol1"}, {"context", "ls"},
		} {
			if text, err := run(args...).CombinedOutput(); err != nil {
				t.Errorf("docker %s = %v: %s", strings.Join(args, " "), err, text)
			}
			if n := b.wakeups(); n != 0 {
				t.Fatalf("docker %s woke the engine", strings.Join(args, " "))
			}
		}
		b.rise()
		p.emit("container", fmt.Sprint("after", i))
		want(fmt.Sprint("after", i))
	}
}
