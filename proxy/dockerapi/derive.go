package dockerapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
)

// find gives the answer to a question, or one that the engine would not give otherwise: of another name of
// the same thing, of a list with fewer in it, that there is no such thing. It is nil when the engine has to be
// asked.
func (s *snapshot) find(q question) *answer {
	if a := s.answers[q]; a != nil {
		return a
	}
	path, err := url.PathUnescape(q.Path)
	if err != nil {
		return nil
	}
	v := apiVersion(path)
	rest := strings.TrimPrefix(path, v)
	if rest == ping { // the same in all versions
		return s.answers[question{Method: q.Method, Path: ping}]
	}
	if v == "" {
		if v = s.version; s.answers[question{q.Method, escaped(v + rest), q.Query, q.Accept}] != nil {
			return s.answers[question{q.Method, escaped(v + rest), q.Query, q.Accept}]
		}
	}
	if q.Method != http.MethodGet {
		return nil
	}
	switch parts := strings.Split(strings.Trim(rest, "/"), "/"); {
	case rest == "/containers/json":
		return s.labelled(v, q.Query)
	case len(parts) == 3 && parts[0] == "containers" && parts[2] == "json":
		return s.container(v, parts[1], q.Query)
	case len(parts) > 2 && parts[0] == "images" && parts[len(parts)-1] == "json":
		return s.image(v, strings.Join(parts[1:len(parts)-1], "/"), q.Query)
	case len(parts) == 2 && parts[0] == "networks":
		return s.network(v, parts[1], q.Query)
	case len(parts) == 2 && parts[0] == "volumes" && q.Query == "":
		return s.volume(v, parts[1])
	}
	return nil
}

// What the lists say of a thing, as far as it is asked for.
type (
	listedContainer struct {
		ID     string `json:"Id"`
		Names  []string
		Labels map[string]string
	}
	listedImage struct {
		ID                    string `json:"Id"`
		RepoTags, RepoDigests []string
	}
	listedNetwork struct {
		ID   string `json:"Id"`
		Name string
	}
	listedVolumes struct{ Volumes []struct{ Name string } }
)

// list reads a list, and says whether there is one.
func (s *snapshot) list(uri string, into any) bool {
	path, query, _ := strings.Cut(uri, "?")
	a := s.answers[question{Method: http.MethodGet, Path: path, Query: query}]
	return a != nil && a.Status == http.StatusOK && json.Unmarshal(a.Body, into) == nil
}

// things are the inspections of all that is in the lists of a version.
func (s *snapshot) things(v string) []question {
	var out []question
	add := func(kind, name, more string) {
		out = append(out, question{Method: http.MethodGet, Path: escaped(v + kind + name + more)})
	}
	var containers []listedContainer
	var images []listedImage
	var networks []listedNetwork
	var volumes listedVolumes
	s.list(v+"/containers/json?all=1", &containers)
	s.list(v+"/images/json", &images)
	s.list(v+"/networks", &networks)
	s.list(v+"/volumes", &volumes)
	for _, c := range containers {
		add("/containers/", c.ID, "/json")
	}
	for _, i := range images {
		for _, name := range append(i.RepoTags, i.ID) {
			add("/images/", name, "/json")
		}
	}
	for _, n := range networks {
		add("/networks/", n.ID, "")
	}
	for _, v := range volumes.Volumes {
		add("/volumes/", v.Name, "")
	}
	return out
}

// execs are the inspections of the execs in a container, if that is what the question asks for.
func (s *snapshot) execs(q question) []question {
	a := s.answers[q]
	var c struct{ ExecIDs []string }
	if a == nil || !strings.Contains(q.Path, "/containers/") || json.Unmarshal(a.Body, &c) != nil {
		return nil
	}
	var out []question
	for _, id := range c.ExecIDs {
		out = append(out, question{Method: http.MethodGet, Path: escaped(apiVersion(q.Path) + "/exec/" + id + "/json")})
	}
	return out
}

// one is the index of what somebody means by a name, as the engine looks it up: a whole ID, a whole name, the
// begin of one ID. It is -1 for nothing; unclear is a name of several.
func one(name string, n int, id func(int) string, named func(int) bool) (i int, unclear bool) {
	for _, is := range []func(int) bool{
		func(i int) bool { return id(i) == name },
		named,
		func(i int) bool { return strings.HasPrefix(id(i), name) },
	} {
		found := -1
		for i := range n {
			if is(i) {
				if found >= 0 {
					return -1, true
				}
				found = i
			}
		}
		if found >= 0 {
			return found, false
		}
	}
	return -1, false
}

func (s *snapshot) container(v, name, query string) *answer {
	var all []listedContainer
	if !s.list(v+"/containers/json?all=1", &all) {
		return nil
	}
	i, unclear := one(name, len(all), func(i int) string { return all[i].ID },
		func(i int) bool { return slices.Contains(all[i].Names, "/"+strings.TrimPrefix(name, "/")) })
	switch {
	case unclear:
		return nil
	case i < 0:
		return s.missing("No such container: " + name)
	}
	return s.answers[question{Method: http.MethodGet, Path: escaped(v + "/containers/" + all[i].ID + "/json"), Query: query}]
}

// digest is what may be a part of an image's ID. What is not listed may still have one.
var digest = regexp.MustCompile(`^(sha256:)?[0-9a-f]+$`)

func (s *snapshot) image(v, name, query string) *answer {
	var all []listedImage
	if !s.list(v+"/images/json", &all) {
		return nil
	}
	named := func(name string) *answer {
		return s.answers[question{Method: http.MethodGet, Path: escaped(v + "/images/" + name + "/json"), Query: query}]
	}
	ref, err := reference.ParseNormalizedNamed(name)
	if err == nil && !strings.Contains(name, "@") {
		name := reference.FamiliarString(reference.TagNameOnly(ref))
		for _, image := range all {
			if slices.Contains(image.RepoTags, name) {
				return named(name)
			}
		}
		if !digest.MatchString(ref.String()) && !digest.MatchString(reference.FamiliarString(ref)) {
			return s.missing("No such image: " + name)
		}
	}
	id := strings.TrimPrefix(name, "sha256:")
	if i, _ := one(id, len(all), func(i int) string { return strings.TrimPrefix(all[i].ID, "sha256:") },
		func(int) bool { return false }); i >= 0 && digest.MatchString(name) {
		return named(all[i].ID)
	}
	return nil
}

func (s *snapshot) network(v, name, query string) *answer {
	var all []listedNetwork
	if !s.list(v+"/networks", &all) {
		return nil
	}
	i, unclear := one(name, len(all), func(i int) string { return all[i].ID }, func(i int) bool { return all[i].Name == name })
	switch {
	case unclear:
		return nil
	case i < 0:
		return s.missing("network " + name + " not found")
	}
	return s.answers[question{Method: http.MethodGet, Path: escaped(v + "/networks/" + all[i].ID), Query: query}]
}

func (s *snapshot) volume(v, name string) *answer {
	var all listedVolumes
	if !s.list(v+"/volumes", &all) || slices.ContainsFunc(all.Volumes, func(v struct{ Name string }) bool { return v.Name == name }) {
		return nil
	}
	return s.missing("get " + name + ": no such volume")
}

// missing is the engine's answer for what is not there, as version 29 words it.
func (s *snapshot) missing(text string) *answer {
	header := http.Header{"Content-Type": {"application/json"}}
	for name, v := range s.engineHeader() {
		header[name] = v
	}
	return &answer{Status: http.StatusNotFound, Header: header, Body: (&Error{Message: text}).body()}
}

// engineHeader are the headers that the engine gives with every answer.
func (s *snapshot) engineHeader() http.Header {
	out := http.Header{}
	if pong := s.answers[question{Method: http.MethodGet, Path: ping}]; pong != nil {
		for _, name := range []string{"Api-Version", "Date", "Docker-Experimental", "Ostype", "Server"} {
			if v, ok := pong.Header[name]; ok {
				out[name] = v
			}
		}
	}
	return out
}

// labelled is a list of the containers with some labels, which is how compose asks. Other filters are the
// engine's to understand.
func (s *snapshot) labelled(v, query string) *answer {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil
	}
	var filters map[string]json.RawMessage
	if json.Unmarshal([]byte(values.Get("filters")), &filters) != nil || len(filters) != 1 {
		return nil
	}
	var labels map[string]bool
	if json.Unmarshal(filters["label"], &labels) != nil || labels == nil {
		return nil
	}
	values.Del("filters")
	whole := s.answers[question{Method: http.MethodGet, Path: v + "/containers/json", Query: values.Encode()}]
	var all []json.RawMessage
	if whole == nil || whole.Status != http.StatusOK || json.Unmarshal(whole.Body, &all) != nil {
		return nil
	}
	out := []json.RawMessage{}
	for _, raw := range all {
		var c listedContainer
		if json.Unmarshal(raw, &c) != nil {
			return nil
		}
		if hasLabels(c.Labels, labels) {
			out = append(out, raw)
		}
	}
	body, err := json.Marshal(out)
	if err != nil {
		return nil
	}
	return &answer{Status: whole.Status, Header: whole.Header, Body: append(body, '\n')}
}

// hasLabels says whether there are all of some labels, each a name or a name=value (moby,
// daemon/internal/filters, MatchKVList).
func hasLabels(have map[string]string, want map[string]bool) bool {
	for label := range want {
		name, value, valued := strings.Cut(label, "=")
		if v, ok := have[name]; !ok || valued && v != value {
			return false
		}
	}
	return true
}
