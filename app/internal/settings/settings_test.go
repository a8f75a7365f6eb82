package settings

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/app/api"
)

var laptop = Host{CPUs: 8, Memory: 16 * gib}

// file is a settings file with the text given; none if it is empty.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "settings.json")
	if text != "" {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func open(t *testing.T, path string, host Host) *Store {
	t.Helper()
	s, err := Open(path, host)
	if err != nil {
		t.Fatalf("Open(%s): %v", path, err)
	}
	return s
}

func contents(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDefaults(t *testing.T) {
	for _, c := range []struct {
		host   Host
		cpus   int
		memory int64
	}{
		{Host{CPUs: 1, Memory: 1 * gib}, 1, 512 * mib},
		{Host{CPUs: 2, Memory: 2 * gib}, 2, 1 * gib},
		{Host{CPUs: 3, Memory: 6 * gib}, 2, 2 * gib},
		{Host{CPUs: 4, Memory: 8 * gib}, 2, 2 * gib},
		{Host{CPUs: 5, Memory: 12 * gib}, 3, 3 * gib},
		{Host{CPUs: 8, Memory: 16 * gib}, 4, 4 * gib},
		{Host{CPUs: 64, Memory: 256 * gib}, 32, 8 * gib},
	} {
		v := open(t, file(t, ""), c.host).Values()
		if v.CPUs != c.cpus || v.Memory != c.memory || v.Disk != 64*gib || v.DataFolder != "" || v.Accelerator != "" || v.Engine != nil {
			t.Errorf("on %+v the defaults are %+v; want %d CPUs and %d bytes", c.host, v, c.cpus, c.memory)
		}
	}
}

func TestSetKnowsEveryRange(t *testing.T) {
	folder := t.TempDir()
	for _, c := range []struct {
		says            string
		key, value, out string // no out: it is refused
	}{
		{"one CPU is enough", "cpus", "1", "1"},
		{"the VM can have every CPU", "cpus", "8", "8"},
		{"no CPU is too few", "cpus", "0", ""},
		{"more CPUs than the host has are too many", "cpus", "9", ""},
		{"half a CPU is no number of CPUs", "cpus", "1.5", ""},
		{"a word is no number of CPUs", "cpus", "many", ""},
		{"512 MiB is enough memory", "memory", "512MiB", "512MiB"},
		{"less than 512 MiB is too little", "memory", "511MiB", ""},
		{"all of the host's memory can be had", "memory", "16GiB", "16GiB"},
		{"more than the host's memory cannot", "memory", "16385MiB", ""},
		{"G means GiB", "memory", "3G", "3GiB"},
		{"MiB that make up GiB are shown as such", "memory", "3072MiB", "3GiB"},
		{"plain bytes are a size", "memory", "3221225472", "3GiB"},
		{"spaces around a value do no harm", "memory", " 3GiB ", "3GiB"},
		{"a negative size is refused", "memory", "-3GiB", ""},
		{"a size beyond int64 is refused", "disk", "99999999TiB", ""},
		{"4 GiB of disk are enough", "disk", "4GiB", "4GiB"},
		{"less than 4 GiB of disk are refused", "disk", "4095MiB", ""},
		{"16 TiB of disk can be had", "disk", "16TiB", "16TiB"},
		{"more than 16 TiB cannot", "disk", "16385GiB", ""},
		{"an absolute folder is taken", "data-folder", folder, folder},
		{"a relative folder is refused", "data-folder", "disks", ""},
		{"each accelerator can be chosen, tcg too", "accelerator", "tcg", "tcg"},
		{"auto can be said", "accelerator", "auto", "auto"},
		{"an unknown accelerator is refused", "accelerator", "warp", ""},
		{"no accelerator at all is refused", "accelerator", "", ""},
		{"the engine's settings are an object", "engine", `{"debug": true}`, `{"debug":true}`},
		{"the engine's settings are no list", "engine", `[]`, ""},
		{"the engine's settings are not null", "engine", `null`, ""},
		{"hosts is not the user's to set", "engine", `{"hosts": []}`, ""},
		{"nor in capitals, which dockerd reads as well", "engine", `{"Hosts": []}`, ""},
	} {
		s := open(t, file(t, ""), laptop)
		change, err := s.Set(c.key, c.value)
		if c.out == "" {
			var v *ValueError
			if !errors.As(err, &v) || v.Key != c.key || v.Allowed == "" || v.File != "" {
				t.Errorf("%s: Set(%s, %q) = %v; want a *ValueError with the range", c.says, c.key, c.value, err)
			}
			if _, err := os.Stat(s.path); err == nil {
				t.Errorf("%s: Set(%s, %q) was refused and wrote the file", c.says, c.key, c.value)
			}
			continue
		}
		got, _ := s.Get(c.key)
		again, _ := open(t, s.path, laptop).Get(c.key)
		if err != nil || change.Value != c.out || got.Value != c.out || !got.Set || got != again {
			t.Errorf("%s: Set(%s, %q) = %+v, %v; then it is %+v, and read again %+v; want %q", c.says, c.key, c.value, change, err, got, again, c.out)
		}
	}
}

func TestEveryKeyThatCoveOwnsIsRefusedByName(t *testing.T) {
	for _, k := range []string{"hosts", "data-root", "exec-root", "pidfile", "group", "containerd", "containerd-namespace", "containerd-plugin-namespace"} {
		s := open(t, file(t, ""), laptop)
		if _, err := s.Set("engine."+k, `"x"`); err == nil || !strings.Contains(err.Error(), k+" is Cove's own") {
			t.Errorf("Set(engine.%s) = %v; want it refused by name", k, err)
		}
	}
}

func TestEngineKeys(t *testing.T) {
	s := open(t, file(t, ""), laptop)
	for _, c := range []struct{ key, value string }{
		{"engine.debug", "true"},
		{"engine.log-level", "warn"}, // a bare word is a string
		{"engine.log-opts", `{"max-size": "10m", "Tag": "A.b"}`},
		{"engine.max-concurrent-downloads", "9007199254740993"}, // more than a float64 holds
	} {
		if _, err := s.Set(c.key, c.value); err != nil {
			t.Fatalf("Set(%s, %s): %v", c.key, c.value, err)
		}
	}
	const want = `{"debug":true,"log-level":"warn","log-opts":{"max-size":"10m","Tag":"A.b"},"max-concurrent-downloads":9007199254740993}`
	if got := string(s.Values().Engine); got != want {
		t.Errorf("the engine's settings are %s; want %s", got, want)
	}
	if got, err := s.Get("engine.debug"); err != nil || got.Value != "true" || !got.Set || got.Key != "engine.debug" {
		t.Errorf("Get(engine.debug) = %+v, %v", got, err)
	}
	if got, err := s.Get("engine.dns"); err != nil || got.Set || got.Value != "" {
		t.Errorf("Get(engine.dns) = %+v, %v; want it not set", got, err)
	}
	if got := string(open(t, s.path, laptop).Values().Engine); got != want {
		t.Errorf("read again they are %s; want %s", got, want)
	}
	for _, slip := range []string{`{max-size: 10m}`, `["a",`, `"open`, ``} {
		var v *ValueError
		if _, err := s.Set("engine.log-opts", slip); !errors.As(err, &v) {
			t.Errorf("Set(engine.log-opts, %s) = %v; want a *ValueError", slip, err)
		}
	}
	for _, k := range []string{"engine.log-level", "engine.log-opts", "engine.max-concurrent-downloads", "engine.debug"} {
		if _, err := s.Unset(k); err != nil {
			t.Errorf("Unset(%s): %v", k, err)
		}
	}
	if v, _ := s.Get("engine"); v.Set || s.Values().Engine != nil {
		t.Errorf("after the last of the engine's keys is unset the engine is %+v; want the default", v)
	}
}

func TestSetAndUnset(t *testing.T) {
	s := open(t, file(t, ""), laptop)
	for _, c := range []struct {
		says string
		do   func() (api.SettingChange, error)
		want api.SettingChange
		file string
	}{
		{"a new value asks for a restart", func() (api.SettingChange, error) { return s.Set("memory", "3G") },
			api.SettingChange{Key: "memory", Before: "4GiB", Value: "3GiB", Restart: true}, "{\n  \"memory\": \"3GiB\"\n}\n"},
		{"the same value does not", func() (api.SettingChange, error) { return s.Set("memory", "3072MiB") },
			api.SettingChange{Key: "memory", Before: "3GiB", Value: "3GiB"}, "{\n  \"memory\": \"3GiB\"\n}\n"},
		{"the default, said, changes nothing but the file", func() (api.SettingChange, error) { return s.Set("cpus", "4") },
			api.SettingChange{Key: "cpus", Before: "4", Value: "4"}, "{\n  \"cpus\": 4,\n  \"memory\": \"3GiB\"\n}\n"},
		{"unset gives the default again", func() (api.SettingChange, error) { return s.Unset("memory") },
			api.SettingChange{Key: "memory", Before: "3GiB", Value: "4GiB", Restart: true}, "{\n  \"cpus\": 4\n}\n"},
		{"unset of what is not set does no harm", func() (api.SettingChange, error) { return s.Unset("disk") },
			api.SettingChange{Key: "disk", Before: "64GiB", Value: "64GiB"}, "{\n  \"cpus\": 4\n}\n"},
		{"what holds at once asks for no restart", func() (api.SettingChange, error) { return s.Set("swap", "0 B") },
			api.SettingChange{Key: "swap", Before: "1GiB", Value: "0"}, "{\n  \"cpus\": 4,\n  \"swap\": \"0\"\n}\n"},
	} {
		got, err := c.do()
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.says, got, err, c.want)
		}
		if text := contents(t, s.path); text != c.file {
			t.Errorf("%s: the file is %s; want %s", c.says, text, c.file)
		}
		if a, b := fmt.Sprint(s.List()), fmt.Sprint(open(t, s.path, laptop).List()); a != b {
			t.Errorf("%s: read again it is\n%s\nand was\n%s", c.says, b, a)
		}
	}
	if st, err := os.Stat(s.path); err != nil || os.PathSeparator == '/' && st.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v; want mode 0600", st, err)
	}
}

func TestUnknownKeys(t *testing.T) {
	s := open(t, file(t, ""), laptop)
	for key, near := range map[string]string{"memroy": "memory", "cpu": "cpus", "data_folder": "data-folder", "engine.": "engine"} {
		_, get := s.Get(key)
		_, set := s.Set(key, "1")
		_, unset := s.Unset(key)
		for call, err := range map[string]error{"Get": get, "Set": set, "Unset": unset} {
			if !errors.Is(err, ErrUnknownKey) || !strings.Contains(err.Error(), `"`+key+`"`) || !strings.HasSuffix(err.Error(), " "+near) {
				t.Errorf("%s(%s) = %v; want ErrUnknownKey that names it and %s", call, key, err, near)
			}
		}
	}
}

func TestARehearsalSaysAllAndWritesNothing(t *testing.T) {
	text := "{\n  \"cpus\": 2,\n  \"memroy\": 1\n}\n"
	path := file(t, text)
	for _, c := range []struct {
		says string
		do   func(*Store) (api.SettingChange, error)
		want api.SettingChange
	}{
		{"a value in its usual form", func(s *Store) (api.SettingChange, error) { return s.Set("memory", "2048 MiB") }, api.SettingChange{Key: "memory", Before: "4GiB", Value: "2GiB", Restart: true, DryRun: true}},
		{"a default", func(s *Store) (api.SettingChange, error) { return s.Unset("cpus") }, api.SettingChange{Key: "cpus", Before: "2", Value: "4", Restart: true, DryRun: true}},
		{"a key of the engine's", func(s *Store) (api.SettingChange, error) { return s.Set("engine.debug", "true") }, api.SettingChange{Key: "engine", Before: "{}", Value: `{"debug":true}`, Restart: true, DryRun: true}},
		{"a key that is none", func(s *Store) (api.SettingChange, error) { return s.Unset("memroy") }, api.SettingChange{Key: "memroy", DryRun: true}},
	} {
		s, err := Open(path, laptop)
		if s == nil {
			t.Fatal(err)
		}
		before := fmt.Sprint(s.List())
		s.Rehearse()
		if got, err := c.do(s); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.says, got, err, c.want)
		}
		if after := fmt.Sprint(s.List()); after != before {
			t.Errorf("%s: afterwards the settings are\n%s\nand were\n%s", c.says, after, before)
		}
		if got := contents(t, path); got != text {
			t.Errorf("%s: the file is %s; want it as it was", c.says, got)
		}
	}
	s, _ := Open(path, laptop)
	s.Rehearse()
	if _, err := s.Set("memory", "1MiB"); err == nil {
		t.Error("Set(memory, 1MiB) = nil in a rehearsal; want the refusal")
	}
}

func TestOpenTakesWhatPeopleWrite(t *testing.T) {
	for _, c := range []struct {
		says, text string
		want       Values
	}{
		{"a size can be a number of bytes", `{"memory": 3221225472, "disk": 17592186044416}`, Values{CPUs: 4, Memory: 3 * gib, Swap: gib, Disk: 16 * tib}},
		{"a number can be in quotes", `{"cpus": "2"}`, Values{CPUs: 2, Memory: 4 * gib, Swap: gib, Disk: 64 * gib}},
		{"null is the default", `{"cpus": null}`, Values{CPUs: 4, Memory: 4 * gib, Swap: gib, Disk: 64 * gib}},
		{"capitals do no harm", `{"CPUs": 2, "Engine": {"debug": true}}`, Values{CPUs: 2, Memory: 4 * gib, Swap: gib, Disk: 64 * gib, Engine: []byte(`{"debug":true}`)}},
		{"the engine's keys keep their case and dots", `{"engine": {"a.B": {"C": 1}}}`, Values{CPUs: 4, Memory: 4 * gib, Swap: gib, Disk: 64 * gib, Engine: []byte(`{"a.B":{"C":1}}`)}},
		{"Windows' mark of UTF-8 does no harm", "\xef\xbb\xbf{\"cpus\": 2}", Values{CPUs: 2, Memory: 4 * gib, Swap: gib, Disk: 64 * gib}},
	} {
		s, err := Open(file(t, c.text), laptop)
		if err != nil {
			t.Errorf("%s: Open = %v", c.says, err)
			continue
		}
		c.want.Sleep.After = 5 * time.Minute
		if got := s.Values(); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", c.want) {
			t.Errorf("%s: %s is %+v; want %+v", c.says, c.text, got, c.want)
		}
	}
}

func TestOpenRefusesAndLeavesTheFile(t *testing.T) {
	for _, c := range []struct {
		says, text          string
		key, value, allowed string
		unknown             bool
	}{
		{"more memory than the host has", `{"memory": "900 TiB"}`, "memory", "900 TiB", "512MiB to 16GiB", false},
		{"a number out of range is named as it was written", `{"memory": 99999999999999}`, "memory", "99999999999999", "16GiB", false},
		{"a wrong type", `{"cpus": true}`, "cpus", "true", "1 to 8", false},
		{"a list where a size is due", `{"disk": ["64GiB"]}`, "disk", `["64GiB"]`, "4GiB to 16TiB", false},
		{"an engine's key that is Cove's", `{"engine": {"data-root": "/x"}}`, "engine", `{"data-root": "/x"}`, "data-root", false},
		{"a key that does not exist", `{"memroy": "2GiB"}`, "memroy", "2GiB", "cpus, memory, swap", true},
	} {
		path := file(t, c.text)
		_, err := Open(path, laptop)
		var v *ValueError
		if !errors.As(err, &v) {
			t.Errorf("%s: Open = %v; want a *ValueError", c.says, err)
			continue
		}
		if v.File != path || v.Key != c.key || v.Value != c.value || !strings.Contains(v.Allowed, c.allowed) || errors.Is(err, ErrUnknownKey) != c.unknown {
			t.Errorf("%s: Open = %+v; want key %s, value %s, allowed %s, unknown %v", c.says, v, c.key, c.value, c.allowed, c.unknown)
		}
		for _, part := range []string{path, c.key, c.allowed} {
			if !strings.Contains(err.Error(), part) || !strings.HasSuffix(err.Error(), ".") {
				t.Errorf("%s: the sentence %q does not say %s", c.says, err, part)
			}
		}
		if got := contents(t, path); got != c.text {
			t.Errorf("%s: the file became %s", c.says, got)
		}
	}
}

func TestACorruptFileIsKeptAside(t *testing.T) {
	for _, text := range []string{"{\"cpus\": 2", "cpus: 2\n", "\x00\x00\x00", `{"cpus": 2} {"cpus": 3}`, `["cpus"]`} {
		path := file(t, text)
		s := open(t, path, laptop)
		if !strings.HasPrefix(s.Aside(), path+".corrupt-") || contents(t, s.Aside()) != text {
			t.Errorf("Open of %q keeps %q aside", text, s.Aside())
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("Open of %q leaves it in its place too", text)
		}
		if s.Values().CPUs != 4 {
			t.Errorf("Open of %q gives %+v; want the defaults", text, s.Values())
		}
		if _, err := s.Set("cpus", "2"); err != nil || contents(t, path) != "{\n  \"cpus\": 2\n}\n" {
			t.Errorf("after %q: Set = %v", text, err)
		}
	}
	if s := open(t, file(t, `{"cpus": 2}`), laptop); s.Aside() != "" {
		t.Errorf("a good file is aside at %s", s.Aside())
	}
}

func TestAFailedWriteLeavesTheOldFile(t *testing.T) {
	// The name fits in a folder, and that of a file beside it does not.
	path := filepath.Join(t.TempDir(), strings.Repeat("s", 250))
	const text = `{"cpus": 2}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, path, laptop)
	if _, err := s.Set("cpus", "3"); err == nil {
		t.Fatal("Set of a file that cannot be written gives no error")
	}
	if _, err := s.Unset("cpus"); err == nil {
		t.Fatal("Unset of a file that cannot be written gives no error")
	}
	if got := contents(t, path); got != text || s.Values().CPUs != 2 {
		t.Errorf("after a failed write the file is %s and there are %d CPUs", got, s.Values().CPUs)
	}
	if all, _ := os.ReadDir(filepath.Dir(path)); len(all) != 1 {
		t.Errorf("a failed write leaves %v", all)
	}
}

func TestConcurrentSetsAllArrive(t *testing.T) {
	s := open(t, file(t, ""), laptop)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := s.Set(fmt.Sprintf("engine.k%d", i), fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() { s.List(); s.Values() })
	}
	wg.Wait()
	again := open(t, s.path, laptop)
	for i := range 20 {
		if v, _ := again.Get(fmt.Sprintf("engine.k%d", i)); v.Value != fmt.Sprint(i) {
			t.Errorf("engine.k%d is %q in the file", i, v.Value)
		}
	}
}

func TestTheSchemaSaysEverything(t *testing.T) {
	s := open(t, file(t, ""), laptop)
	for _, v := range s.List() {
		if v.Kind == "" || v.Allowed == "" || v.Description == "" || v.Applies != "restart" && v.Applies != "now" && v.Applies != "live" {
			t.Errorf("%+v lacks something", v)
		}
		if _, err := s.Set(v.Key, v.Default); err != nil {
			t.Errorf("the default of %s is refused: %v", v.Key, err)
		}
	}
}

func TestHostMemory(t *testing.T) {
	if n, err := HostMemory(); err != nil || n < 64*mib {
		t.Errorf("HostMemory() = %d, %v", n, err)
	}
}

func TestABadFileIsMendedKeyByKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.json")
	os.WriteFile(path, []byte(`{"cpus": 9999, "memry": "2GiB", "disk": "8GiB", "memory": "1 kB"}`), 0o600)
	host := Host{CPUs: 4, Memory: 8 << 30}
	for _, mend := range []func(*Store) error{
		func(s *Store) error { _, err := s.Set("cpus", "2"); return err },
		func(s *Store) error { _, err := s.Unset("memry"); return err },
		func(s *Store) error { _, err := s.Unset("memory"); return err },
	} {
		s, err := Open(path, host)
		if err == nil || s == nil {
			t.Fatalf("Open of a bad file = %v, %v; want a store to mend it and an error", s, err)
		}
		if err := mend(s); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(path, host)
	if err != nil {
		t.Fatal(err)
	}
	if v := s.Values(); v.CPUs != 2 || v.Disk != 8<<30 {
		t.Errorf("after mending the values are %+v; want 2 CPUs and what was good before", v)
	}
}
