package dockerapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// question is a passive call, as far as its answer depends on it. Two ways to write one call are one question.
type question struct {
	Method string `json:"method"`
	Path   string `json:"path"`             // with the version, escaped as Go does
	Query  string `json:"query,omitempty"`  // in order; of /events without the time
	Accept string `json:"accept,omitempty"` // of /events, where it decides the form of the answer
}

func asked(r *http.Request) question {
	q := question{Method: r.Method, Path: escaped(r.URL.Path), Query: canonical(r.URL.RawQuery)}
	if isEvents(r.Method, r.URL.Path) {
		q.Query = canonical(r.URL.RawQuery, "since", "until")
		q.Accept = strings.Join(r.Header.Values("Accept"), ", ")
	}
	return q
}

// escaped is a path as the engine's router takes it: it does not care how it was escaped.
func escaped(path string) string { return (&url.URL{Path: path}).EscapedPath() }

// isEvents says whether a call is a stream of the engine's events.
func isEvents(method, path string) bool {
	return method == http.MethodGet && version.ReplaceAllString(path, "/") == "/events"
}

// apiVersion is the version in a path, such as "/v1.47"; empty without one.
func apiVersion(path string) string {
	return strings.TrimSuffix(version.FindString(path), "/")
}

// switches are the parameters that are true or false; one that is false is as if it were not there.
var switches = []string{"all", "digests", "identity", "manifests", "shared-size", "size", "verbose"}

// canonical is a query in one way out of the many to write it.
func canonical(query string, without ...string) string {
	values, err := url.ParseQuery(query)
	if err != nil {
		return query // the engine may read something in it
	}
	for _, name := range without {
		values.Del(name)
	}
	for _, name := range switches {
		if !values.Has(name) {
			continue
		}
		switch strings.ToLower(strings.TrimSpace(values.Get(name))) {
		case "", "0", "no", "false", "none": // moby, daemon/server/httputils/form.go, BoolValue
			values.Del(name)
		default:
			values.Set(name, "1")
		}
	}
	if filters, ok := values["filters"]; ok && len(filters) == 1 {
		var tidy map[string]any
		switch err := json.Unmarshal([]byte(filters[0]), &tidy); {
		case filters[0] == "", err == nil && len(tidy) == 0:
			values.Del("filters")
		case err == nil:
			if b, err := json.Marshal(tidy); err == nil {
				values.Set("filters", string(b))
			}
		}
	}
	return values.Encode()
}

// What is remembered of the clients: the last questions that they asked, and the versions that they spoke.
const (
	maxKnown    = 512     // questions
	maxQuestion = 4 << 10 // bytes of one; a longer one is a generated list of filters
	maxVersions = 4       // a CLI, an IDE, a GUI and one more
)

// note remembers what a client asks.
func (f *Front) note(call Call, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v := apiVersion(r.URL.Path); v != "" { // without one the engine takes its own
		f.versions = latest(f.versions, v, maxVersions)
	}
	if call.Active {
		return
	}
	if q := asked(r); len(q.Path)+len(q.Query)+len(q.Accept) <= maxQuestion {
		f.known = latest(f.known, q, maxKnown)
	}
}

// latest puts a thing at the end of a list, where it is once, and drops what is too many at its begin.
func latest[T comparable](list []T, v T, most int) []T {
	if i := slices.Index(list, v); i >= 0 {
		list = slices.Delete(list, i, i+1)
	}
	list = append(list, v)
	return slices.Delete(list, 0, max(0, len(list)-most))
}
