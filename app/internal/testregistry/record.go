package testregistry

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Request is what one of the registry's servers was asked.
type Request struct {
	Server       string // registry, token or blobs
	Method, Path string
	Host         string   // what the client calls the server
	Headers      []string // names only, sorted
	Credential   string   // the scheme of Authorization, such as Basic; empty: no credential came
	User         string   // who logs in by Basic
	Status       int      // of the answer; 0: it broke off before
}

// Requests are all that were answered until now, oldest first.
func (r *Registry) Requests() []Request {
	r.record.mu.Lock()
	defer r.record.mu.Unlock()
	return slices.Clone(r.record.requests)
}

// Forget empties the record, so that what follows stands alone.
func (r *Registry) Forget() {
	r.record.mu.Lock()
	defer r.record.mu.Unlock()
	r.record.requests = nil
}

type record struct {
	mu       sync.Mutex
	requests []Request
}

// of is a server whose requests are recorded.
func (c *record) of(server string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		user, _, _ := q.BasicAuth()
		scheme, _, _ := strings.Cut(q.Header.Get("Authorization"), " ")
		is := Request{Server: server, Method: q.Method, Path: q.URL.Path, Host: q.Host,
			Headers: slices.Sorted(maps.Keys(q.Header)), Credential: scheme, User: user}
		s := &status{ResponseWriter: w}
		defer func() {
			is.Status = s.code
			c.mu.Lock()
			defer c.mu.Unlock()
			c.requests = append(c.requests, is)
		}()
		h.ServeHTTP(s, q)
	})
}

// status remembers how a request was answered.
type status struct {
	http.ResponseWriter
	code int
}

func (s *status) WriteHeader(code int) {
	if code >= 200 {
		s.code = code
	}
	s.ResponseWriter.WriteHeader(code)
}

func (s *status) Write(b []byte) (int, error) {
	if s.code == 0 {
		s.code = http.StatusOK
	}
	return s.ResponseWriter.Write(b)
}

func (s *status) Unwrap() http.ResponseWriter { return s.ResponseWriter }
