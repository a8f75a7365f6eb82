// Package dockerapi is the docker.sock front: it gives every request of the engine's API to the engine
// in the guest, byte for byte, with half-close kept on the calls that become streams. It waits while
// the engine starts, refuses mounts of host folders that the guest does not have, and answers in the
// engine's own error format when there is no engine. While the engine sleeps it answers passive calls from
// a snapshot and holds streams of events; an active call waits for the wake that it causes. It knows no
// daemon: a [Waker] is handed in.
package dockerapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"

	"github.com/covedesk/cove/proxy"
)

// Waker gives the way to the engine.
type Waker interface {
	// Engine waits while the engine starts, for as long as it has patience. For an active call it wakes an
	// engine that sleeps, after the end of a save that goes on, and waits for that too; for a passive one
	// the error then is [ErrAsleep]. Another error's text is what the client is told: a sentence that says
	// what to do. The connections are dialled by the service name [Service].
	Engine(ctx context.Context, active bool) (proxy.Dialer, error)
	// Woken waits, without waking it, for as long as Engine says ErrAsleep to a passive call. Its error
	// is the context's.
	Woken(ctx context.Context) error
}

// ErrAsleep is what a [Waker] says to a passive call while the engine sleeps, from the begin of the save to
// the end of the wake.
var ErrAsleep = errors.New("the engine is asleep")

// Service is the name by which the engine's API is dialled.
const Service = "docker"

// Front serves the engine's API on the host. Around each sleep of the engine its user calls
//
//	Prepare   when nobody has used it for a while, so that Snapshot is fast; it need not be called
//	Snapshot  when Engine says ErrAsleep to passive calls already, and the engine still serves
//	Suspend   before the way to the engine is cut
//	Resume    when the engine serves again: after a wake, a cold start, or a save that failed
//
// and Load before Serve where the engine sleeps from the first moment on.
type Front struct {
	waker  Waker
	paths  Paths
	shares Shares
	log    *slog.Logger
	plain  *httputil.ReverseProxy
	now    func() time.Time

	mu       sync.Mutex // guards all below
	life     *life
	use      Activity
	known    []question    // that clients asked lately, the last one at the end
	versions []string      // of the API, that clients spoke lately, likewise
	snapshot *snapshot     // nil while the engine runs
	kept     *kept         // of the last one
	altering int           // counts the calls that may make it old
	settled  chan struct{} // closed when there is a snapshot, or none to come in this sleep
}

// Connections that wait in the guest for the next plain request: a CLI makes a few at once, an IDE tens.
const (
	idleConns   = 32
	idleTimeout = time.Minute
	copyBuffer  = 128 << 10
)

// New returns a Front. Paths say which mounts mean the guest's own files, shares which of the host's can be
// mounted.
func New(w Waker, paths Paths, shares Shares, l *slog.Logger) *Front {
	f := &Front{waker: w, paths: paths, shares: shares, log: l, now: time.Now, life: newLife(), settled: make(chan struct{})}
	f.plain = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "engine"
			r.Out.Host = r.In.Host
			// ReverseProxy tidies these; here the engine gets what the client said.
			r.Out.URL.RawQuery = r.In.URL.RawQuery
			// The calls that the engine upgrades are streams. A client in Java offers it on any call.
			r.Out.Header.Del("Connection")
			r.Out.Header.Del("Upgrade")
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if v, ok := r.In.Header[name]; ok {
					r.Out.Header[name] = v
				}
			}
		},
		Transport:     tripper(f.trip),
		FlushInterval: -1, // events, logs and progress are for now
		BufferPool:    buffers{},
		ErrorLog:      log.New(io.Discard, "", 0), // a client that went away is no news
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				// Nobody is there to be told, or we end. A plain return would be a 200 that is not true.
				panic(http.ErrAbortHandler)
			}
			fail(w, err)
		},
	}
	return f
}

// callKey carries the Call of a request to where it is passed on.
type callKey struct{}

// servingKey carries the context of Serve. A request's own ends when its client half-closes early.
type servingKey struct{}

// Serve answers on the listener until the context ends, then closes every connection.
func (f *Front) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:     f,
		ErrorLog:    log.New(io.Discard, "", 0),
		BaseContext: func(net.Listener) context.Context { return context.WithValue(ctx, servingKey{}, ctx) },
		// No time limits: a call may take as long as a build.
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(l)
	f.current().transport.CloseIdleConnections()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve docker.sock: %w", err)
}

func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := Classify(r.Method, r.URL.Path)
	if err := f.checkPaths(call, r); err != nil {
		fail(w, err)
		return
	}
	f.note(call, r)
	if call.Active {
		defer f.used()()
	}
	if alters(call, r.URL.Path) {
		f.altered()
		defer f.altered()
	}
	if call.Stream || call.Active && r.Header.Get("Upgrade") != "" {
		f.stream(w, r)
		return
	}
	if 0 < r.ContentLength && r.ContentLength <= heldBody {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			fail(w, unreadable)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	// Progress may come while the body still goes: `docker load`.
	http.NewResponseController(w).EnableFullDuplex()
	f.plain.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, call)))
}

// heldBody is the largest body that is read before there is an engine to take it: that of any call but
// uploads. The end of a client is seen only once its body has been read; a larger one stays where it is.
const heldBody = 64 << 10

var unreadable = &Error{Status: http.StatusBadRequest, Message: "the request's body cannot be read or is too large"}

// maxStreamBody bounds the JSON that opens a stream (exec start, attach): a few words.
const maxStreamBody = 1 << 20

// stream takes a call over that turns into a byte stream in both directions, and joins it with the
// engine's. An answer that is none, such as an error, is passed on and ends the connection, so that no
// later request goes past the checks of this front.
func (f *Front) stream(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxStreamBody+1))
	if err != nil || len(body) > maxStreamBody {
		fail(w, unreadable)
		return
	}
	life, engine, err := f.engine(r.Context(), true)
	if err != nil {
		fail(w, err)
		return
	}
	guest, err := engine.Dial(r.Context(), Service)
	if err != nil {
		fail(w, life.fate(err))
		return
	}
	defer guest.Close()
	defer context.AfterFunc(life.ctx, func() { guest.Close() })()
	raw, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	client := asConn(raw)
	defer client.Close()
	if serving, ok := r.Context().Value(servingKey{}).(context.Context); ok {
		// http.Server lets go of connections that were taken over.
		stop := context.AfterFunc(serving, func() { client.Close(); guest.Close() })
		defer stop()
	}

	out := r.Clone(context.Background())
	out.RequestURI = ""
	out.Header.Del("Expect") // the body is here: a 100 would be taken for the answer
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header.Set("User-Agent", "") // or Request.Write adds Go's
	}
	if out.Host == "" {
		out.Host = Service // HTTP/1.0
	}
	out.Body, out.ContentLength, out.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	if len(body) == 0 {
		out.Body = nil
	}
	if err := out.Write(guest); err != nil {
		tell(client, life.fate(err))
		return
	}
	from := bufio.NewReader(guest)
	resp, err := http.ReadResponse(from, r)
	if err != nil {
		tell(client, life.fate(err))
		return
	}
	if !streams(resp) {
		resp.Close = true
		resp.Write(client)
		return
	}
	head := fmt.Appendf(nil, "HTTP/1.1 %s\r\n", resp.Status)
	b := bytes.NewBuffer(head)
	resp.Header.Write(b)
	b.WriteString("\r\n")
	if _, err := client.Write(b.Bytes()); err != nil {
		return
	}
	output := &partedReader{Reader: &prefixed{guest, from}, life: life, parting: partingOf(r, resp)}
	if err := proxy.Join(&prefixed{client, buffered.Reader}, &parted{guest, output}, nil); err != nil {
		f.log.Debug("stream ended", "path", r.URL.Path, "err", err)
	}
}

// streams says whether the rest of the connection is the stream. The engine's raw stream without an
// upgrade is HTTP/1.0's way: neither a length nor chunks.
func streams(r *http.Response) bool {
	return r.StatusCode == http.StatusSwitchingProtocols ||
		r.StatusCode == http.StatusOK && strings.HasPrefix(r.Header.Get("Content-Type"), "application/vnd.docker.") &&
			r.ContentLength < 0 && len(r.TransferEncoding) == 0
}

// prefixed is a connection some of whose bytes have been read ahead.
type prefixed struct {
	proxy.Conn
	ahead *bufio.Reader
}

func (c *prefixed) Read(b []byte) (int, error) {
	if c.ahead != nil {
		if c.ahead.Buffered() > 0 {
			return c.ahead.Read(b[:min(len(b), c.ahead.Buffered())])
		}
		c.ahead = nil
	}
	return c.Conn.Read(b)
}

// parted is a connection that is cut at the end of a life.
type parted struct {
	proxy.Conn
	output *partedReader
}

func (c *parted) Read(b []byte) (int, error) { return c.output.Read(b) }

// asConn gives a connection its two ends. A kind without CloseRead is closed for reading by being
// closed at the end.
func asConn(c net.Conn) proxy.Conn {
	if p, ok := c.(proxy.Conn); ok {
		return p
	}
	return halfConn{c}
}

type halfConn struct{ net.Conn }

func (c halfConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return c.Conn.Close()
}

func (c halfConn) CloseRead() error { return nil }

// Error is what a client is told in the engine's error format.
type Error struct {
	Status  int // of HTTP
	Message string
}

func (e *Error) Error() string { return e.Message }

// fail answers with an error in the engine's format: {"message": "…"} (engine API, ErrorResponse).
func fail(w http.ResponseWriter, err error) {
	e := asError(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Status)
	w.Write(e.body())
}

// tell does the same on a connection that was taken over.
func tell(w io.Writer, err error) {
	e := asError(err)
	body := e.body()
	fmt.Fprintf(w, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		e.Status, http.StatusText(e.Status), len(body), body)
}

func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Status: http.StatusBadGateway, Message: "Cove lost the engine during this call: " + err.Error() + ". See `cove status`."}
}

func (e *Error) body() []byte {
	b, err := json.Marshal(map[string]string{"message": e.Message})
	if err != nil {
		panic(err) // a map of strings
	}
	return append(b, '\n')
}

// buffers lends large buffers to responses.
type buffers struct{}

var pool = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}

func (buffers) Get() []byte  { return *pool.Get().(*[]byte) }
func (buffers) Put(b []byte) { pool.Put(&b) }
