//go:build unix

package credentials

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/covedesk/cove/app/internal/dockerconfig"
)

// built holds cove and docker-credential-cove, as they ship.
var built string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "cove-credentials")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		built = dir
		cmd := exec.Command("go", "build", "-o", dir, "github.com/covedesk/cove/credhelper/cmd/docker-credential-cove", "github.com/covedesk/cove/app/cmd/cove")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			panic(fmt.Sprintf("%v\n%s", err, out))
		}
		return m.Run()
	}())
}

// user is a home folder with nothing but its bin/ in PATH, and a config.json of the text given (none if empty).
func user(t *testing.T, config string) Setup {
	t.Helper()
	home := t.TempDir()
	cove := filepath.Join(home, ".cove")
	bin := filepath.Join(home, ".local", "bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{"HOME": home, "COVE_HOME": cove, "PATH": bin, "DOCKER_CONFIG": filepath.Join(home, ".docker"),
		"DBUS_SESSION_BUS_ADDRESS": "", "XDG_RUNTIME_DIR": "", "DOCKER_AUTH_CONFIG": "", "DISPLAY": "", "PASSWORD_STORE_DIR": "", "GNUPGHOME": ""} {
		t.Setenv(k, v)
	}
	s := Setup{Docker: dockerconfig.Docker{Dir: filepath.Join(home, ".docker"), Backups: filepath.Join(cove, "docker-config")},
		Memo: filepath.Join(cove, "docker-credentials.json"), Beside: built, Home: home}
	if config != "" {
		os.Mkdir(s.Docker.Dir, 0o700)
		write(t, s.Docker.Path(), config, 0o600)
	}
	return s
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "none"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// program puts a helper into the user's PATH: the text of a program, or "cove" for the real one.
func (s Setup) program(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(s.Home, ".local", "bin", "docker-credential-"+name)
	if text == "cove" {
		if err := os.Symlink(filepath.Join(built, "docker-credential-cove"), path); err != nil {
			t.Fatal(err)
		}
		return
	}
	write(t, path, text, 0o700)
}

const (
	says     = "#!/bin/sh\necho \"pass not initialized\"; exit 1\n"
	hangs    = "#!/bin/sh\nexec /bin/sleep 600\n"
	orphans  = "#!/bin/sh\n/bin/sleep 600 &\necho $! >$HOME/child\nwait\n"
	format   = "\x7fELF, of another machine"
	noShell  = "#!/nowhere/python\n"
	works    = "#!/bin/sh\n[ $1 = list ] && echo '{}'\nexit 0\n"
	garbage  = "#!/bin/sh\necho hello\n"
	onlyGets = "#!/bin/sh\n[ $1 = get ] || { echo unknown; exit 1; }\n" // as Amazon's does with version and list
)

func auth(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// held is what our helper has for a server, as docker would get it.
func held(t *testing.T, server string) string {
	t.Helper()
	user, s, there, err := holds(t.Context(), filepath.Join(built, "docker-credential-cove"), server)
	if err != nil || !there {
		return fmt.Sprint("none ", err)
	}
	return user + ":" + s.RevealSecret()
}

func quick(t *testing.T, d time.Duration) {
	was := askPatience
	askPatience = d
	t.Cleanup(func() { askPatience = was })
}

func TestUseMovesLoginsAndRestorePutsBack(t *testing.T) {
	config := func(auths, helpers, store string) string {
		return "{\r\n  \"psFormat\": \"a\\u003cb\",\r\n  \"auths\": {\r\n" + auths + "\r\n  },\r\n  \"credHelpers\": {\r\n" + helpers + "\r\n  },\r\n  \"credsStore\": \"" + store + "\"\r\n}\r\n"
	}
	before := config(`    "https://index.docker.io/v1/": { "auth": "`+auth("alice", "pa:ss")+`" },`+"\r\n"+
		`    "r.example:5000": { "email": "a@b", "identitytoken": "tok" , "auth": "" },`+"\r\n"+
		`    "1.dkr.ecr.us-east-1.amazonaws.com": { "auth": "`+auth("AWS", "old")+`" }`,
		"    \"1.dkr.ecr.us-east-1.amazonaws.com\": \"ecr-login\",\r\n    \"x.example\": \"gone\"", "desktop")
	s := user(t, before)
	s.program(t, "ecr-login", onlyGets)

	p, err := s.Plan(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Move) != 2 || len(p.Leave) != 1 || len(p.Dead) != 1 || p.Previous != "desktop" || p.Link.At != filepath.Join(s.Home, ".local/bin/docker-credential-cove") {
		t.Errorf("Plan = %+v", p)
	}
	if got := read(t, s.Docker.Path()); got != before {
		t.Errorf("a plan alone changes the settings to %s", got)
	}
	if err := s.Use(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	after := config(`    "https://index.docker.io/v1/": {},`+"\r\n"+
		`    "r.example:5000": { "email": "a@b" },`+"\r\n"+
		`    "1.dkr.ecr.us-east-1.amazonaws.com": { "auth": "`+auth("AWS", "old")+`" }`,
		`    "1.dkr.ecr.us-east-1.amazonaws.com": "ecr-login"`, "cove")
	// What was before the closing brace of an entry that lost its last field is white space of the user's.
	if got := read(t, s.Docker.Path()); strings.Join(strings.Fields(got), "") != strings.Join(strings.Fields(after), "") || strings.Count(got, "\r\n") != strings.Count(got, "\n") {
		t.Errorf("the settings are\n%s; want\n%s", got, after)
	}
	if a, b := held(t, "https://index.docker.io/v1/"), held(t, "r.example:5000"); a != "alice:pa:ss" || b != "<token>:tok" {
		t.Errorf("the keystore has %q and %q", a, b)
	}
	again, err := s.Plan(t.Context(), "")
	if err != nil || !again.Nothing() {
		t.Errorf("a second plan is %+v, %v; want nothing to do", again, err)
	}
	if copies, _ := filepath.Glob(filepath.Join(s.Docker.Backups, "*")); len(copies) != 1 || strings.Contains(read(t, copies[0]), auth("alice", "pa:ss")) {
		t.Errorf("the copies are %v", copies)
	}

	r, err := s.Restore(t.Context())
	if err != nil || !r.Done || r.Store != "" || r.Gone != "desktop" || len(r.Helpers) != 0 || len(r.Logins) != 2 {
		t.Errorf("Restore, of helpers that are gone = %+v, %v", r, err)
	}
	if got := read(t, s.Docker.Path()); strings.Contains(got, "credsStore") || strings.Contains(got, "gone") {
		t.Errorf("the settings are %s", got)
	}
	if _, err := os.Lstat(p.Link.At); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link stays: %v", err)
	}
}

func TestRestore(t *testing.T) {
	for _, c := range []struct{ is, before, by, after string }{
		{"what was there comes back", `{"credsStore":"desktop","credHelpers":{"a":"keep","b":"dead"}}`, "", `{"credsStore":"desktop","credHelpers":{"a":"keep","b":"dead"}}`},
		{"where there was nothing there is nothing", `{"a":1}`, "", `{"a":1}`},
		{"the user's own choice since stays", `{"credsStore":"desktop"}`, `{"credsStore":"pass"}`, `{"credsStore":"pass"}`},
		{"nothing, chosen since, stays", `{"credsStore":"desktop"}`, `{}`, `{}`},
		{"a helper that the user chose since stays", `{"credHelpers":{"b":"dead"}}`, `{"credsStore":"cove","credHelpers":{"b":"keep"}}`, `{"credHelpers":{"b":"keep"}}`},
		{"single registries that Cove's helper was given go from it", `{"a":1,"credHelpers":{"r":"cove","b":"dead"}}`, "", `{"a":1,"credHelpers":{"b":"dead"}}`},
		{"without a file there is still none, or an empty one", "", "", "{}"},
	} {
		s := user(t, c.before)
		s.program(t, "cove", "cove")
		s.program(t, "keep", works)
		s.program(t, "desktop", works)
		p, err := s.Plan(t.Context(), "")
		if err == nil {
			err = s.Use(t.Context(), p)
		}
		if err != nil {
			t.Errorf("%s: Use: %v", c.is, err)
			continue
		}
		if c.by != "" {
			write(t, s.Docker.Path(), c.by, 0o600)
		}
		s.program(t, "dead", works) // it is installed again
		for range 2 {               // a second one does no harm
			if _, err := s.Restore(t.Context()); err != nil {
				t.Errorf("%s: Restore = %v", c.is, err)
			}
			if got := read(t, s.Docker.Path()); got != c.after {
				t.Errorf("%s: the settings are %s; want %s", c.is, got, c.after)
			}
		}
		if did, err := s.Begin(t.Context()); did.Did || err != nil {
			t.Errorf("%s: after Restore Begin = %v, %v", c.is, did, err)
		}
	}
}

func TestUseChangesNothingWhereItCannotEndWell(t *testing.T) {
	plain := `{"auths":{"r.example":{"auth":"` + auth("u", "s3cret-word") + `"}}}`
	for _, c := range []struct {
		is     string
		make   func(t *testing.T, s *Setup)
		config string
		want   string
	}{
		{"docker would not find the helper", func(t *testing.T, s *Setup) { t.Setenv("PATH", "/nowhere") }, plain, "is in no folder of PATH"},
		{"there is no helper", func(t *testing.T, s *Setup) { s.Beside = "/nowhere" }, plain, "neither beside cove nor in PATH"},
		{"the helper of another machine is in PATH", func(t *testing.T, s *Setup) { s.program(t, "cove", format) }, plain, "does not work as docker runs it"},
		{"something else stands in the link's place", func(t *testing.T, s *Setup) {
			write(t, filepath.Join(s.Home, ".local/bin/docker-credential-cove"), "mine", 0o600)
		}, plain, "and not Cove's"},
		{"the keystore takes nothing, and the helper repeats what it was given", func(t *testing.T, s *Setup) {
			s.Beside = t.TempDir()
			script := "#!/bin/sh\ncase $1 in status) echo '{\"keystores\":[{\"name\":\"x\",\"usable\":true}]}';; list) echo '{}';; store) /bin/cat; exit 1;; esac\n"
			write(t, filepath.Join(s.Beside, "docker-credential-cove"), script, 0o700)
		}, plain, "could not be put into the keystore"},
		{"the keystore loses what it takes", func(t *testing.T, s *Setup) {
			s.Beside = t.TempDir()
			script := "#!/bin/sh\ncase $1 in status) echo '{\"keystores\":[{\"name\":\"x\",\"usable\":true}]}';; list) echo '{}';; get) echo '{\"ServerURL\":\"r\",\"Username\":\"u\",\"Secret\":\"other\"}';; esac\n"
			write(t, filepath.Join(s.Beside, "docker-credential-cove"), script, 0o700)
		}, plain, "reads back as something else"},
		{"no keystore works", func(t *testing.T, s *Setup) {
			write(t, filepath.Join(s.Home, ".cove"), "", 0o600)
		}, plain, "no keystore of Cove's works here"},
		{"the settings are damaged", func(t *testing.T, s *Setup) {}, plain[:20], "line 1, column 20"},
		{"the store is a number", func(t *testing.T, s *Setup) {}, `{"credsStore":1}`, "must be a string"},
		{"the logins are a list", func(t *testing.T, s *Setup) {}, `{"auths":["x"]}`, "must be an object"},
		{"the helpers are a string", func(t *testing.T, s *Setup) {}, `{"credHelpers":"x"}`, "must be an object"},
		{"a helper is a number", func(t *testing.T, s *Setup) {}, `{"credHelpers":{"r":1}}`, "must be a string"},
	} {
		t.Run(c.is, func(t *testing.T) {
			s := user(t, c.config)
			c.make(t, &s)
			p, err := s.Plan(t.Context(), "")
			if err == nil {
				err = s.Use(t.Context(), p)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret-word") {
				t.Errorf("Use = %v; want an error with %q and no password", err, c.want)
			}
			if got := read(t, s.Docker.Path()); got != c.config {
				t.Errorf("the settings are %s", got)
			}
		})
	}
}

func TestWhichLoginWins(t *testing.T) {
	plain := `"auths":{"r.example":{"auth":"` + auth("u", "file") + `"}}`
	for _, c := range []struct{ is, config, keystore, held string }{
		{"docker used the file's, so it replaces an older one", `{` + plain + `}`, "old", "u:file"},
		{"docker used a store, so the file's is the older one", `{"credsStore":"cove",` + plain + `}`, "new", "u:new"},
		{"the same in both leaves the file", `{"credsStore":"cove",` + plain + `}`, "file", "u:file"},
	} {
		s := user(t, c.config)
		s.program(t, "cove", "cove")
		path := filepath.Join(built, "docker-credential-cove")
		cmd := exec.Command(path, "store")
		cmd.Stdin = strings.NewReader(`{"ServerURL":"r.example","Username":"u","Secret":"` + c.keystore + `"}`)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		p, err := s.Plan(t.Context(), "")
		if err == nil {
			err = s.Use(t.Context(), p)
		}
		if got := held(t, "r.example"); err != nil || got != c.held {
			t.Errorf("%s: Use = %v, and the keystore has %s; want %s", c.is, err, got, c.held)
		}
		if stays := strings.Contains(read(t, s.Docker.Path()), auth("u", "file")); stays != (c.keystore == "new") {
			t.Errorf("%s: the settings are %s", c.is, read(t, s.Docker.Path()))
		}
	}
}

// Docker Hub under two of its names: the login that docker uses stays, and the other is not lost.
func TestTwoLoginsAtOneServer(t *testing.T) {
	old := auth("old", "o")
	s := user(t, `{"auths":{"https://index.docker.io/v1/":{"auth":"`+auth("new", "n")+`"},"docker.io":{"auth":"`+old+`"}}}`)
	s.program(t, "cove", "cove")
	p, err := s.Plan(t.Context(), "")
	if err == nil {
		err = s.Use(t.Context(), p)
	}
	want := `{"auths":{"https://index.docker.io/v1/":{},"docker.io":{"auth":"` + old + `"}},"credsStore":"cove"}`
	if got := read(t, s.Docker.Path()); err != nil || got != want || held(t, "docker.io") != "new:n" {
		t.Errorf("Use = %v, the keystore has %s, and the settings are %s; want %s", err, held(t, "docker.io"), got, want)
	}
}

// docker login comes while the logins are moved.
func TestALoginMeanwhileStays(t *testing.T) {
	s := user(t, `{"auths":{"r.example":{"auth":"`+auth("u", "old")+`"}}}`)
	s.program(t, "cove", "cove")
	p, err := s.Plan(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	now := `{"auths":{"r.example":{"auth":"` + auth("u", "new") + `"}}}`
	write(t, s.Docker.Path(), now, 0o600)
	if err := s.Use(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s.Docker.Path()); !strings.Contains(got, auth("u", "new")) {
		t.Errorf("the settings are %s", got)
	}
}

func TestBeginAndEnd(t *testing.T) {
	const set = `{"credsStore":"cove"}`
	for _, c := range []struct {
		is, config string
		make       func(t *testing.T, s Setup)
		want       string // the settings after Begin
	}{
		{"no settings", "", nil, set},
		{"empty settings", "{}", nil, set},
		{"settings of other things", `{"psFormat":"x"}`, nil, `{"psFormat":"x","credsStore":"cove"}`},
		{"no logins, said as docker does", `{"auths":{}}`, nil, `{"auths":{},"credsStore":"cove"}`},
		{"a store", `{"credsStore":"pass"}`, nil, `{"credsStore":"pass"}`},
		{"a store that is gone is for the doctor", `{"credsStore":"desktop"}`, nil, `{"credsStore":"desktop"}`},
		{"a helper", `{"credHelpers":{"r":"ecr-login"}}`, nil, `{"credHelpers":{"r":"ecr-login"}}`},
		{"a login", `{"auths":{"r":{"auth":"dTpw"}}}`, nil, `{"auths":{"r":{"auth":"dTpw"}}}`},
		{"a login whose password was elsewhere", `{"auths":{"r":{}}}`, nil, `{"auths":{"r":{}}}`},
		{"damaged settings", `{"auths":`, nil, `{"auths":`},
		{"the system's own helper, which docker takes", "{}", func(t *testing.T, s Setup) { s.program(t, standard(), works) }, "{}"},
		{"our helper is not in PATH", "{}", func(t *testing.T, s Setup) { os.Remove(filepath.Join(s.Home, ".local/bin/docker-credential-cove")) }, "{}"},
		{"no keystore works", "{}", func(t *testing.T, s Setup) { write(t, filepath.Join(s.Home, ".cove"), "", 0o600) }, "{}"},
	} {
		s := user(t, c.config)
		s.program(t, "cove", "cove")
		if c.make != nil {
			c.make(t, s)
		}
		did, err := s.Begin(t.Context())
		got := read(t, s.Docker.Path())
		if got != c.want || did.Did != (c.want != c.config) {
			t.Errorf("%s: Begin = %+v, %v, and the settings are %s; want %s", c.is, did, err, got, c.want)
		}
		if err := s.End(t.Context()); err != nil {
			t.Errorf("%s: End = %v", c.is, err)
		}
		want := c.config
		if want == "" {
			want = "{}"
		}
		if got := read(t, s.Docker.Path()); got != want {
			t.Errorf("%s: after End the settings are %s", c.is, got)
		}
		if again, err := s.Begin(t.Context()); again.Did != did.Did || again.First {
			t.Errorf("%s: a second Begin = %+v, %v; want no second notice", c.is, again, err)
		}
	}
}

func TestEndKeepsWhatIsInUse(t *testing.T) {
	for _, c := range []struct {
		is   string
		then func(t *testing.T, s Setup)
		want string
	}{
		{"somebody logged in", func(t *testing.T, s Setup) {
			write(t, s.Docker.Path(), `{"credsStore":"cove","auths":{"r":{}}}`, 0o600)
		}, `{"credsStore":"cove","auths":{"r":{}}}`},
		{"somebody logged in by other means", func(t *testing.T, s Setup) {
			cmd := exec.Command(filepath.Join(built, "docker-credential-cove"), "store")
			cmd.Stdin = strings.NewReader(`{"ServerURL":"r","Username":"u","Secret":"s"}`)
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
		}, `{"credsStore":"cove"}`},
		{"the user wants it", func(t *testing.T, s Setup) {
			p, err := s.Plan(t.Context(), "")
			if err == nil {
				err = s.Use(t.Context(), p)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, `{"credsStore":"cove"}`},
		{"the user chose another one", func(t *testing.T, s Setup) { write(t, s.Docker.Path(), `{"credsStore":"pass"}`, 0o600) }, `{"credsStore":"pass"}`},
		{"the user took it out, and it does not come back", func(t *testing.T, s Setup) { write(t, s.Docker.Path(), `{}`, 0o600) }, `{}`},
	} {
		s := user(t, "{}")
		s.program(t, "cove", "cove")
		if did, err := s.Begin(t.Context()); !did.Did || !did.First || err != nil {
			t.Fatalf("Begin = %+v, %v", did, err)
		}
		c.then(t, s)
		for range 2 {
			if err := s.End(t.Context()); err != nil {
				t.Errorf("%s: End = %v", c.is, err)
			}
			if _, err := s.Begin(t.Context()); err != nil {
				t.Errorf("%s: Begin = %v", c.is, err)
			}
			if got := read(t, s.Docker.Path()); got != c.want {
				t.Errorf("%s: the settings are %s; want %s", c.is, got, c.want)
			}
		}
	}
}

func TestDoctor(t *testing.T) {
	secret := auth("u", "pw")
	for _, c := range []struct {
		is, config string
		helpers    map[string]string
		mode       os.FileMode
		found      string // causes, those that can be mended with a +
		after      string // the settings after Mend
	}{
		{"no settings", "", nil, 0, "", "none"},
		{"sound ones", `{"credsStore":"pass","credHelpers":{"a":"ecr-login"}}`, map[string]string{"pass": works, "ecr-login": onlyGets}, 0, "", `{"credsStore":"pass","credHelpers":{"a":"ecr-login"}}`},
		{"a store that another product left", `{"credsStore":"desktop"}`, nil, 0, "store-dead+", `{"credsStore":"cove"}`},
		{"one of Windows, under WSL", `{"credsStore":"desktop.exe"}`, map[string]string{"desktop.exe": format}, 0, "store-dead+", `{"credsStore":"cove"}`},
		{"one whose interpreter is gone", `{"credsStore":"x"}`, map[string]string{"x": noShell}, 0, "store-dead+", `{"credsStore":"cove"}`},
		{"one that hangs", `{"credsStore":"x"}`, map[string]string{"x": hangs}, 0, "store-dead+", `{"credsStore":"cove"}`},
		{"one that says what it wants", `{"credsStore":"pass"}`, map[string]string{"pass": says}, 0, "store-fails", `{"credsStore":"pass"}`},
		{"one that is no helper", `{"credsStore":"x"}`, map[string]string{"x": garbage}, 0, "store-fails", `{"credsStore":"x"}`},
		{"an unknown one, with a path in it", `{"credsStore":"../x"}`, nil, 0, "store-dead+", `{"credsStore":"cove"}`},
		{"two stores", `{"credsStore":"pass","credsStore":"desktop"}`, map[string]string{"pass": works}, 0, "config-twice store-dead+", `{"credsStore":"pass","credsStore":"cove"}`},
		{"helpers of which some are gone", `{"credsStore":"pass","credHelpers":{"a.b:1":"gone","c":"pass","d":"gone"}}`, map[string]string{"pass": works}, 0, "helper-dead+", `{"credsStore":"pass","credHelpers":{"c":"pass"}}`},
		{"helpers that are all gone", `{"credHelpers":{"a":"gone"},"x":1}`, nil, 0, "helper-dead+", `{"x":1}`},
		{"a cloud's helper that is gone is not replaced", `{"credHelpers":{"a":"ecr-login","b":"gcloud","c":"acr-env"}}`, nil, 0, "cloud-helper-dead cloud-helper-dead cloud-helper-dead", `{"credHelpers":{"a":"ecr-login","b":"gcloud","c":"acr-env"}}`},
		{"a helper that is empty is plain text by choice", `{"credHelpers":{"a":""}}`, nil, 0, "", `{"credHelpers":{"a":""}}`},
		{"passwords in plain text", `{"auths":{"r":{"auth":"` + secret + `"}}}`, nil, 0, "plain+", `{"auths":{"r":{}},"credsStore":"cove"}`},
		{"passwords beside a store that works", `{"auths":{"r":{"auth":"` + secret + `"}},"credsStore":"other"}`, map[string]string{"other": "cove"}, 0, "plain+", `{"auths":{"r":{}},"credsStore":"other"}`},
		{"passwords that others can read", `{"auths":{"r":{"auth":"` + secret + `"}}}`, nil, 0o644, "config-open+ plain+", `{"auths":{"r":{}},"credsStore":"cove"}`},
		{"nothing that others should not read", `{"auths":{"r":{}}}`, nil, 0o644, "", `{"auths":{"r":{}}}`},
		{"a password that is not encoded", `{"auths":{"r":{"auth":"%%%"}}}`, nil, 0, "auth-wrong", `{"auths":{"r":{"auth":"%%%"}}}`},
		{"a password without a user", `{"auths":{"r":{"auth":"cHc="}}}`, nil, 0, "auth-wrong", `{"auths":{"r":{"auth":"cHc="}}}`},
		{"a login of the wrong kind", `{"auths":{"r":5}}`, nil, 0, "auth-wrong", `{"auths":{"r":5}}`},
		{"logins that are a list", `{"auths":[]}`, nil, 0, "config-type", `{"auths":[]}`},
		{"all of the wrong kind", `{"auths":1,"credsStore":2,"credHelpers":3}`, nil, 0, "config-type config-type config-type", `{"auths":1,"credsStore":2,"credHelpers":3}`},
		{"a byte order mark", "\xef\xbb\xbf{\"credsStore\":\"pass\"}", map[string]string{"pass": works}, 0, "config-mark+", `{"credsStore":"pass"}`},
		{"cut off", `{"auths":{"r":{"auth":"` + secret, nil, 0, "config-syntax", `{"auths":{"r":{"auth":"` + secret},
		{"empty", " ", nil, 0, "", " "},
	} {
		t.Run(c.is, func(t *testing.T) {
			s := user(t, c.config)
			s.program(t, "cove", "cove")
			for n, text := range c.helpers {
				if text == hangs {
					quick(t, 5*time.Second)
				}
				s.program(t, n, text)
			}
			if c.mode != 0 {
				os.Chmod(s.Docker.Path(), c.mode)
			}
			found := s.Examine(t.Context())
			if got := causes(found); got != c.found {
				t.Errorf("Examine = %q; want %q (%+v)", got, c.found, found)
			}
			for _, p := range found {
				if strings.Contains(fmt.Sprintf("%+v", p), secret) || p.Summary == "" || p.Remedy == "" {
					t.Errorf("it says %+v", p)
				}
			}
			s.Mend(t.Context(), found)
			if got := read(t, s.Docker.Path()); got != c.after {
				t.Errorf("after Mend the settings are %s; want %s", got, c.after)
			}
			var want []string
			for _, cause := range strings.Fields(c.found) {
				if !strings.HasSuffix(cause, "+") {
					want = append(want, cause)
				}
			}
			if left := causes(s.Examine(t.Context())); left != strings.Join(want, " ") {
				t.Errorf("after Mend there is %q; want %q", left, strings.Join(want, " "))
			}
		})
	}
}

func causes(found []Problem) string {
	var out []string
	for _, p := range found {
		c := p.Cause
		if p.Mend != "" {
			c += "+"
		}
		out = append(out, c)
	}
	return strings.Join(out, " ")
}

func TestTheLinkThatIsGoneIsMadeAgain(t *testing.T) {
	s := user(t, `{"credsStore":"cove"}`)
	os.Symlink("/nowhere/docker-credential-cove", filepath.Join(s.Home, ".local/bin/docker-credential-cove"))
	found := s.Examine(t.Context())
	if got := causes(found); got != "store-dead+" {
		t.Fatalf("Examine = %q", got)
	}
	s.Mend(t.Context(), found)
	if left := s.Examine(t.Context()); len(left) != 0 {
		t.Errorf("after Mend there is %+v", left)
	}
}

func TestAHelperWhoseChildLivesOnDoesNotKeepUs(t *testing.T) {
	quick(t, time.Second)
	s := user(t, "")
	s.program(t, "x", orphans)
	t.Cleanup(func() {
		if pid, err := strconv.Atoi(strings.TrimSpace(read(t, filepath.Join(s.Home, "child")))); err == nil {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	begun := time.Now()
	if h := check(t.Context(), "x"); h.State != Hangs {
		t.Errorf("check = %+v", h)
	}
	if took := time.Since(begun); took > 5*time.Minute {
		t.Errorf("it took %s", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if h := check(ctx, "x"); h.State == Works {
		t.Errorf("cancelled, check = %+v", h)
	}
}

func TestShim(t *testing.T) {
	s := user(t, `{"credsStore":"desktop"}`)
	l, err := s.InstallShim()
	if err != nil || l.At != filepath.Join(s.Home, ".local/bin/docker-credential-desktop") {
		t.Fatalf("InstallShim = %+v, %v", l, err)
	}
	if again, err := s.InstallShim(); err != nil || again.At != l.At {
		t.Errorf("a second InstallShim = %+v, %v", again, err)
	}
	if found := s.Examine(t.Context()); len(found) != 0 {
		t.Errorf("with the shim Examine = %+v", found)
	}
	if at, err := s.RemoveShim(); at != l.At || err != nil {
		t.Errorf("RemoveShim = %s, %v", at, err)
	}
	if at, err := s.RemoveShim(); at != "" || err != nil {
		t.Errorf("a second RemoveShim = %s, %v", at, err)
	}
	s.program(t, "desktop", works)
	if _, err := s.InstallShim(); err == nil || !strings.Contains(err.Error(), "not Cove's") {
		t.Errorf("InstallShim over another's = %v", err)
	}
	if at, err := s.RemoveShim(); at != "" || err != nil || !strings.Contains(read(t, l.At), "#!/bin/sh") {
		t.Errorf("RemoveShim of another's = %s, %v", at, err)
	}
}

func TestStatusShowsNoPassword(t *testing.T) {
	s := user(t, `{"auths":{"r.example":{"auth":"`+auth("alice", "s3cret-word")+`"}},"credsStore":"cove","credHelpers":{"e":"ecr-login","g":"gone"}}`)
	s.program(t, "cove", "cove")
	s.program(t, "ecr-login", onlyGets)
	cmd := exec.Command(filepath.Join(built, "docker-credential-cove"), "store")
	cmd.Stdin = strings.NewReader(`{"ServerURL":"https://index.docker.io/v1/","Username":"bob","Secret":"an0ther-word"}`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	st := s.Status(t.Context())
	b, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"s3cret-word", "an0ther-word", auth("alice", "s3cret-word")} {
		if strings.Contains(string(b), w) || strings.Contains(fmt.Sprintf("%+v", st), w) {
			t.Errorf("%s is in %s", w, b)
		}
	}
	var states []string
	for _, h := range st.Helpers {
		states = append(states, fmt.Sprintf("%s %s %v %v", h.Name, h.State, h.Registries, h.Logins))
	}
	want := []string{"cove works [] [{https://index.docker.io/v1/ bob}]", "ecr-login works [e] []", "gone missing [g] []"}
	if !slices.Equal(states, want) {
		t.Errorf("the helpers are %q; want %q", states, want)
	}
	if st.Effective != "cove" || len(st.Plain) != 1 || st.Plain[0].User != "alice" || len(st.Keystores.Keystores) < 3 || st.Keystores.Choice.Keystore != "file" {
		t.Errorf("Status = %s", b)
	}
}
