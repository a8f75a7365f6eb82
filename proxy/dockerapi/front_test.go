package dockerapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy"
)

// patience bounds every wait. It is for a machine under load.
const patience = 2 * time.Minute

// waker is a Waker made of a function.
type waker func(ctx context.Context, active bool) (proxy.Dialer, error)

func (w waker) Engine(ctx context.Context, active bool) (proxy.Dialer, error) { return w(ctx, active) }

// Woken is for those that never sleep.
func (waker) Woken(context.Context) error { return nil }

// awake is an engine that runs.
func awake(d proxy.Dialer) waker {
	return func(context.Context, bool) (proxy.Dialer, error) { return d, nil }
}

// listen makes a unix socket and gives its path. A test's own folder may be too long for one.
func listen(t *testing.T) (net.Listener, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "cove")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, path
}

func dialer(t *testing.T, path string) proxy.Dialer {
	return proxy.DialFunc(func(ctx context.Context, service string) (proxy.Conn, error) {
		if service != Service {
			t.Errorf("Dial(%q); want %q", service, Service)
		}
		c, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err != nil {
			return nil, err
		}
		return c.(*net.UnixConn), nil
	})
}

// engine is an HTTP server in the engine's place.
func engine(t *testing.T, h http.HandlerFunc) proxy.Dialer {
	t.Helper()
	l, path := listen(t)
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return dialer(t, path)
}

// rawEngine is one that speaks bytes.
func rawEngine(t *testing.T, f func(*net.UnixConn)) proxy.Dialer {
	t.Helper()
	l, path := listen(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(patience))
			go func() { defer c.Close(); f(c.(*net.UnixConn)) }()
		}
	}()
	return dialer(t, path)
}

// front serves a Front and gives its socket.
func front(t *testing.T, w Waker) string {
	t.Helper()
	path, _ := endingFront(t, w)
	return path
}

func endingFront(t *testing.T, w Waker) (path string, end func()) {
	t.Helper()
	return serve(t, New(w, GuestPaths, shared{"/srv/shared"}, slog.New(slog.DiscardHandler)))
}

func serve(t *testing.T, f *Front) (path string, end func()) {
	t.Helper()
	l, path := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- f.Serve(ctx, l) }()
	end = func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve = %v; want nil after its context ended", err)
		}
		served <- nil
	}
	t.Cleanup(end)
	return path, end
}

// client is a connection to the front.
func client(t *testing.T, path string) (*net.UnixConn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.UnixConn), bufio.NewReader(c)
}

// ask sends a whole request, as text with \n line ends in its head, and reads the answer's head.
func ask(t *testing.T, c net.Conn, r *bufio.Reader, head, body string) *http.Response {
	t.Helper()
	if _, err := io.WriteString(c, strings.ReplaceAll(head, "\n", "\r\n")+"\r\n\r\n"+body); err != nil {
		t.Fatalf("send %.40q: %v", head, err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("answer to %.40q: %v", head, err)
	}
	return resp
}

// message reads an error in the engine's format.
func message(t *testing.T, resp *http.Response) string {
	t.Helper()
	var m struct{ Message string }
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil || m.Message == "" {
		t.Errorf("the body of %s has no message (%v)", resp.Status, err)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type of %s = %q; want application/json", resp.Status, got)
	}
	return m.Message
}

func TestPlainCallsPassAsTheyAre(t *testing.T) {
	body := make([]byte, 3<<20)
	rand.Read(body)
	type seen struct {
		Method, URI, Host string
		Header            http.Header
		Body              []byte
	}
	got := make(chan seen, 1)
	d := engine(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- seen{r.Method, r.RequestURI, r.Host, r.Header, b}
		w.Header()["X-Odd-name"] = []string{"a", "b"}
		w.Header().Set("Api-Version", "1.52")
		w.WriteHeader(http.StatusTeapot)
		w.Write(b)
	})
	for _, row := range []struct {
		says, uri string
		header    http.Header
	}{
		{"an ordinary call passes", "/v1.47/containers/json?all=1", http.Header{"User-Agent": {"Docker-Client/29"}}},
		{"a client that does not name itself stays nameless", "/v1.47/images/json", http.Header{}},
		{"a query that is not one passes", "/events?filters=%7B%22a%22%3A1%7D&x=a;b&plus=a+b&%zz=1", http.Header{}},
		{"an escaped path stays escaped", "/v1.47/images/localhost%3A5000%2Fa%2Fb/json", http.Header{}},
		{"a registry's credentials pass", "/images/create?fromImage=a", http.Header{"X-Registry-Auth": {"e30="}, "X-Registry-Config": {"e30="}}},
		{"what a proxy before us said passes", "/info", http.Header{"X-Forwarded-For": {"1.2.3.4"}, "X-Forwarded-Proto": {"https"}, "Forwarded": {"for=1.2.3.4"}}},
		{"a client's wish for no compression passes", "/info", http.Header{"Accept-Encoding": {"identity"}}},
	} {
		t.Run(row.says, func(t *testing.T) {
			c, r := client(t, front(t, awake(d)))
			for _, method := range []string{"POST", "PUT"} { // on one connection
				head := method + " " + row.uri + " HTTP/1.1\r\nHost: api.moby.localhost\r\n"
				for k, vs := range row.header {
					for _, v := range vs {
						head += k + ": " + v + "\r\n"
					}
				}
				go fmt.Fprintf(c, "%sContent-Length: %d\r\n\r\n%s", head, len(body), body)
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				back, err := io.ReadAll(resp.Body)
				if err != nil || !bytes.Equal(back, body) {
					t.Errorf("%s %s: %d bytes came back, %v; want %d", method, row.uri, len(back), err, len(body))
				}
				if resp.StatusCode != http.StatusTeapot || resp.Header.Get("Api-Version") != "1.52" || len(resp.Header["X-Odd-Name"]) != 2 {
					t.Errorf("%s %s = %s with %v; want the engine's own status and headers", method, row.uri, resp.Status, resp.Header)
				}
				in := <-got
				in.Header.Del("Content-Length")
				if in.Method != method || in.URI != row.uri || in.Host != "api.moby.localhost" || !reflect.DeepEqual(in.Header, row.header) || !bytes.Equal(in.Body, body) {
					t.Errorf("the engine saw %s %s at %s with %v and %d bytes; want %s %s at api.moby.localhost with %v and %d bytes",
						in.Method, in.URI, in.Host, in.Header, len(in.Body), method, row.uri, row.header, len(body))
				}
			}
		})
	}
}

// `docker load` tells its progress while the archive still goes.
func TestABodyStreamsWhileTheAnswerDoes(t *testing.T) {
	d := engine(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		for in := bufio.NewReader(r.Body); ; {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			io.WriteString(w, "got "+line)
			http.NewResponseController(w).Flush()
		}
	})
	path := front(t, awake(d))
	pr, pw := io.Pipe()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "POST", "http://docker/v1.47/images/load", pr)
	go io.WriteString(pw, "layer 0\n")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := bufio.NewReader(resp.Body)
	for i := range 5 {
		if line, err := out.ReadString('\n'); line != fmt.Sprintf("got layer %d\n", i) {
			t.Fatalf("progress %d = %q, %v; want it before the next layer goes", i, line, err)
		}
		fmt.Fprintf(pw, "layer %d\n", i+1)
	}
	pw.Close()
	if rest, err := io.ReadAll(out); string(rest) != "got layer 5\n" || err != nil {
		t.Errorf("the rest is %q, %v; want the last progress", rest, err)
	}
}

// hijacked is an engine's handler that takes the connection over, writes a head, sends back all that it
// reads with "> " before each line, and after the input's end says how much there was.
func hijacked(head string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		c, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, head+"hello\n") // head and first output in one write
		n := 0
		for {
			line, err := buf.ReadString('\n')
			n += len(line)
			if err != nil {
				break
			}
			io.WriteString(c, "> "+line)
		}
		fmt.Fprintf(c, "%d bytes\n", n)
	}
}

const (
	upgraded   = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
	unupgraded = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
)

func TestStreams(t *testing.T) {
	const upgrade = "\nConnection: Upgrade\nUpgrade: tcp"
	const json = "\nContent-Type: application/json\nContent-Length: 2"
	for _, row := range []struct {
		says, answer, head, body, early string
		status                          int
	}{
		{"attach becomes a stream by an upgrade", upgraded, "POST /v1.47/containers/c/attach?stream=1 HTTP/1.1\nHost: d\nContent-Length: 0" + upgrade, "", "", 101},
		{"exec start becomes a stream by an upgrade", upgraded, "POST /v1.47/exec/e/start HTTP/1.1\nHost: d" + json + upgrade, "{}", "", 101},
		{"bytes right behind the head are kept", upgraded, "POST /v1.47/exec/e/start HTTP/1.1\nHost: d" + json + upgrade, "{}", "early\nbird\n", 101},
		{"bytes right behind a head without a body are kept", upgraded, "POST /containers/c/attach HTTP/1.1\nHost: d" + upgrade, "", "early\n", 101},
		{"a body in chunks opens a stream", upgraded, "POST /exec/e/start HTTP/1.1\nHost: d\nTransfer-Encoding: chunked" + upgrade, "2\r\n{}\r\n0\r\n\r\n", "early\n", 101},
		{"attach becomes a stream without an upgrade", unupgraded, "POST /v1.23/containers/c/attach HTTP/1.1\nHost: d", "", "", 200},
		{"exec start becomes a stream without an upgrade", unupgraded, "POST /exec/e/start HTTP/1.1\nHost: d" + json, "{}", "early\n", 200},
		{"a client of HTTP/1.0 without a Host gets its stream", unupgraded, "POST /exec/e/start HTTP/1.0" + json, "{}", "", 200},
		{"a session of BuildKit becomes a stream", upgraded, "POST /session HTTP/1.1\nHost: d\nConnection: Upgrade\nUpgrade: h2c", "", "", 101},
		{"a websocket becomes a stream", upgraded, "GET /containers/c/attach/ws HTTP/1.1\nHost: d\nConnection: Upgrade\nUpgrade: websocket", "", "", 101},
		{"an expectation of 100 does not hide the stream", upgraded, "POST /exec/e/start HTTP/1.1\nHost: d\nExpect: 100-continue" + json + upgrade, "{}", "", 101},
	} {
		t.Run(row.says, func(t *testing.T) {
			c, r := client(t, front(t, awake(engine(t, hijacked(row.answer)))))
			resp := ask(t, c, r, row.head, row.body+row.early)
			if resp.StatusCode == http.StatusContinue {
				var err error
				if resp, err = http.ReadResponse(r, nil); err != nil {
					t.Fatal(err)
				}
			}
			if resp.StatusCode != row.status || resp.Header.Get("Content-Type") != "application/vnd.docker.raw-stream" {
				t.Fatalf("%.40q = %s with %v; want the engine's %d", row.head, resp.Status, resp.Header, row.status)
			}
			want := "hello\n"
			for line := range strings.Lines(row.early) {
				want += "> " + line
			}
			io.WriteString(c, "late\n")
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			want += fmt.Sprintf("> late\n%d bytes\n", len(row.early)+5)
			if got, err := io.ReadAll(r); string(got) != want || err != nil {
				t.Errorf("the stream gave %q, %v; want %q", got, err, want)
			}
		})
	}
}

// A container that closes its output may still read: `docker run -i` of something that works silently.
func TestTheEnginesHalfCloseLeavesTheInputOpen(t *testing.T) {
	heard := make(chan string, 1)
	d := rawEngine(t, func(c *net.UnixConn) {
		in := bufio.NewReader(c)
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		io.WriteString(c, upgraded+"done talking")
		c.CloseWrite()
		b, _ := io.ReadAll(in)
		heard <- string(b)
	})
	c, r := client(t, front(t, awake(d)))
	ask(t, c, r, "POST /containers/c/attach HTTP/1.1\nHost: d\nConnection: Upgrade\nUpgrade: tcp", "")
	if got, err := io.ReadAll(r); string(got) != "done talking" || err != nil {
		t.Fatalf("the output is %q, %v; want it and its end", got, err)
	}
	io.WriteString(c, "still talking")
	c.CloseWrite()
	if got := <-heard; got != "still talking" {
		t.Errorf("the engine heard %q after its own half-close; want the input", got)
	}
}

// A refused attach leaves a connection on which the client could go on past the checks.
func TestARefusedStreamEndsItsConnection(t *testing.T) {
	var calls atomic.Int32
	for _, answer := range []string{"length", "chunks"} {
		calls.Store(0)
		d := engine(t, func(w http.ResponseWriter, r *http.Request) {
			calls.Add(1)
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"message":"No such`)
			if answer == "chunks" {
				http.NewResponseController(w).Flush()
			}
			io.WriteString(w, ` container: c"}`)
		})
		c, r := client(t, front(t, awake(d)))
		resp := ask(t, c, r, "POST /containers/c/attach HTTP/1.1\nHost: d\nContent-Length: 0\nConnection: Upgrade\nUpgrade: tcp",
			"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{}")
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != 404 || string(body) != `{"message":"No such container: c"}` || err != nil {
			t.Errorf("attach in %s = %s %q, %v; want the engine's 404", answer, resp.Status, body, err)
		}
		// An end or a reset: it had something to read yet.
		if b, err := r.ReadByte(); err == nil {
			t.Errorf("after the 404 in %s the front says %q; want the connection's end", answer, b)
		}
		if n := calls.Load(); n != 1 {
			t.Errorf("the engine got %d calls on a connection whose attach was refused; want 1", n)
		}
	}
}

func TestNoEngine(t *testing.T) {
	const stopped = "Cove's engine is stopped. Start it with `cove start`."
	nobody := proxy.DialFunc(func(context.Context, string) (proxy.Conn, error) { return nil, errors.New("nobody is there") })
	gone := rawEngine(t, func(c *net.UnixConn) { http.ReadRequest(bufio.NewReader(c)) })
	for _, row := range []struct {
		says   string
		w      waker
		status int
		text   string
	}{
		{"a stopped engine is a 503 with the waker's sentence", func(context.Context, bool) (proxy.Dialer, error) { return nil, errors.New(stopped) }, 503, stopped},
		{"an engine that cannot be dialled is a 502", awake(nobody), 502, "nobody is there"},
		{"an engine that ends before its answer is a 502", awake(gone), 502, "cove status"},
	} {
		for _, head := range []string{
			"GET /v1.47/containers/json HTTP/1.1\nHost: d",
			"POST /v1.47/containers/create HTTP/1.1\nHost: d\nContent-Length: 0",
			"POST /v1.47/containers/c/attach HTTP/1.1\nHost: d\nConnection: Upgrade\nUpgrade: tcp\nContent-Length: 0",
		} {
			t.Run(row.says+": "+head[:30], func(t *testing.T) {
				c, r := client(t, front(t, row.w))
				resp := ask(t, c, r, head, "")
				if got := message(t, resp); resp.StatusCode != row.status || !strings.Contains(got, row.text) {
					t.Errorf("%.40q = %d %q; want %d with %q", head, resp.StatusCode, got, row.status, row.text)
				}
			})
		}
	}
}

func TestTheWakerHearsWhetherACallIsUse(t *testing.T) {
	heard := make(chan bool, 1)
	d := engine(t, func(http.ResponseWriter, *http.Request) {})
	c, r := client(t, front(t, waker(func(_ context.Context, active bool) (proxy.Dialer, error) {
		heard <- active
		return d, nil
	})))
	for method, want := range map[string]bool{"GET": false, "POST": true} {
		ask(t, c, r, method+" /v1.47/containers/json HTTP/1.1\nHost: d\nContent-Length: 0", "")
		if got := <-heard; got != want {
			t.Errorf("Engine was asked with active = %t for %s; want %t", got, method, want)
		}
	}
}

func TestAClientThatGoesAwayIsNotWaitedFor(t *testing.T) {
	waiting, ended := make(chan struct{}), make(chan error, 1)
	c, _ := client(t, front(t, waker(func(ctx context.Context, _ bool) (proxy.Dialer, error) {
		close(waiting)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})))
	io.WriteString(c, "GET /info HTTP/1.1\r\nHost: d\r\n\r\n")
	<-waiting
	c.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("Engine's context goes on after the client went away")
	}
}

func TestAnEngineThatDiesIsNeverAHang(t *testing.T) {
	for _, row := range []struct{ says, head, answer string }{
		{"in the middle of a body with a length", "GET /info HTTP/1.1\nHost: d", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"},
		{"in the middle of a chunk", "GET /events HTTP/1.1\nHost: d", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf"},
		{"between two chunks", "GET /events HTTP/1.1\nHost: d", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"},
		{"in the middle of a refusal of a stream", "POST /exec/e/start HTTP/1.1\nHost: d\nConnection: Upgrade\nUpgrade: tcp", "HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\nhalf"},
	} {
		t.Run("an engine dies "+row.says, func(t *testing.T) {
			d := rawEngine(t, func(c *net.UnixConn) {
				http.ReadRequest(bufio.NewReader(c))
				io.WriteString(c, row.answer)
			})
			c, r := client(t, front(t, awake(d)))
			resp := ask(t, c, r, row.head, "")
			got, err := io.ReadAll(resp.Body)
			if string(got) != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the body is %q, %v; want what came and io.ErrUnexpectedEOF, so that nobody takes it for whole", got, err)
			}
		})
	}
	t.Run("an engine dies in the middle of its head", func(t *testing.T) {
		for _, head := range []string{"GET /info HTTP/1.1\nHost: d", "POST /exec/e/start HTTP/1.1\nHost: d\nConnection: Upgrade\nUpgrade: tcp"} {
			d := rawEngine(t, func(c *net.UnixConn) {
				http.ReadRequest(bufio.NewReader(c))
				io.WriteString(c, "HTTP/1.1 200 OK\r\nConte")
			})
			c, r := client(t, front(t, awake(d)))
			resp := ask(t, c, r, head, "")
			if message(t, resp); resp.StatusCode != 502 {
				t.Errorf("%.30q = %s; want 502", head, resp.Status)
			}
		}
	})
	t.Run("an engine dies under a stream", func(t *testing.T) {
		d := rawEngine(t, func(c *net.UnixConn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, upgraded+"last words")
		})
		c, r := client(t, front(t, awake(d)))
		ask(t, c, r, "POST /exec/e/start HTTP/1.1\nHost: d\nConnection: Upgrade\nUpgrade: tcp", "")
		if got, _ := io.ReadAll(r); string(got) != "last words" {
			t.Errorf("the stream gave %q; want what the engine said last", got)
		}
	})
}

func TestAnEndingFrontClosesEveryConnection(t *testing.T) {
	arrived := make(chan struct{}, 1)
	d := rawEngine(t, func(c *net.UnixConn) {
		in := bufio.NewReader(c)
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if strings.HasSuffix(r.URL.Path, "/start") {
			io.WriteString(c, upgraded)
		}
		arrived <- struct{}{}
		io.Copy(io.Discard, in)
	})
	path, end := endingFront(t, awake(d))
	waiting, _ := client(t, path)
	io.WriteString(waiting, "GET /info HTTP/1.1\r\nHost: d\r\n\r\n")
	<-arrived
	stream, r := client(t, path)
	ask(t, stream, r, "POST /exec/e/start HTTP/1.1\nHost: d\nConnection: Upgrade\nUpgrade: tcp", "")
	<-arrived
	end()
	if got, err := io.ReadAll(waiting); len(got) != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a call that waited for the engine got %q, %v; want a cut connection, not an answer that is not true", got, err)
	}
	if _, err := io.ReadAll(r); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a stream outlives the front that carries it")
	}
}

func TestBodiesAtTheLimit(t *testing.T) {
	got := make(chan int64, 1)
	d := engine(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		got <- n
	})
	path := front(t, awake(d))
	for _, row := range []struct {
		says, head string
		size       int
		status     int
	}{
		{"a description at the limit passes", "POST /containers/create HTTP/1.1\nHost: d", maxCreateBody, 200},
		{"a description over the limit is refused", "POST /containers/create HTTP/1.1\nHost: d", maxCreateBody + 1, 413},
		{"what opens a stream passes at the limit", "POST /exec/e/start HTTP/1.1\nHost: d", maxStreamBody, 200},
		{"what opens a stream is refused over the limit", "POST /exec/e/start HTTP/1.1\nHost: d", maxStreamBody + 1, 400},
		{"an archive has no limit", "POST /images/load HTTP/1.1\nHost: d", 2 * maxCreateBody, 200},
	} {
		t.Run(row.says, func(t *testing.T) {
			c, r := client(t, path)
			go func() {
				fmt.Fprintf(c, "%s\r\nContent-Length: %d\r\n\r\n", strings.ReplaceAll(row.head, "\n", "\r\n"), row.size)
				c.Write(bytes.Repeat([]byte(" "), row.size))
			}()
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != row.status {
				t.Fatalf("%.30q with %d bytes = %s; want %d", row.head, row.size, resp.Status, row.status)
			}
			if row.status != 200 {
				message(t, resp)
				return
			}
			if n := <-got; n != int64(row.size) {
				t.Errorf("the engine got %d bytes; want %d", n, row.size)
			}
		})
	}
}

func TestARefusedMountNeverReachesTheEngine(t *testing.T) {
	asked := false
	c, r := client(t, front(t, waker(func(context.Context, bool) (proxy.Dialer, error) {
		asked = true
		return nil, errors.New("asleep")
	})))
	for _, upgrade := range []string{"", "\nConnection: Upgrade\nUpgrade: tcp"} {
		body := `{"HostConfig":{"Binds":["/home/me:/x"]}}`
		resp := ask(t, c, r, fmt.Sprintf("POST /v1.47/containers/create HTTP/1.1\nHost: d\nContent-Length: %d", len(body))+upgrade, body)
		if got := message(t, resp); resp.StatusCode != 400 || !strings.Contains(got, "/home/me") {
			t.Errorf("create with a bind of /home/me = %d %q; want 400 that names it", resp.StatusCode, got)
		}
	}
	if asked {
		t.Error("a call that is refused woke the engine")
	}
}
