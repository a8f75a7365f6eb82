package testregistry

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"sync"
	"time"
)

// Always is as often as clients ask.
const Always = -1

// Cut ends the connection of the next answers with a blob where they come to so many bytes of it, times often:
// who goes on from there gets nothing as long as it lasts. Blobs that are not longer are left whole, so the
// small one of an image's configuration is. 0 times ends it.
func (r *Registry) Cut(bytes int64, times int) {
	r.faults.mu.Lock()
	defer r.faults.mu.Unlock()
	r.faults.cut, r.faults.times = bytes, times
}

// Slow gives blobs at so many bytes a second; 0 is as fast as it can.
func (r *Registry) Slow(perSecond int) {
	r.faults.mu.Lock()
	defer r.faults.mu.Unlock()
	r.faults.rate = perSecond
}

type faults struct {
	mu    sync.Mutex
	cut   int64
	times int
	rate  int // bytes a second
}

// on is a writer of a blob with the faults that are due.
func (f *faults) on(w http.ResponseWriter) http.ResponseWriter {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.times == 0 && f.rate == 0 {
		return w
	}
	return &faulty{ResponseWriter: w, faults: f, rate: f.rate}
}

// due says whether this answer, which goes on past the limit, is to be cut there.
func (f *faults) due() (int64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cut, f.times != 0
}

func (f *faults) did() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.times > 0 {
		f.times--
	}
}

type faulty struct {
	http.ResponseWriter
	faults *faults
	rate   int
	begun  bool
	at     int64 // in the blob
}

func (f *faulty) Write(b []byte) (n int, err error) {
	if !f.begun {
		f.begun = true
		fmt.Sscanf(f.Header().Get("Content-Range"), "bytes %d-", &f.at) // none: from the start
	}
	for len(b) > 0 {
		part := b
		if f.rate > 0 {
			part = part[:min(len(part), max(1, f.rate/10))]
		}
		limit, due := f.faults.due()
		if due = due && f.at+int64(len(part)) > limit; due {
			part = part[:max(0, limit-f.at)]
		}
		m, err := f.ResponseWriter.Write(part)
		n, f.at, b = n+m, f.at+int64(m), b[len(part):]
		if err != nil {
			return n, err
		}
		if due {
			http.NewResponseController(f.ResponseWriter).Flush()
			f.faults.did()
			panic(http.ErrAbortHandler)
		}
		if f.rate > 0 {
			http.NewResponseController(f.ResponseWriter).Flush()
			time.Sleep(time.Duration(len(part)) * time.Second / time.Duration(f.rate))
		}
	}
	return n, nil
}

func (f *faulty) Unwrap() http.ResponseWriter { return f.ResponseWriter }

// quiet takes what http servers say of clients that go away or distrust a certificate.
var quiet = log.New(io.Discard, "", 0)
