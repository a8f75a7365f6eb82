package dockerapi

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/tidwall/gjson"
)

// kept are answers of one snapshot that the next one may use again, because the engine would give them again:
// those on images, on its version and on itself. They take it most of the time of a snapshot. What happened since
// is known from the engine's events and from the calls that came here.
type kept struct {
	version string // see snapshot
	answers map[question]*answer
	last    []byte // the engine's last event before it was asked
}

// keep says what of a snapshot, before which the engine had these events, can be used again. It is nil without an
// event: nothing would tell the engine from another one that has just started.
func keep(s *snapshot, events []byte) *kept {
	lines := bytes.Split(bytes.TrimRight(events, "\n"), []byte("\n"))
	k := &kept{version: s.version, answers: map[question]*answer{}, last: lines[len(lines)-1]}
	if len(k.last) == 0 {
		return nil
	}
	for q, a := range s.answers {
		if subjectOf(q) != aboutOther && a.Status == http.StatusOK {
			k.answers[q] = a
		}
	}
	return k
}

// after are the answers that hold still, after all the events that an engine keeps now.
func (k *kept) after(version string, events []byte) map[question]*answer {
	if k == nil || k.version != version {
		return nil
	}
	// An engine that was started since, or had many events since, has the last one no more.
	_, since, found := bytes.Cut(events, append(bytes.Clone(k.last), '\n'))
	if !found {
		return nil
	}
	changed := map[subject]bool{}
	for line := range bytes.Lines(since) {
		for _, s := range changes(line) {
			changed[s] = true
		}
	}
	out := map[question]*answer{}
	for q, a := range k.answers {
		if !changed[subjectOf(q)] {
			out[q] = a
		}
	}
	return out
}

// subject is what an answer is about.
type subject int

const (
	aboutOther   subject = iota // changes without an event
	aboutImages                 // their lists, which also say which containers use them, and inspections
	aboutEngine                 // /info, which counts containers and images
	aboutVersion                // /version
)

func subjectOf(q question) subject {
	switch parts := strings.Split(strings.Trim(strings.TrimPrefix(q.Path, apiVersion(q.Path)), "/"), "/"); {
	case q.Method != http.MethodGet:
	case parts[0] == "images" && parts[len(parts)-1] == "json":
		return aboutImages
	case len(parts) == 1 && parts[0] == "info":
		return aboutEngine
	case len(parts) == 1 && parts[0] == "version":
		return aboutVersion
	}
	return aboutOther
}

// changes says which answers an event makes old: one that is not known makes all.
func changes(event []byte) []subject {
	event = bytes.TrimPrefix(event, []byte{0x1e})
	action, _, _ := strings.Cut(gjson.GetBytes(event, "Action").Str, ":")
	switch gjson.GetBytes(event, "Type").Str {
	case "network", "volume":
		return nil
	case "image":
		return []subject{aboutImages, aboutEngine}
	case "container":
		switch action {
		case "exec_create", "exec_start", "exec_die", "exec_detach", "health_status", "top", "resize", "attach", "detach", "export", "copy", "archive-path", "extract-to-dir", "rename":
			return nil
		case "start", "restart", "die", "stop", "kill", "oom", "pause", "unpause", "update":
			return []subject{aboutEngine}
		case "create", "destroy", "commit":
			return []subject{aboutImages, aboutEngine}
		}
	}
	return []subject{aboutImages, aboutEngine, aboutVersion}
}

// alters says whether an active call may alter what is kept without an event that says so: a build, a load.
func alters(c Call, path string) bool {
	switch first, _, _ := strings.Cut(strings.TrimPrefix(version.ReplaceAllString(path, "/"), "/"), "/"); first {
	case "containers", "exec", "networks", "volumes":
		return false
	}
	return c.Active
}

// altered drops what is kept.
func (f *Front) altered() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = nil
	f.altering++
}
