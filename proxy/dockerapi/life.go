package dockerapi

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"

	"github.com/covedesk/cove/proxy"
)

// life is the time between two sleeps of the engine. Its end ends every call that is still in it.
type life struct {
	ctx       context.Context // of the life
	end       context.CancelFunc
	transport *http.Transport // its idle connections end with it
}

func newLife() *life {
	l := &life{transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			d, ok := ctx.Value(engineKey{}).(proxy.Dialer)
			if !ok {
				return nil, errors.New("no engine")
			}
			return d.Dial(ctx, Service)
		},
		DisableCompression:  true,
		MaxIdleConnsPerHost: idleConns,
		IdleConnTimeout:     idleTimeout,
	}}
	l.ctx, l.end = context.WithCancel(context.Background())
	return l
}

// engineKey carries the dialer that the Waker gave for a request to where the connection is made.
type engineKey struct{}

// errSuspended is the end of a call that was in flight when the engine was suspended.
var errSuspended = &Error{
	Status:  http.StatusServiceUnavailable,
	Message: "The engine was suspended during this call, which may not be finished. The next call wakes the engine: look how far this one came, then call again.",
}

func (l *life) over() bool { return l.ctx.Err() != nil }

// fate is why a call failed.
func (l *life) fate(err error) error {
	if l.over() {
		return errSuspended
	}
	return err
}

// roundTrip asks the engine, for as long as the life lasts.
func (l *life) roundTrip(r *http.Request, engine proxy.Dialer) (*http.Response, error) {
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), engineKey{}, engine))
	stop := context.AfterFunc(l.ctx, cancel)
	resp, err := l.transport.RoundTrip(r.WithContext(ctx))
	if err != nil {
		stop()
		cancel()
		return nil, l.fate(err)
	}
	resp.Body = &answerBody{resp.Body, l, func() { stop(); cancel() }}
	return resp, nil
}

// answerBody is the body of an answer whose call ends with a life.
type answerBody struct {
	io.ReadCloser
	life *life
	done func()
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = b.life.fate(err)
	}
	return n, err
}

func (b *answerBody) Close() error {
	err := b.ReadCloser.Close()
	b.done()
	return err
}

func (f *Front) current() *life {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.life
}

// engine gives the way to the engine, and the life in which it is one.
func (f *Front) engine(ctx context.Context, active bool) (*life, proxy.Dialer, error) {
	for {
		l := f.current()
		engine, err := f.waker.Engine(ctx, active)
		switch {
		case errors.Is(err, ErrAsleep):
			return nil, nil, err
		case err != nil:
			return nil, nil, &Error{Status: http.StatusServiceUnavailable, Message: err.Error()}
		case !l.over(): // or it may be the way to an engine that went to sleep meanwhile
			return l, engine, nil
		}
	}
}

// Suspend ends the calls in flight, because the engine is about to be saved: one without an answer so far is
// answered 503, another's stream ends.
func (f *Front) Suspend() {
	f.mu.Lock()
	old := f.life
	f.life = newLife()
	f.mu.Unlock()
	old.end()
	old.transport.CloseIdleConnections()
}

// tripper is a function as an http.RoundTripper.
type tripper func(*http.Request) (*http.Response, error)

func (t tripper) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// trip answers a plain call.
func (f *Front) trip(r *http.Request) (*http.Response, error) {
	call, _ := r.Context().Value(callKey{}).(Call)
	l, engine, err := f.engine(r.Context(), call.Active)
	if err != nil {
		return nil, err
	}
	if call.Swarm {
		f.makeGateway(r.Context(), l, engine)
	}
	return l.roundTrip(r, engine)
}
