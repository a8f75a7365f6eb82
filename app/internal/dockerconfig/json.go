package dockerconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tailscale/hujson"
)

// Config is the settings, byte for byte. Names are docker's: at the top it takes them in any case, and of
// one that stands there twice the last (encoding/json does so); the entries of auths, credHelpers and proxies
// are named exactly.
type Config struct {
	raw  []byte // as it was read, without the mark
	mark bool   // a byte order mark comes first; docker does not read such a file
	root hujson.Value
}

// SyntaxError says where the settings stop being a JSON object.
type SyntaxError struct {
	Path         string
	Line, Column int // from 1; 0 where it is not about a place
	Why          string
}

func (e *SyntaxError) Error() string {
	at := e.Path
	if e.Line > 0 {
		at = fmt.Sprintf("%s, line %d, column %d", e.Path, e.Line, e.Column)
	}
	return fmt.Sprintf("docker's settings are not a JSON object and were left alone: %s: %s", at, e.Why)
}

// TypeError says that a key holds what docker cannot read there.
type TypeError struct{ Key, Want, Is string }

func (e *TypeError) Error() string {
	return fmt.Sprintf("%s in docker's settings is %s and must be %s; it was left alone", e.Key, e.Is, e.Want)
}

var byteOrderMark = []byte("\xef\xbb\xbf")

func parse(path string, b []byte) (*Config, error) {
	c := &Config{}
	c.raw, c.mark = bytes.CutPrefix(b, byteOrderMark)
	if bytes.HasPrefix(b, []byte("\xff\xfe")) || bytes.HasPrefix(b, []byte("\xfe\xff")) {
		return nil, &SyntaxError{Path: path, Why: "it is UTF-16 text, and docker reads UTF-8; save it as that"}
	}
	if len(bytes.TrimSpace(c.raw)) == 0 {
		// Its white space would stand in front of the object.
		c.root = hujson.Value{Value: &hujson.Object{}}
		return c, nil
	}
	var probe json.RawMessage // bounds the nesting too, which hujson does not
	if err := json.Unmarshal(c.raw, &probe); err != nil {
		e := &SyntaxError{Path: path, Why: err.Error()}
		var s *json.SyntaxError
		if errors.As(err, &s) {
			e.Line, e.Column = place(c.raw, int(s.Offset))
		}
		return nil, e
	}
	var err error
	if c.root, err = hujson.Parse(c.raw); err != nil {
		return nil, &SyntaxError{Path: path, Why: strings.TrimPrefix(err.Error(), "hujson: ")}
	}
	if c.root.Value.Kind() != '{' {
		line, column := place(c.raw, c.root.StartOffset+1)
		return nil, &SyntaxError{Path: path, Line: line, Column: column, Why: "it is " + kindName(c.root.Value)}
	}
	return c, nil
}

// place is the line and column of the n-th byte, from 1.
func place(b []byte, n int) (line, column int) {
	n = max(0, min(n, len(b))-1)
	return 1 + bytes.Count(b[:n], []byte("\n")), n - bytes.LastIndexByte(b[:n], '\n')
}

func kindName(v hujson.ValueTrimmed) string {
	switch v.Kind() {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case 'n':
		return "null"
	}
	return "true or false"
}

// Pack is the settings as bytes.
func (c *Config) Pack() []byte {
	b := c.root.Pack()
	if c.mark {
		b = append(slices.Clone(byteOrderMark), b...)
	}
	return b
}

// Mark says whether a byte order mark comes first, and DropMark takes it away.
func (c *Config) Mark() bool { return c.mark }
func (c *Config) DropMark()  { c.mark = false }

// Get is the text at a key; empty if there is none.
func (c *Config) Get(key string) (string, error) {
	m := c.find(key)
	if m == nil || m.Value.Value.Kind() == 'n' {
		return "", nil
	}
	if m.Value.Value.Kind() != '"' {
		return "", &TypeError{key, "a string", kindName(m.Value.Value)}
	}
	return m.Value.Value.(hujson.Literal).String(), nil
}

// Set sets the text at a key.
func (c *Config) Set(key, text string) error {
	if old, err := c.Get(key); err != nil || old == text {
		return err
	}
	if m := c.find(key); m != nil {
		m.Value.Value = hujson.String(text)
		return nil
	}
	c.add(c.object(), key, hujson.String(text))
	return nil
}

// Delete takes a key away, wherever it stands.
func (c *Config) Delete(key string) {
	remove(c.object(), func(name string) bool { return strings.EqualFold(name, key) })
}

// Entry is one of an object's.
type Entry struct {
	Name  string
	Value json.RawMessage
}

// Entries are those of the object at a key, in order; none if there is none.
func (c *Config) Entries(key string) ([]Entry, error) {
	objects, err := c.objects(key)
	if err != nil {
		return nil, err
	}
	var out []Entry
	at := map[string]int{}
	for _, o := range objects {
		for _, m := range o.Members {
			e := Entry{text(m.Name), raw(m.Value)}
			if i, twice := at[e.Name]; twice {
				out[i] = e
				continue
			}
			at[e.Name] = len(out)
			out = append(out, e)
		}
	}
	return out, nil
}

// Entry is one of them by its name; nil if there is none.
func (c *Config) Entry(key, name string) (json.RawMessage, error) {
	objects, err := c.objects(key)
	var last json.RawMessage
	for _, o := range objects {
		for _, m := range o.Members {
			if text(m.Name) == name {
				last = raw(m.Value)
			}
		}
	}
	return last, err
}

// SetEntry sets one, and makes the object if there is none. value is JSON.
func (c *Config) SetEntry(key, name string, value json.RawMessage) error {
	v, err := hujson.Parse(value)
	if err != nil {
		return err
	}
	objects, err := c.objects(key)
	if err != nil {
		return err
	}
	var last *hujson.ObjectMember
	for _, o := range objects {
		for i := range o.Members {
			if text(o.Members[i].Name) == name {
				last = &o.Members[i]
			}
		}
	}
	if last != nil {
		last.Value.Value = v.Value
		return nil
	}
	if len(objects) == 0 {
		o := &hujson.Object{}
		objects = append(objects, o)
		if m := c.find(key); m != nil { // null
			m.Value.Value = o
		} else {
			c.add(c.object(), key, o)
		}
	}
	c.add(objects[len(objects)-1], name, v.Value)
	return nil
}

// DeleteEntry takes one away, and with the last one the object.
func (c *Config) DeleteEntry(key, name string) error {
	objects, err := c.objects(key)
	if err != nil {
		return err
	}
	left, removed := 0, false
	for _, o := range objects {
		removed = remove(o, func(n string) bool { return n == name }) || removed
		left += len(o.Members)
	}
	if removed && left == 0 {
		c.Delete(key)
	}
	return nil
}

// DeleteFields takes fields of an entry away, named in any case, as docker reads them.
func (c *Config) DeleteFields(key, name string, fields ...string) error {
	objects, err := c.objects(key)
	if err != nil {
		return err
	}
	for _, o := range objects {
		for _, m := range o.Members {
			if entry, is := m.Value.Value.(*hujson.Object); is && text(m.Name) == name {
				remove(entry, func(field string) bool {
					return slices.ContainsFunc(fields, func(f string) bool { return strings.EqualFold(f, field) })
				})
				if len(entry.Members) == 0 {
					entry.AfterExtra = nil // {}, as docker writes it
				}
			}
		}
	}
	return nil
}

// Twice are the keys that stand more than once at the top.
func (c *Config) Twice() []string {
	seen := map[string]int{}
	var out []string
	for _, m := range c.object().Members {
		name := strings.ToLower(text(m.Name))
		if seen[name]++; seen[name] == 2 {
			out = append(out, text(m.Name))
		}
	}
	return out
}

func (c *Config) object() *hujson.Object { return c.root.Value.(*hujson.Object) }

// find is the member that docker reads.
func (c *Config) find(key string) *hujson.ObjectMember {
	members := c.object().Members
	for i := range slices.Backward(members) {
		if strings.EqualFold(text(members[i].Name), key) {
			return &members[i]
		}
	}
	return nil
}

// objects are those at a key: docker lays one that stands twice over the other.
func (c *Config) objects(key string) ([]*hujson.Object, error) {
	var out []*hujson.Object
	for _, m := range c.object().Members {
		if !strings.EqualFold(text(m.Name), key) || m.Value.Value.Kind() == 'n' {
			continue
		}
		o, is := m.Value.Value.(*hujson.Object)
		if !is {
			return nil, &TypeError{key, "an object", kindName(m.Value.Value)}
		}
		out = append(out, o)
	}
	return out, nil
}

// add puts a member last, with the white space of the one before it, or in a file of many lines on its own.
func (c *Config) add(o *hujson.Object, name string, value hujson.ValueTrimmed) {
	m := hujson.ObjectMember{Name: hujson.Value{Value: hujson.String(name)}, Value: hujson.Value{Value: value}}
	switch n := len(o.Members); {
	case n > 0:
		m.Name.BeforeExtra, m.Value.BeforeExtra = o.Members[n-1].Name.BeforeExtra, o.Members[n-1].Value.BeforeExtra
	case o != c.object() && len(o.AfterExtra) == 0:
		first := c.object().Members[0]
		if _, indent, lines := strings.Cut(string(first.Name.BeforeExtra), "\n"); lines {
			m.Name.BeforeExtra = append(slices.Clone(first.Name.BeforeExtra), indent...)
			m.Value.BeforeExtra = first.Value.BeforeExtra
			o.AfterExtra = first.Name.BeforeExtra
		}
	}
	o.Members = append(o.Members, m)
}

func remove(o *hujson.Object, these func(name string) bool) bool {
	n := len(o.Members)
	o.Members = slices.DeleteFunc(o.Members, func(m hujson.ObjectMember) bool { return these(text(m.Name)) })
	if len(o.Members) == n {
		return false
	}
	if left := len(o.Members); left > 0 {
		o.Members[left-1].Value.AfterExtra = nil // with it hujson writes a comma after the last one
	}
	return true
}

func text(v hujson.Value) string { return v.Value.(hujson.Literal).String() }

func raw(v hujson.Value) json.RawMessage { return hujson.Value{Value: v.Value}.Pack() }

// blank empties what may be secret: passwords and tokens of registries, headers, and proxies with a login.
func (c *Config) blank() {
	for i := range c.object().Members {
		m := &c.object().Members[i]
		secret := func(string) bool { return true }
		switch name := text(m.Name); {
		case strings.EqualFold(name, "auths"), strings.EqualFold(name, "HttpHeaders"):
		case strings.EqualFold(name, "proxies"):
			secret = func(s string) bool { return strings.Contains(s, "@") }
		default:
			continue
		}
		blankIn(&m.Value, secret)
	}
}

func blankIn(v *hujson.Value, secret func(string) bool) {
	switch t := v.Value.(type) {
	case hujson.Literal:
		if t.Kind() == '"' && secret(t.String()) {
			v.Value = hujson.String("")
		}
	case *hujson.Object:
		for i := range t.Members {
			blankIn(&t.Members[i].Value, secret)
		}
	case *hujson.Array:
		for i := range t.Elements {
			blankIn(&t.Elements[i], secret)
		}
	}
}
