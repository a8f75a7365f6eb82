package dockerapi

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/moby/moby/api/pkg/stdcopy"
)

// parting knows how a client can be told an error in the middle of an answer.
type parting interface {
	// pass sees what the client gets.
	pass(p []byte)
	// words are what it gets last; empty where the form of the answer has no place for them now.
	words(text string) []byte
}

// partingOf is that of an answer; nil where its form has no place for an error.
func partingOf(r *http.Request, resp *http.Response) parting {
	path := version.ReplaceAllString(r.URL.Path, "/")
	parts := strings.Split(strings.Trim(path, "/"), "/")
	form, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	post := r.Method == http.MethodPost
	switch last := parts[len(parts)-1]; {
	case form == "application/vnd.docker.multiplexed-stream":
		return new(frames)
	case post && len(parts) == 3 && parts[0] == "containers" && last == "wait":
		return new(outcome)
	case !post || !strings.HasPrefix(form, "application/") || !strings.Contains(form, "json"):
	case path == "/build", path == "/images/create", path == "/images/load", path == "/plugins/pull",
		last == "push", parts[0] == "plugins" && last == "upgrade":
		return &progress{separator: form == "application/json-seq", last: '\n'}
	}
	return nil
}

// frames are a container's output and error output in one stream: eight bytes of head before each piece.
type frames struct {
	head []byte // as far as it came
	left int    // bytes of the piece that are to come
}

const frameHead = 8 // the stream's number, three of nothing, and the length

func (f *frames) pass(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, len(p))
			f.left, p = f.left-n, p[n:]
			continue
		}
		n := min(frameHead-len(f.head), len(p))
		f.head, p = append(f.head, p[:n]...), p[n:]
		if len(f.head) == frameHead {
			f.left, f.head = int(binary.BigEndian.Uint32(f.head[4:])), f.head[:0]
		}
	}
}

func (f *frames) words(text string) []byte {
	if f.left > 0 || len(f.head) > 0 {
		return nil
	}
	head := []byte{byte(stdcopy.Systemerr), 0, 0, 0}
	return append(binary.BigEndian.AppendUint32(head, uint32(len(text))), text...)
}

// progress is a line of JSON for each step of a pull, a push, a build.
type progress struct {
	separator bool // RFC 7464
	last      byte
}

func (s *progress) pass(p []byte) {
	if len(p) > 0 {
		s.last = p[len(p)-1]
	}
}

func (s *progress) words(text string) []byte {
	if s.last != '\n' {
		return nil
	}
	b, err := json.Marshal(map[string]any{"error": text, "errorDetail": map[string]string{"message": text}})
	if err != nil {
		panic(err) // strings
	}
	if s.separator {
		b = append([]byte{0x1e}, b...)
	}
	return append(b, "\r\n"...)
}

// outcome is how a container ended, once it did. Clients take a text in its place for an error, as a 200
// leaves no other way (moby, client/container_wait.go).
type outcome struct{ begun bool }

func (o *outcome) pass(p []byte) { o.begun = o.begun || len(p) > 0 }

func (o *outcome) words(text string) []byte {
	if o.begun {
		return nil
	}
	return []byte(text)
}

// partedReader reads what is cut at the end of a life, with the last words after it.
type partedReader struct {
	io.Reader
	life    *life
	parting parting // nil for none

	cut  bool
	said bool // there were words
	rest []byte
}

// Read ends with errSuspended after a cut.
func (r *partedReader) Read(p []byte) (int, error) {
	if !r.cut {
		n, err := r.Reader.Read(p)
		if r.parting != nil {
			r.parting.pass(p[:n])
		}
		if err == nil || err == io.EOF || !r.life.over() {
			return n, err
		}
		r.cut = true
		if r.parting != nil {
			r.rest = r.parting.words(errSuspended.Message)
			r.said = len(r.rest) > 0
		}
		if n > 0 {
			return n, nil
		}
	}
	n := copy(p, r.rest)
	if r.rest = r.rest[n:]; n > 0 {
		return n, nil
	}
	return 0, errSuspended
}
