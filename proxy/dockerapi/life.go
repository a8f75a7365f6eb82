package dockerapi

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/covedesk/cove/proxy"
)

// life is the time between two sleeps of the engine. Its end ends every call that is still in it.
type life struct {
	ctx       context.Context // of the life
	end       context.CancelFunc
	transport *http.Transport // its idle connections end with it

	mu      sync.Mutex // guards all below
	brief   int        // calls in flight that are soon over
	drained chan struct{}
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
	resp.Body = &answerBody{partedReader{Reader: resp.Body, life: l, parting: partingOf(r, resp)}, resp.Body, func() { stop(); cancel() }}
	return resp, nil
}

// briefly is roundTrip for a call that is soon over, which a sleep waits for.
func (l *life) briefly(r *http.Request, engine proxy.Dialer) (*http.Response, error) {
	l.count(1)
	resp, err := l.roundTrip(r, engine)
	if err != nil {
		l.count(-1)
		return nil, err
	}
	body := resp.Body.(*answerBody)
	end := body.done
	body.done = sync.OnceFunc(func() { end(); l.count(-1) })
	return resp, nil
}

func (l *life) count(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.brief += n
	if l.brief == 0 && l.drained != nil {
		close(l.drained)
		l.drained = nil
	}
}

// drain waits until no brief call is in flight, or its time is up.
func (l *life) drain() {
	drained := make(chan struct{})
	l.mu.Lock()
	l.drained = drained
	l.mu.Unlock()
	l.count(0)
	select {
	case <-drained:
	case <-time.After(drainTime):
	}
}

// drainTime bounds what a sleep waits for passive calls that the engine still answers. Later ones get the
// snapshot.
const drainTime = 2 * time.Second

// answerBody is the body of an answer whose call ends with a life.
type answerBody struct {
	partedReader
	body io.Closer
	done func()
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.partedReader.Read(p)
	if err == errSuspended && b.said {
		err = io.EOF
	}
	return n, err
}

func (b *answerBody) Close() error {
	err := b.body.Close()
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

// Suspend ends the calls in flight, because the engine is about to be saved. Passive ones have 2 s to come to
// their end, and are answered from the snapshot after that. An active one without an answer so far is
// answered 503; another's answer ends with an error in its own form, where that has a place for one. Streams of events are held. Calls from now on are new ones.
func (f *Front) Suspend() {
	f.mu.Lock()
	old := f.life
	f.life = newLife()
	f.settleLocked()
	f.mu.Unlock()
	old.drain()
	old.end()
	old.transport.CloseIdleConnections()
}

// tripper is a function as an http.RoundTripper.
type tripper func(*http.Request) (*http.Response, error)

func (t tripper) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// trip answers a plain call.
func (f *Front) trip(r *http.Request) (*http.Response, error) {
	call, _ := r.Context().Value(callKey{}).(Call)
	if isEvents(r.Method, r.URL.Path) {
		return f.openEvents(r)
	}
	for {
		l, engine, err := f.engine(r.Context(), call.Active)
		if errors.Is(err, ErrAsleep) {
			s, again := f.recall(r.Context())
			if again {
				continue
			}
			if s != nil {
				if a := s.find(asked(r)); a != nil {
					return s.response(r, a, f.now()), nil
				}
			}
			// A right answer is better than rest. The next snapshot will have it.
			if err = r.Context().Err(); err == nil {
				l, engine, err = f.engine(r.Context(), true)
			}
		}
		if err != nil {
			return nil, err
		}
		if call.Active {
			if call.Swarm {
				f.makeGateway(r.Context(), l, engine)
			}
			return l.roundTrip(r, engine)
		}
		resp, err := l.briefly(r, engine)
		if err == errSuspended && r.Body == nil && r.Context().Err() == nil {
			continue
		}
		return resp, err
	}
}
