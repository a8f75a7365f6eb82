//go:build unix

package localapi_test

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
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/client"
	"github.com/covedesk/cove/app/internal/localapi"
)

// patience bounds every wait. It is for a machine under load.
const patience = 2 * time.Minute

// core is a daemon that writes down what it is asked and answers what it is told to.
type core struct {
	fail error // what every call gives

	quit   func()
	follow chan string // lines of a followed log
	ended  chan struct{}

	mu      sync.Mutex
	asked   []string
	status  api.Status
	changed chan struct{}
}

var _ localapi.Core = (*core)(nil)

func newCore() *core {
	return &core{changed: make(chan struct{}), follow: make(chan string), ended: make(chan struct{}, 1), status: api.Status{Phase: api.Stopped}}
}

func (c *core) ask(format string, args ...any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, fmt.Sprintf(format, args...))
	return c.fail
}

func (c *core) wasAsked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asked)
}

// become changes the status.
func (c *core) become(s api.Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = s
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *core) Status() (api.Status, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status, c.changed
}

func (c *core) Start(context.Context) error   { return c.ask("start") }
func (c *core) Stop(context.Context) error    { return c.ask("stop") }
func (c *core) Suspend(context.Context) error { return c.ask("suspend") }
func (c *core) Quit(context.Context) error {
	err := c.ask("quit")
	if c.quit != nil {
		c.quit()
	}
	return err
}

func (c *core) Settings() ([]api.Setting, error) {
	return []api.Setting{{Key: "cpus", Value: "4"}}, c.ask("settings")
}
func (c *core) Setting(key string) (api.Setting, error) {
	return api.Setting{Key: key, Value: "4"}, c.ask("setting %s", key)
}
func (c *core) Set(_ context.Context, key, value string, dry bool) (api.SettingChange, error) {
	return api.SettingChange{Key: key, Value: value, Restart: true, DryRun: dry}, c.ask("set %s %s%s", key, value, map[bool]string{true: ", dry"}[dry])
}
func (c *core) Unset(_ context.Context, key string, dry bool) (api.SettingChange, error) {
	return api.SettingChange{Key: key, DryRun: dry}, c.ask("unset %s%s", key, map[bool]string{true: ", dry"}[dry])
}
func (c *core) Memory(context.Context) (api.Memory, error) {
	return api.Memory{Size: 1 << 30, Resident: 1 << 20}, c.ask("memory")
}
func (c *core) Image(context.Context) (api.Image, error) {
	return api.Image{Digest: "sha256:d"}, c.ask("image")
}
func (c *core) VerifyImage(_ context.Context, q api.VerifyRequest) (api.Verification, error) {
	return api.Verification{Reason: api.VerifyUnsigned}, c.ask("verify %s%s", q.Reference, q.Path)
}
func (c *core) Ports(context.Context) ([]api.Port, error) {
	return []api.Port{{Protocol: "tcp", Address: "127.0.0.1:80"}}, c.ask("ports")
}
func (c *core) ImportDisk(_ context.Context, path string) (api.Disk, error) {
	return api.Disk{Path: "/disk"}, c.ask("import %s", path)
}

func (c *core) DiskUsage(context.Context) (api.DiskUsage, error) {
	return api.DiskUsage{Disk: api.Disk{Path: "/disk"}, HostFree: 9}, c.ask("disk usage")
}

func (c *core) CompactDisk(context.Context) (api.Compacted, error) {
	return api.Compacted{Disk: api.Disk{Path: "/disk"}, Before: 9}, c.ask("compact")
}

func (c *core) Measure(_ context.Context, n int64) (api.Measured, error) {
	return api.Measured{Link: "vsock", Bytes: n}, c.ask("measure %d", n)
}

func (c *core) Logs(ctx context.Context, w io.Writer, name string, tail int, follow bool) error {
	if err := c.ask("logs %s %d %t", name, tail, follow); err != nil {
		return err
	}
	io.WriteString(w, "old\n")
	if !follow {
		return nil
	}
	defer func() { c.ended <- struct{}{} }()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case line := <-c.follow:
			if _, err := io.WriteString(w, line); err != nil {
				return err
			}
		}
	}
}

func (c *core) Shell(context.Context) (localapi.Joiner, error) {
	return shouter{c}, c.ask("shell")
}

// shouter answers every line in capitals, and after the end how many bytes there were.
type shouter struct{ c *core }

func (s shouter) Join(conn net.Conn, ahead io.Reader) error {
	n := 0
	for in := bufio.NewReader(io.MultiReader(ahead, conn)); ; {
		line, err := in.ReadString('\n')
		n += len(line)
		io.WriteString(conn, strings.ToUpper(line))
		if err != nil {
			_, err := fmt.Fprintf(conn, "%d bytes\n", n)
			return err
		}
	}
}

func (s shouter) Close() error { return s.c.ask("shell closed") }

// serve serves a core in a home of its own. end ends the serving and waits for it.
func serve(t *testing.T, c *core) (home api.Home, end func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "cove") // a test's own folder may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	home = api.Home(dir)
	if err := os.Mkdir(home.Dir("run"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", home.API())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- localapi.Serve(ctx, l, c) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve = %v; want nil after its context ended", err)
		}
	})
	t.Cleanup(end)
	return home, end
}

// ask sends a request over the socket and reads the whole answer.
func ask(t *testing.T, home api.Home, r *http.Request) (*http.Response, []byte) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", home.API())
	}}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	resp, err := tr.RoundTrip(r.WithContext(ctx))
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	return resp, b
}

func request(method, path, body string) *http.Request {
	r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	r.RequestURI = ""
	return r
}

// failure reads an error's body.
func failure(t *testing.T, resp *http.Response, body []byte) api.Error {
	t.Helper()
	var e api.Error
	if err := json.Unmarshal(body, &e); err != nil || e.Cause == "" || e.Summary == "" {
		t.Errorf("the body of %s is %q (%v); want a cause and a summary", resp.Status, body, err)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type of %s = %q; want application/json", resp.Status, got)
	}
	return e
}

var routes = []struct {
	method, path, body string
	asked              string // of the core
	code               int
	answer             string // is in the body
}{
	{"GET", "/v1/status", "", "", 200, `"phase": "stopped"`},
	{"POST", "/v1/start", "", "start", 200, `"phase": "stopped"`},
	{"POST", "/v1/stop", "", "stop", 200, `"phase": "stopped"`},
	{"POST", "/v1/quit", "", "quit", 204, ""},
	{"GET", "/v1/settings", "", "settings", 200, `"key": "cpus"`},
	{"GET", "/v1/settings/cpus", "", "setting cpus", 200, `"value": "4"`},
	{"PUT", "/v1/settings/cpus", `{"value":"2"}`, "set cpus 2", 200, `"restart": true`},
	{"PUT", "/v1/settings/cpus", `{"value":""}`, "set cpus ", 200, `"value": ""`},
	{"PUT", "/v1/settings/cpus?dry-run=true", `{"value":"2"}`, "set cpus 2, dry", 200, `"dryRun": true`},
	{"PUT", "/v1/settings/cpus?dry-run=false", `{"value":"2"}`, "set cpus 2", 200, `"restart": true`},
	{"DELETE", "/v1/settings/cpus", "", "unset cpus", 200, `"key": "cpus"`},
	{"DELETE", "/v1/settings/cpus?dry-run=1", "", "unset cpus, dry", 200, `"dryRun": true`},
	{"GET", "/v1/memory", "", "memory", 200, `"resident": 1048576`},
	{"GET", "/v1/image", "", "image", 200, `"digest": "sha256:d"`},
	{"POST", "/v1/image/verify", `{"reference": "alpine"}`, "verify alpine", 200, `"reason": "unsigned"`},
	{"POST", "/v1/image/verify", `{"path": "/image.tar"}`, "verify /image.tar", 200, `"verified": false`},
	{"POST", "/v1/image/verify", `{"path": "image.tar"}`, "", 400, `"invalid"`},
	{"POST", "/v1/image/verify", `{}`, "", 400, `"invalid"`},
	{"GET", "/v1/ports", "", "ports", 200, `"address": "127.0.0.1:80"`},
	{"GET", "/v1/logs/dockerd", "", "logs dockerd 0 false", 200, "old\n"},
	{"GET", "/v1/logs/dockerd?tail=7&follow=false", "", "logs dockerd 7 false", 200, "old\n"},
	{"POST", "/v1/disk/import", `{"path": "/backup.qcow2"}`, "import /backup.qcow2", 200, `"path": "/disk"`},
	{"GET", "/v1/disk", "", "disk usage", 200, `"hostFree": 9`},
	{"POST", "/v1/disk/compact", "", "compact", 200, `"before": 9`},
	{"POST", "/v1/diag/transport?bytes=1048576", "", "measure 1048576", 200, `"link": "vsock"`},
}

func TestRoutes(t *testing.T) {
	for _, row := range routes {
		t.Run(row.method+" "+row.path, func(t *testing.T) {
			c := newCore()
			home, _ := serve(t, c)
			resp, body := ask(t, home, request(row.method, row.path, row.body))
			if resp.StatusCode != row.code || !strings.Contains(string(body), row.answer) {
				t.Errorf("%s %s %s = %s %s; want %d with %s", row.method, row.path, row.body, resp.Status, body, row.code, row.answer)
			}
			if got := strings.Join(c.wasAsked(), ", "); got != row.asked {
				t.Errorf("%s %s asks the core %q; want %q", row.method, row.path, got, row.asked)
			}
		})
	}
}

func TestEveryRoutePassesOnWhatIsWrong(t *testing.T) {
	c := newCore()
	home, _ := serve(t, c)
	for _, row := range []struct {
		err  error
		code int
		want api.Failure
	}{
		{&api.Error{Failure: api.Failure{Cause: api.CauseInvalid, Summary: "No.", Remedy: "Do.", Evidence: "e"}}, 400, api.Failure{Cause: api.CauseInvalid, Summary: "No.", Remedy: "Do.", Evidence: "e"}},
		{fmt.Errorf("ask: %w", &api.Error{Failure: api.Failure{Cause: api.CauseNotFound, Summary: "No."}}), 404, api.Failure{Cause: api.CauseNotFound, Summary: "No."}},
		{&api.Error{Failure: api.Failure{Cause: api.CauseNotRunning, Summary: "No."}}, 409, api.Failure{Cause: api.CauseNotRunning, Summary: "No."}},
		{&api.Error{Failure: api.Failure{Cause: api.CauseStopped, Summary: "No."}}, 409, api.Failure{Cause: api.CauseStopped, Summary: "No."}},
		{&api.Error{Failure: api.Failure{Cause: "no-hypervisor", Summary: "No."}}, 500, api.Failure{Cause: "no-hypervisor", Summary: "No."}},
		{errors.New("oh"), 500, api.Failure{Cause: api.CauseInternal, Summary: "oh"}},
	} {
		c.fail = row.err
		for _, route := range routes {
			if route.asked == "" {
				continue
			}
			resp, body := ask(t, home, request(route.method, route.path, route.body))
			if got := failure(t, resp, body); resp.StatusCode != row.code || got.Failure != row.want {
				t.Errorf("%s %s when the core says %v = %d %+v; want %d %+v", route.method, route.path, row.err, resp.StatusCode, got.Failure, row.code, row.want)
			}
		}
	}
}

func TestBrowsersAreRefusedBeforeRouting(t *testing.T) {
	c := newCore()
	home, _ := serve(t, c)
	for _, row := range []struct {
		says  string
		taint func(*http.Request)
	}{
		{"a page that rebinds its name shows in Host", func(r *http.Request) { r.Host = "evil.example" }},
		{"an address as Host is no name of ours", func(r *http.Request) { r.Host = "127.0.0.1:80" }},
		{"a name that only begins like ours is not ours", func(r *http.Request) { r.Host = "localhost.evil.example:80" }},
		{"another site's page shows in Origin", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }},
		{"a page of localhost is a browser's too", func(r *http.Request) { r.Header.Set("Origin", "http://localhost") }},
		{"a sandboxed page's Origin is null", func(r *http.Request) { r.Header.Set("Origin", "null") }},
		{"a page without an Origin shows in Sec-Fetch-Site", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "none") }},
	} {
		for _, route := range append(slices.Clone(routes), routes[0], struct {
			method, path, body, asked string
			code                      int
			answer                    string
		}{"GET", "/v1/nothing", "", "", 404, ""}, struct {
			method, path, body, asked string
			code                      int
			answer                    string
		}{"POST", "/v1/shell", "", "", 400, ""}) {
			r := request(route.method, route.path, route.body)
			row.taint(r)
			resp, body := ask(t, home, r)
			if got := failure(t, resp, body); resp.StatusCode != 403 || got.Cause != api.CauseForbidden {
				t.Errorf("%s: %s %s = %d %s; want 403 %s", row.says, route.method, route.path, resp.StatusCode, got.Cause, api.CauseForbidden)
			}
		}
	}
	if got := c.wasAsked(); len(got) != 0 {
		t.Errorf("strangers made the core do %q", got)
	}
	for _, host := range []string{"cove", "localhost", "localhost:80"} {
		r := request("GET", "/v1/status", "")
		r.Host = host
		if resp, _ := ask(t, home, r); resp.StatusCode != 200 {
			t.Errorf("GET /v1/status with Host %s = %s; want 200", host, resp.Status)
		}
	}
}

func TestWhatIsNotThereAndWhatMakesNoSense(t *testing.T) {
	c := newCore()
	home, _ := serve(t, c)
	for _, row := range []struct {
		says, method, path, body string
		code                     int
		cause                    string
	}{
		{"the root is nothing", "GET", "/", "", 404, api.CauseNotFound},
		{"a path without its version is nothing", "GET", "/status", "", 404, api.CauseNotFound},
		{"another version is not there", "GET", "/v2/status", "", 404, api.CauseNotFound},
		{"a folder of settings is nothing", "GET", "/v1/settings/", "", 404, api.CauseNotFound},
		{"a wrong method finds nothing", "GET", "/v1/start", "", 404, api.CauseNotFound},
		{"a status cannot be put", "PUT", "/v1/status", "{}", 404, api.CauseNotFound},
		{"a dry run that is misspelt changes nothing", "PUT", "/v1/settings/cpus?dryrun=true", `{"value":"2"}`, 400, api.CauseInvalid},
		{"a dry run is true or false", "DELETE", "/v1/settings/cpus?dry-run=please", "", 400, api.CauseInvalid},
		{"a setting needs a body", "PUT", "/v1/settings/cpus", "", 400, api.CauseInvalid},
		{"a setting's body is JSON", "PUT", "/v1/settings/cpus", "2", 400, api.CauseInvalid},
		{"a setting's body has a value", "PUT", "/v1/settings/cpus", "{}", 400, api.CauseInvalid},
		{"a value of null is none", "PUT", "/v1/settings/cpus", `{"value":null}`, 400, api.CauseInvalid},
		{"a value is a string", "PUT", "/v1/settings/cpus", `{"value":2}`, 400, api.CauseInvalid},
		{"a body that is cut off sets nothing", "PUT", "/v1/settings/cpus", `{"value":"2"`, 400, api.CauseInvalid},
		{"a second value behind the first sets nothing", "PUT", "/v1/settings/cpus", `{"value":"2"}{"value":"3"}`, 400, api.CauseInvalid},
		{"a value has a limit", "PUT", "/v1/settings/engine", `{"value":"` + strings.Repeat("x", 300<<10) + `"}`, 400, api.CauseInvalid},
		{"tail is a number", "GET", "/v1/logs/coved?tail=x", "", 400, api.CauseInvalid},
		{"tail is not negative", "GET", "/v1/logs/coved?tail=-1", "", 400, api.CauseInvalid},
		{"an import has an absolute path", "POST", "/v1/disk/import", `{"path": "backup.qcow2"}`, 400, api.CauseInvalid},
		{"a measurement has a size", "POST", "/v1/diag/transport", "", 400, api.CauseInvalid},
		{"a measurement of nothing makes no sense", "POST", "/v1/diag/transport?bytes=0", "", 400, api.CauseInvalid},
		{"a measurement has a limit", "POST", "/v1/diag/transport?bytes=1073741825", "", 400, api.CauseInvalid},
		{"a shell is an upgrade", "POST", "/v1/shell", "", 400, api.CauseInvalid},
	} {
		resp, body := ask(t, home, request(row.method, row.path, row.body))
		if got := failure(t, resp, body); resp.StatusCode != row.code || got.Cause != row.cause {
			t.Errorf("%s: %s %s %.40s = %d %s; want %d %s", row.says, row.method, row.path, row.body, resp.StatusCode, got.Cause, row.code, row.cause)
		}
	}
	if got := c.wasAsked(); len(got) != 0 {
		t.Errorf("calls that make no sense made the core do %q", got)
	}
}

// connect sends a head, with \n for line ends, and gives the connection.
func connect(t *testing.T, home api.Home, head, body string) (*net.UnixConn, *http.Response, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("unix", home.API())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, strings.ReplaceAll(head, "\n", "\r\n")+"\r\n\r\n"+body)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("%.40q: %v", head, err)
	}
	return c.(*net.UnixConn), resp, r
}

func TestEvents(t *testing.T) {
	c := newCore()
	home, end := serve(t, c)
	conn, resp, _ := connect(t, home, "GET /v1/events HTTP/1.1\nHost: cove", "")
	if got := resp.Header.Get("Content-Type"); got != "application/x-ndjson" {
		t.Errorf("Content-Type of the events = %q; want application/x-ndjson", got)
	}
	lines := bufio.NewReader(resp.Body)
	next := func() string {
		t.Helper()
		line, err := lines.ReadBytes('\n')
		var e api.Event
		if err != nil || json.Unmarshal(line, &e) != nil {
			t.Fatalf("next event = %q, %v; want a line of JSON", line, err)
		}
		switch {
		case e.Type == "status" && e.Status != nil:
			return string(e.Status.Phase)
		case e.Type == "step" && e.Step != nil:
			return e.Step.Name
		}
		t.Fatalf("next event = %s; want a status or a step", line)
		return ""
	}
	want := func(says string, all ...string) {
		t.Helper()
		for _, w := range all {
			if got := next(); got != w {
				t.Fatalf("%s: next event = %s; want %s of %v", says, got, w, all)
			}
		}
	}
	want("the first line comes at once", "stopped")
	one := []api.Step{{Name: "a", Start: 0.1}, {Name: "b", Start: 0.2}}
	c.become(api.Status{Phase: api.Starting, Timeline: one[:1]})
	want("a change is a line, its step before it", "a", "starting")
	c.become(api.Status{Phase: api.Running, Timeline: one})
	want("a step is told once", "b", "running")
	c.become(api.Status{Phase: api.Stopping, Timeline: one})
	want("no step is no line", "stopping")
	c.become(api.Status{Phase: api.Starting, Timeline: []api.Step{{Name: "a", Start: 0.3}, {Name: "b", Start: 0.4}, {Name: "c", Start: 0.5}}})
	want("a new start tells all its steps, though it has more than the last one had", "a", "b", "c", "starting")
	c.become(api.Status{Phase: api.Starting})
	want("a start without steps", "starting")
	c.become(api.Status{Phase: api.Starting, Timeline: one[:1]})
	want("and its first step", "a", "starting")
	conn.Close()

	ended := make(chan error, 1)
	first := make(chan struct{})
	go func() {
		ended <- client.New(home).Events(context.Background(), func(api.Event) {
			select {
			case <-first:
			default:
				close(first)
			}
		})
	}()
	<-first
	end() // must not wait for the client
	if err := <-ended; err == nil {
		t.Error("Events = nil after the daemon ended; want an error")
	}
}

func TestTheClientsEventsEndWithIt(t *testing.T) {
	home, _ := serve(t, newCore())
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := client.New(home).Events(ctx, func(e api.Event) { n++; cancel() })
	if !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("Events = %v after %d events; want context.Canceled after the first", err, n)
	}
}

func TestLogsComeAsTheyAreWritten(t *testing.T) {
	c := newCore()
	home, _ := serve(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	pr, pw := io.Pipe()
	copied := make(chan error, 1)
	go func() { copied <- client.New(home).Logs(ctx, pw, "dockerd", 5, true) }()
	in := bufio.NewReader(pr)
	for _, want := range []string{"old\n", "one\n", "two\n"} {
		if want != "old\n" {
			c.follow <- want
		}
		if got, err := in.ReadString('\n'); got != want || err != nil {
			t.Fatalf("the log's next line = %q, %v; want %q while the log goes on", got, err, want)
		}
	}
	if got := c.wasAsked(); len(got) != 1 || got[0] != "logs dockerd 5 true" {
		t.Errorf("the core was asked %q; want logs dockerd 5 true", got)
	}
	cancel()
	<-copied
	select {
	case <-c.ended:
	case <-time.After(patience):
		t.Error("a log is followed for a client that went away")
	}
}

func TestShell(t *testing.T) {
	const head = "POST /v1/shell HTTP/1.1\nHost: cove\nConnection: Upgrade\nUpgrade: cove-shell\nContent-Length: 0"
	c := newCore()
	home, _ := serve(t, c)
	t.Run("bytes right behind the head are kept, and the answer to a half-close comes", func(t *testing.T) {
		conn, resp, r := connect(t, home, head, "early\nbi")
		if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Upgrade") != localapi.ShellProtocol {
			t.Fatalf("POST /v1/shell = %s with %v; want an upgrade to %s", resp.Status, resp.Header, localapi.ShellProtocol)
		}
		io.WriteString(conn, "rd\n")
		conn.CloseWrite()
		if got, err := io.ReadAll(r); string(got) != "EARLY\nBIRD\n11 bytes\n" || err != nil {
			t.Errorf("the shell gave %q, %v; want both lines and their count", got, err)
		}
	})
	t.Run("the client's stream carries both ways", func(t *testing.T) {
		s, err := client.New(home).Shell(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.SetDeadline(time.Now().Add(patience))
		io.WriteString(s, "hello\n")
		b := make([]byte, 6)
		if _, err := io.ReadFull(s, b); string(b) != "HELLO\n" || err != nil {
			t.Errorf("the stream gave %q, %v; want HELLO", b, err)
		}
		s.Conn.(*net.UnixConn).CloseWrite()
		if got, err := io.ReadAll(s); string(got) != "6 bytes\n" || err != nil {
			t.Errorf("after a half-close the stream gave %q, %v; want the count", got, err)
		}
	})
	t.Run("a shell that is not to be had is an error of the API", func(t *testing.T) {
		c := newCore()
		c.fail = &api.Error{Failure: api.Failure{Cause: api.CauseNotRunning, Summary: "No."}}
		home, _ := serve(t, c)
		_, err := client.New(home).Shell(t.Context())
		var e *api.Error
		if !errors.As(err, &e) || e.Cause != api.CauseNotRunning {
			t.Errorf("Shell = %v; want %s", err, api.CauseNotRunning)
		}
	})
}

func TestClient(t *testing.T) {
	c := newCore()
	home, _ := serve(t, c)
	cl := client.New(home)
	ctx := t.Context()
	calls := []struct {
		name, asked string
		do          func() (any, error)
		want        any
	}{
		{"Start", "start", func() (any, error) { return nil, cl.Start(ctx) }, nil},
		{"Stop", "stop", func() (any, error) { return nil, cl.Stop(ctx) }, nil},
		{"Suspend", "suspend", func() (any, error) { return nil, cl.Suspend(ctx) }, nil},
		{"Quit", "quit", func() (any, error) { return nil, cl.Quit(ctx) }, nil},
		{"Settings", "settings", func() (any, error) { return cl.Settings(ctx) }, []api.Setting{{Key: "cpus", Value: "4"}}},
		{"Setting of an odd key", "setting a/b ?", func() (any, error) { return cl.Setting(ctx, "a/b ?") }, api.Setting{Key: "a/b ?", Value: "4"}},
		{"Set", `set engine {"a":1}`, func() (any, error) { return cl.Set(ctx, "engine", `{"a":1}`, false) }, api.SettingChange{Key: "engine", Value: `{"a":1}`, Restart: true}},
		{"Set, dry", "set cpus 2, dry", func() (any, error) { return cl.Set(ctx, "cpus", "2", true) }, api.SettingChange{Key: "cpus", Value: "2", Restart: true, DryRun: true}},
		{"Unset", "unset cpus", func() (any, error) { return cl.Unset(ctx, "cpus", false) }, api.SettingChange{Key: "cpus"}},
		{"Unset, dry", "unset cpus, dry", func() (any, error) { return cl.Unset(ctx, "cpus", true) }, api.SettingChange{Key: "cpus", DryRun: true}},
		{"Memory", "memory", func() (any, error) { return cl.Memory(ctx) }, api.Memory{Size: 1 << 30, Resident: 1 << 20}},
		{"Image", "image", func() (any, error) { return cl.Image(ctx) }, api.Image{Digest: "sha256:d"}},
		{"VerifyImage", "verify alpine", func() (any, error) { return cl.VerifyImage(ctx, api.VerifyRequest{Reference: "alpine"}) }, api.Verification{Reason: api.VerifyUnsigned}},
		{"Measure", "measure 7", func() (any, error) { return cl.Measure(ctx, 7) }, api.Measured{Link: "vsock", Bytes: 7}},
		{"Logs", "logs a b 3 false", func() (any, error) {
			var b bytes.Buffer
			return b.String, cl.Logs(ctx, &b, "a b", 3, false)
		}, nil},
	}
	for _, call := range calls {
		c.asked, c.fail = nil, nil
		got, err := call.do()
		if err != nil || call.want != nil && !reflect.DeepEqual(got, call.want) {
			t.Errorf("%s = %+v, %v; want %+v", call.name, got, err, call.want)
		}
		if asked := c.wasAsked(); len(asked) != 1 || asked[0] != call.asked {
			t.Errorf("%s asks the core %q; want %q", call.name, asked, call.asked)
		}
		want := api.Failure{Cause: "no-memory", Summary: "No.", Remedy: "Close other programs.", Evidence: "e"}
		c.fail = &api.Error{Failure: want}
		_, err = call.do()
		var e *api.Error
		if !errors.As(err, &e) || e.Failure != want {
			t.Errorf("%s when the core fails = %v; want the core's own *api.Error", call.name, err)
		}
	}
	c.become(api.Status{Phase: api.Running, Reason: "r"})
	if s, err := cl.Status(ctx); err != nil || s.Phase != api.Running || s.Reason != "r" {
		t.Errorf("Status = %+v, %v; want what the core says", s, err)
	}
}

func TestWithoutADaemonTheClientSaysSo(t *testing.T) {
	home, end := serve(t, newCore())
	c := client.New(home)
	if _, err := c.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	end()
	if _, err := c.Status(t.Context()); !errors.Is(err, client.ErrNoDaemon) {
		t.Errorf("Status after the daemon's end = %v; want ErrNoDaemon", err)
	}
	if _, err := c.Shell(t.Context()); !errors.Is(err, client.ErrNoDaemon) {
		t.Errorf("Shell after the daemon's end = %v; want ErrNoDaemon", err)
	}
	// What a killed daemon leaves: a socket that nobody listens on.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: home.API(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := c.Status(t.Context()); !errors.Is(err, client.ErrNoDaemon) {
		t.Errorf("Status on a dead socket = %v; want ErrNoDaemon", err)
	}
}

// The answer to quit goes though the daemon ends with it: the process may be gone when Serve returns.
func TestServeWaitsForTheAnswersOnTheirWay(t *testing.T) {
	dir, err := os.MkdirTemp("", "cove")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	home := api.Home(dir)
	os.Mkdir(home.Dir("run"), 0o700)
	l, err := net.Listen("unix", home.API())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	served := make(chan error, 1)
	c := newCore()
	early := false
	c.quit = func() {
		cancel()
		for { // until nobody is let in any more
			conn, err := net.Dial("unix", home.API())
			if err != nil {
				break
			}
			conn.Close()
		}
		select {
		case err := <-served:
			early = true
			served <- err
		case <-time.After(20 * time.Millisecond): // bounds what a wrong Serve may take to return
		}
	}
	go func() { served <- localapi.Serve(ctx, l, c) }()
	resp, _ := ask(t, home, request("POST", "/v1/quit", ""))
	if err := <-served; resp.StatusCode != 204 || err != nil || early {
		t.Errorf("POST /v1/quit = %s, Serve = %v, before the answer: %t; want 204 and then nil", resp.Status, err, early)
	}
}
