package dockerconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// in is a docker folder with a config.json of the text given.
func in(t *testing.T, config string) Docker {
	t.Helper()
	d := Docker{Dir: filepath.Join(t.TempDir(), ".docker"), Backups: filepath.Join(t.TempDir(), "backups")}
	if err := os.Mkdir(d.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.Path(), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

func contents(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// use is a change as `cove credentials use` makes it.
func use(c *Config) error { return c.Set("credsStore", "cove") }

// What people have in config.json, and what a change makes of it. What is refused stays byte for byte.
func TestCorpus(t *testing.T) {
	const pretty = "{\n\t\"auths\": {\n\t\t\"r.example:5000\": {}\n\t},\n\t\"psFormat\": \"a\\u003cb {{.ID}}\\t\"\n}\n"
	for _, c := range []struct{ is, config, after, refused string }{
		{"empty", "", `{"credsStore":"cove"}`, ""},
		{"white space alone", " \r\n\t\n", `{"credsStore":"cove"}`, ""},
		{"an empty object", "{}", `{"credsStore":"cove"}`, ""},
		{"an empty object with spaces", "{ }\n", "{\"credsStore\":\"cove\" }\n", ""},
		{"docker's own form", pretty, strings.Replace(pretty, "\\t\"\n}", "\\t\",\n\t\"credsStore\": \"cove\"\n}", 1), ""},
		{"on one line", `{"auths": {}, "a":1}`, `{"auths": {}, "a":1, "credsStore":"cove"}`, ""},
		{"another store", "{\n  \"credsStore\" : \"desktop\",\n  \"a\": 1}", "{\n  \"credsStore\" : \"cove\",\n  \"a\": 1}", ""},
		{"no store, said as null", `{"credsStore":null}`, `{"credsStore":"cove"}`, ""},
		{"the key in another case, which docker takes", `{"CredsStore":"desktop"}`, `{"CredsStore":"cove"}`, ""},
		{"two stores, of which docker takes the last", `{"credsStore":"a","x":1,"credsStore":"b"}`, `{"credsStore":"a","x":1,"credsStore":"cove"}`, ""},
		{"two stores in two cases", `{"credsStore":"a","credsstore":"b"}`, `{"credsStore":"a","credsstore":"cove"}`, ""},
		{"keys that are nearly it", `{"credsStores":"a","x":{"credsStore":"b"}}`, `{"credsStores":"a","x":{"credsStore":"b"},"credsStore":"cove"}`, ""},
		{"the key, escaped", `{"creds\u0053tore":"a"}`, `{"creds\u0053tore":"cove"}`, ""},
		{"Windows line ends", "{\r\n  \"a\": 1\r\n}\r\n", "{\r\n  \"a\": 1,\r\n  \"credsStore\": \"cove\"\r\n}\r\n", ""},
		{"a byte order mark", "\xef\xbb\xbf{\"a\": 1}", "\xef\xbb\xbf{\"a\": 1,\"credsStore\": \"cove\"}", ""},
		{"a byte order mark alone", "\xef\xbb\xbf", "\xef\xbb\xbf{\"credsStore\":\"cove\"}", ""},
		{"numbers that do not fit", `{"a":1e999,"b":123456789012345678901234567890}`, `{"a":1e999,"b":123456789012345678901234567890,"credsStore":"cove"}`, ""},
		{"deep, as deep as docker reads", `{"a":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`, `{"a":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `,"credsStore":"cove"}`, ""},
		{"auths that are a list, which is another's trouble", `{"auths":["x"]}`, `{"auths":["x"],"credsStore":"cove"}`, ""},
		{"a store that is a number", `{"credsStore":5}`, "", "credsStore in docker's settings is a number and must be a string"},
		{"a store that is an object", `{"credsStore":{"a":"b"}}`, "", "is an object and must be a string"},
		{"cut off", "{\n\t\"auths\": {\n\t\t\"r\": {\"auth\": \"aGVsb", "", "line 3, column 22: unexpected end"},
		{"cut off after the object began", `{`, "", "line 1, column 1: unexpected end"},
		{"a comma too many", "{\n  \"a\": 1,\n}", "", "line 3, column 1: invalid character '}'"},
		{"comments", "{\n  // mine\n  \"a\": 1}", "", "line 2, column 3: invalid character '/'"},
		{"something after the object", `{"a":1} x`, "", "line 1, column 9: invalid character 'x' after top-level value"},
		{"two objects", "{}\n{}", "", "line 2, column 1"},
		{"a list", `[]`, "", "line 1, column 1: it is a list"},
		{"a string", `"x"`, "", "it is a string"},
		{"null", "\n null", "", "line 2, column 2: it is null"},
		{"single quotes", `{'a':1}`, "", "line 1, column 2"},
		{"YAML", "auths:\n  x: y\n", "", "line 1, column 1"},
		{"UTF-16, as PowerShell writes it", "\xff\xfe{\x00}\x00", "", "UTF-16"},
		{"bytes of zero, as a crash leaves them", strings.Repeat("\x00", 300), "", "line 1, column 1"},
		{"a string with a raw line end", "{\"a\":\"x\ny\"}", "", "line 1, column 8"},
		{"deeper than docker reads", `{"a":` + strings.Repeat("[", 2_000_000) + `}`, "", "exceeded max depth"},
	} {
		d := in(t, c.config)
		err := d.Change(use)
		after := contents(t, d.Path())
		switch {
		case c.refused == "" && (err != nil || after != c.after):
			t.Errorf("%s: Change = %v, and config.json is\n%q; want\n%q", c.is, err, cut(after), cut(c.after))
		case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)):
			t.Errorf("%s: Change = %v; want an error with %q", c.is, err, c.refused)
		case c.refused != "" && after != c.config:
			t.Errorf("%s: it was refused and is %q now", c.is, cut(after))
		case strings.Contains(fmt.Sprint(err), "aGVsb"):
			t.Errorf("%s: the error holds a password: %v", c.is, err)
		}
		if c.refused == "" {
			if got, err := mustRead(t, d).Get("credsStore"); got != "cove" || err != nil {
				t.Errorf("%s: Get = %q, %v after it was set", c.is, got, err)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(d.Dir, "*")); len(left) != 1 {
			t.Errorf("%s: docker's folder holds %v", c.is, left)
		}
	}
}

func cut(s string) string { return s[:min(len(s), 300)] }

func mustRead(t *testing.T, d Docker) *Config {
	t.Helper()
	c, err := d.Read()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What is set and taken away again leaves every byte as it was.
func TestAChangeUndoneIsNone(t *testing.T) {
	for _, config := range []string{
		"{\n\t\"auths\": {},\n\t\"x\": {\"y\":  [1, 2.50]}\n}\n", " {\"b\" :2 ,\r\n\"c\" : \"old\"  }\r\n\r\n", `{ }`, "{\n}", "\xef\xbb\xbf{\"a\":1 }\n",
		`{"credHelpers":{"a.b.c":"x"} }`, "{\n  \"credHelpers\": {\n    \"a.b\": \"x\"\n  }\n}",
	} {
		d := in(t, config)
		if err := d.Change(func(c *Config) error {
			return errors.Join(use(c), c.SetEntry("credHelpers", "r.example:5000", []byte(`"y"`)))
		}); err != nil {
			t.Fatal(err)
		}
		set := contents(t, d.Path())
		if v, err := mustRead(t, d).Entry("credHelpers", "r.example:5000"); string(v) != `"y"` || err != nil || !json.Valid([]byte(strings.TrimPrefix(set, "\xef\xbb\xbf"))) {
			t.Errorf("with %q the entry is %s, %v, of %q", config, v, err, set)
		}
		if err := d.Change(func(c *Config) error { c.Delete("credsStore"); return c.DeleteEntry("credHelpers", "r.example:5000") }); err != nil {
			t.Fatal(err)
		}
		if after := contents(t, d.Path()); after != config {
			t.Errorf("config.json is\n%q and was\n%q; between it was\n%q", after, config, set)
		}
	}
}

// Names of registries are full of what path languages take for their own.
func TestNamesOfRegistries(t *testing.T) {
	names := []string{"r.example.com", "r.example.com:5000", "https://index.docker.io/v1/", "123", "0", "*", "a|b", "#", "@this", "a.*", `back\slash`, `quo"te`, "[::1]:5000", "", "~1/~0", "ö", "-1", "!x"}
	d := in(t, "{}")
	err := d.Change(func(c *Config) error {
		for i, n := range names {
			if err := c.SetEntry("credHelpers", n, fmt.Appendf(nil, `"h%d"`, i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var as struct{ CredHelpers map[string]string }
	if err := json.Unmarshal([]byte(contents(t, d.Path())), &as); err != nil {
		t.Fatal(err)
	}
	for i, n := range names {
		if as.CredHelpers[n] != fmt.Sprintf("h%d", i) {
			t.Errorf("%q has %q of %v", n, as.CredHelpers[n], as.CredHelpers)
		}
		err := d.Change(func(c *Config) error { return c.DeleteEntry("credHelpers", n) })
		if err != nil {
			t.Fatal(err)
		}
		entries, err := mustRead(t, d).Entries("credHelpers")
		if err != nil || len(entries) != len(names)-i-1 {
			t.Errorf("without %q there are %d, %v", n, len(entries), err)
		}
	}
	if after := contents(t, d.Path()); after != "{}" {
		t.Errorf("it ends as %s", after)
	}
}

func TestHelpersOfTheWrongKind(t *testing.T) {
	var wrong *TypeError
	for _, config := range []string{`{"credHelpers":"x"}`, `{"credHelpers":["x"]}`, `{"credHelpers":7}`} {
		d := in(t, config)
		err := d.Change(func(c *Config) error { return c.SetEntry("credHelpers", "r", []byte(`"h"`)) })
		if !errors.As(err, &wrong) || wrong.Key != "credHelpers" || contents(t, d.Path()) != config {
			t.Errorf("SetEntry in %s = %v, and it is %s", config, err, contents(t, d.Path()))
		}
		if err := d.Change(func(c *Config) error { return c.DeleteEntry("credHelpers", "r") }); !errors.As(err, &wrong) {
			t.Errorf("DeleteEntry in %s = %v", config, err)
		}
	}
	// Docker lays one that stands twice over the other.
	d := in(t, `{"credHelpers":{"a":"1","b":"1"},"credHelpers":{"b":"2"}}`)
	if e, err := mustRead(t, d).Entries("credHelpers"); err != nil || fmt.Sprintf("%s", e) != `[{a "1"} {b "2"}]` {
		t.Errorf("Entries = %s, %v", e, err)
	}
	if err := d.Change(func(c *Config) error { return c.DeleteEntry("credHelpers", "b") }); err != nil || contents(t, d.Path()) != `{"credHelpers":{"a":"1"},"credHelpers":{}}` {
		t.Errorf("DeleteEntry = %v, and it is %s", err, contents(t, d.Path()))
	}
}

func TestAHugeFileIsChangedSoon(t *testing.T) {
	var b strings.Builder
	b.WriteString("{\n\t\"auths\": {")
	for i := 0; b.Len() < 20<<20; i++ {
		fmt.Fprintf(&b, "\n\t\t\"r%d.example:5000\": {},", i)
	}
	b.WriteString("\n\t\t\"last\": {}\n\t}\n}\n")
	d := in(t, b.String())
	begun := time.Now()
	if err := d.Change(use); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 5*time.Minute {
		t.Errorf("it took %s", took)
	}
	want := strings.Replace(b.String(), "}\n\t}\n}\n", "}\n\t},\n\t\"credsStore\": \"cove\"\n}\n", 1)
	if contents(t, d.Path()) != want {
		t.Errorf("it is %d bytes now; want %d", len(contents(t, d.Path())), len(want))
	}
	if err := os.Truncate(d.Path(), maxSize+1); err != nil {
		t.Fatal(err)
	}
	if err := d.Change(use); !errors.Is(err, ErrTooLarge) {
		t.Errorf("with more than the limit Change = %v", err)
	}
}

func TestTheCopyHasNoSecrets(t *testing.T) {
	const config = `{"auths":{"r":{"auth":"c2VjcmV0","identitytoken":"secret"},"s":"secret"},"Auths":["secret"],"httpheaders":{"X":"secret"},` +
		`"proxies":{"default":{"httpProxy":"http://u:secret@p:1","noProxy":"localhost"}},"psFormat":"kept"}`
	d := in(t, config)
	if err := d.Change(use); err != nil {
		t.Fatal(err)
	}
	all, _ := filepath.Glob(filepath.Join(d.Backups, "*"))
	if len(all) != 1 {
		t.Fatalf("there are %v", all)
	}
	want := strings.NewReplacer("c2VjcmV0", "", "http://u:secret@p:1", "", "secret", "").Replace(config)
	if got := contents(t, all[0]); got != want {
		t.Errorf("the copy is\n%s; want\n%s", got, want)
	}
}

func TestCopiesAreFewAndDifferent(t *testing.T) {
	defer func(was func() time.Time) { now = was }(now)
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now = func() time.Time { at = at.Add(time.Second); return at }
	d := in(t, `{"n":"first"}`)
	set := func(n string) {
		if err := d.Change(func(c *Config) error { return c.Set("n", n) }); err != nil {
			t.Fatal(err)
		}
	}
	copies := func() (out []string) {
		all, _ := filepath.Glob(filepath.Join(d.Backups, "*"))
		for _, p := range all {
			out = append(out, contents(t, p))
		}
		return out
	}
	for range 20 { // Cove starts and quits
		set("cove")
		set("first")
	}
	if got, want := copies(), []string{`{"n":"first"}`, `{"n":"cove"}`}; !reflect.DeepEqual(got, want) {
		t.Errorf("after starts and quits there are %q; want %q", got, want)
	}
	for i := range 10 {
		set(fmt.Sprint(i))
	}
	if got := copies(); len(got) != keptBackups || got[0] != `{"n":"4"}` || got[keptBackups-1] != `{"n":"8"}` {
		t.Errorf("after ten changes there are %q", got)
	}
	set("9") // no change
	if got := copies(); got[keptBackups-1] != `{"n":"8"}` {
		t.Errorf("a change that is none makes %q", got)
	}
}

func TestWhereNoCopyCanBeKeptNothingIsChanged(t *testing.T) {
	d := in(t, `{"a":1}`)
	if err := os.WriteFile(d.Backups, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Change(use); err == nil || contents(t, d.Path()) != `{"a":1}` {
		t.Errorf("Change = %v, and it is %s", err, contents(t, d.Path()))
	}
}

// docker login comes between our reading and our writing.
func TestWhatDockerWritesMeanwhileStays(t *testing.T) {
	d := in(t, `{"a":1}`)
	times := 0
	err := d.Change(func(c *Config) error {
		if times++; times == 1 {
			os.WriteFile(d.Path(), []byte(`{"auths":{"r":{}}}`), 0o600)
		}
		return use(c)
	})
	if got := contents(t, d.Path()); err != nil || times != 2 || got != `{"auths":{"r":{}},"credsStore":"cove"}` {
		t.Errorf("Change = %v after %d edits, and it is %s", err, times, got)
	}
}

func TestManyAtOnceLoseNothing(t *testing.T) {
	d := in(t, "{}")
	done := make(chan error)
	for i := range 50 {
		go func() { done <- d.Change(func(c *Config) error { return c.Set(fmt.Sprint("k", i), "v") }) }()
	}
	for range 50 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	var all map[string]string
	if err := json.Unmarshal([]byte(contents(t, d.Path())), &all); err != nil || len(all) != 50 {
		t.Errorf("%d of 50 are there, %v", len(all), err)
	}
}

func TestFind(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", "/elsewhere")
	if d, err := Find("b"); d != (Docker{"/elsewhere", "b"}) || err != nil {
		t.Errorf("Find = %v, %v", d, err)
	}
	t.Setenv("DOCKER_CONFIG", "")
	if d, err := Find(""); filepath.Base(d.Dir) != ".docker" || err != nil {
		t.Errorf("Find = %v, %v", d, err)
	}
}

// Whatever the file holds: it is refused and left alone, or the one key changes, nothing else does, and the
// way back leads to the same bytes.
func FuzzChange(f *testing.F) {
	for _, s := range []string{"", "{}", "\xef\xbb\xbf{\"a\":[1,{}]}", `{"credsStore":"x","credsStore":1}`, "{\"a\" : 1 ,\r\n}", `{"CREDSSTORE":null, "b":"\ud800"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parse("config.json", b)
		if err != nil {
			return
		}
		if len(bytes.TrimSpace(bytes.TrimPrefix(b, byteOrderMark))) > 0 && !bytes.Equal(c.Pack(), b) {
			t.Fatalf("unchanged it is %q", c.Pack())
		}
		had := c.find("credsStore") != nil
		before := rest(t, c)
		if err := use(c); err != nil {
			return
		}
		again, err := parse("config.json", c.Pack())
		if err != nil {
			t.Fatalf("after the change: %v, of %q", err, c.Pack())
		}
		if got, err := again.Get("credsStore"); got != "cove" || err != nil || !reflect.DeepEqual(rest(t, again), before) {
			t.Fatalf("after the change Get = %q, %v, and it is %q", got, err, c.Pack())
		}
		if !had {
			c.Delete("credsStore")
			if len(bytes.TrimSpace(bytes.TrimPrefix(b, byteOrderMark))) > 0 && !bytes.Equal(c.Pack(), b) {
				t.Fatalf("there and back it is %q", c.Pack())
			}
		}
	})
}

// rest is all that is not the store.
func rest(t *testing.T, c *Config) map[string]json.RawMessage {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(bytes.TrimPrefix(c.Pack(), byteOrderMark), &all); err != nil {
		t.Fatal(err)
	}
	for k := range all {
		if strings.EqualFold(k, "credsStore") {
			delete(all, k)
		}
	}
	return all
}
