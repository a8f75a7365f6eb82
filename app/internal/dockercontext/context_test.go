package dockercontext

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/covedesk/cove/app/internal/dockerconfig"
)

const ours = "unix:///home/u/.cove/run/docker.sock"

// docker is a folder whose backups go nowhere; dockerconfig tests them.
func docker(dir string) dockerconfig.Docker { return dockerconfig.Docker{Dir: dir} }

func dead(context.Context, string) bool  { return false }
func alive(context.Context, string) bool { return true }

// folder is a docker folder with a config.json of the text given (none if empty), and contexts. The
// second one is where the memo goes.
func folder(t *testing.T, config string, contexts map[string]string) (dir, memo string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), ".docker")
	if config != "" {
		put(t, filepath.Join(dir, "config.json"), config)
	}
	for name, host := range contexts {
		if err := writeMeta(dir, name, host); err != nil {
			t.Fatal(err)
		}
	}
	return dir, filepath.Join(t.TempDir(), "context.json")
}

func put(t *testing.T, path, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// text is what a file holds; "none" if there is none.
func text(t *testing.T, path string) string {
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

func TestInstall(t *testing.T) {
	const old = "unix:///run/old.sock"
	for _, c := range []struct {
		says     string
		config   string
		contexts map[string]string
		probe    func(context.Context, string) bool
		want     State
		after    string
	}{
		{"without any settings it becomes current if the default is dead", "", nil, dead,
			State{Made: true, Current: true}, `{"currentContext":"cove"}`},
		{"without any settings it does not if the default answers", "", nil, alive,
			State{Made: true}, "none"},
		{"empty settings are none, as for the CLI", "\n", nil, dead,
			State{Made: true, Current: true}, `{"currentContext":"cove"}`},
		{"it takes over from a dead context", `{"currentContext": "old"}`, map[string]string{"old": old}, dead,
			State{Made: true, Current: true, Previous: "old"}, `{"currentContext": "cove"}`},
		{"it leaves one that answers", `{"currentContext": "old"}`, map[string]string{"old": old}, alive,
			State{Made: true, Previous: "old"}, `{"currentContext": "old"}`},
		{"it takes over from one that is gone", `{"currentContext": "old"}`, nil, alive,
			State{Made: true, Current: true, Previous: "old"}, `{"currentContext": "cove"}`},
		{"it leaves one over ssh, which the probe cannot ask", `{"currentContext": "old"}`, map[string]string{"old": "ssh://me@server"}, dead,
			State{Made: true, Previous: "old"}, `{"currentContext": "old"}`},
		{"when it is current already, nothing is asked", `{"currentContext": "cove"}`, map[string]string{"cove": ours}, nil,
			State{Made: true, Current: true}, `{"currentContext": "cove"}`},
		{"a context of ours at another place is brought up to date", `{"currentContext": "cove"}`, map[string]string{"cove": old}, dead,
			State{Made: true, Current: true}, `{"currentContext": "cove"}`},
		{"default, said, is the default", `{"currentContext": "default"}`, nil, func(_ context.Context, host string) bool {
			return host == "unix:///var/run/docker.sock" || host == "npipe:////./pipe/docker_engine"
		}, State{Made: true, Previous: "default"}, `{"currentContext": "default"}`},
	} {
		dir, memo := folder(t, c.config, c.contexts)
		got, err := Install(t.Context(), docker(dir), "cove", ours, memo, c.probe)
		if err != nil || got != c.want {
			t.Errorf("%s: Install = %+v, %v; want %+v", c.says, got, err, c.want)
		}
		if after := text(t, filepath.Join(dir, "config.json")); after != c.after {
			t.Errorf("%s: config.json is %s; want %s", c.says, after, c.after)
		}
		if host, err := hostOf(dir, "cove"); host != ours || err != nil {
			t.Errorf("%s: the context leads to %s, %v", c.says, host, err)
		}
	}
}

func TestTheContextIsAsTheCLIWritesIt(t *testing.T) {
	dir, memo := folder(t, "", nil)
	if _, err := Install(t.Context(), docker(dir), "cove", ours, memo, dead); err != nil {
		t.Fatal(err)
	}
	// sha256("cove")
	path := filepath.Join(dir, "contexts", "meta", "6a259d3299684d8a1f5693be49dde21e5e22195158487a86c3d73d07c36a5cfc", "meta.json")
	const want = `{"Name":"cove","Metadata":{"Description":"Cove"},"Endpoints":{"docker":{"Host":"` + ours + `","SkipTLSVerify":false}}}`
	if got := text(t, path); got != want {
		all, _ := filepath.Glob(filepath.Join(dir, "contexts", "meta", "*"))
		t.Errorf("%s is %s; want %s (there are %v)", path, got, want, all)
	}
	cli, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("no docker CLI to ask")
	}
	cmd := exec.Command(cli, "context", "ls", "--format", "{{.Name}} {{.DockerEndpoint}} {{.Description}} {{.Current}}")
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+dir, "DOCKER_HOST=", "DOCKER_CONTEXT=")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "cove "+ours+" Cove true\n") {
		t.Errorf("docker context ls = %s, %v", out, err)
	}
}

func TestInstallLeavesSomebodyElsesContextAlone(t *testing.T) {
	for says, c := range map[string]struct {
		host  string
		probe func(context.Context, string) bool
	}{
		"alive":    {"unix:///run/else.sock", alive},
		"over ssh": {"ssh://me@server", dead},
		"over tcp": {"tcp://server:2375", alive},
	} {
		dir, memo := folder(t, `{"currentContext":"cove"}`, map[string]string{"cove": c.host})
		if _, err := Install(t.Context(), docker(dir), "cove", ours, memo, c.probe); !errors.Is(err, ErrTaken) {
			t.Errorf("%s: Install = %v; want ErrTaken", says, err)
		}
		if host, _ := hostOf(dir, "cove"); host != c.host {
			t.Errorf("%s: it leads to %s now", says, host)
		}
		if err := Restore(docker(dir), "cove", ours, memo); err != nil {
			t.Errorf("%s: Restore = %v", says, err)
		}
		if host, _ := hostOf(dir, "cove"); host != c.host || text(t, filepath.Join(dir, "config.json")) != `{"currentContext":"cove"}` {
			t.Errorf("%s: after Restore it leads to %s", says, host)
		}
	}
}

func TestAContextWithCertificatesIsNotJudged(t *testing.T) {
	dir, memo := folder(t, `{"currentContext":"old"}`, map[string]string{"old": "tcp://server:2376"})
	put(t, filepath.Join(tlsPath(dir, "old"), "docker", "ca.pem"), "x")
	if got, err := Install(t.Context(), docker(dir), "cove", ours, memo, dead); err != nil || got.Current {
		t.Errorf("Install = %+v, %v; want it not current", got, err)
	}
}

// The user logs in, or chooses a context, while the probe waits for its two seconds.
func TestInstallKeepsWhatTheUserDoesDuringTheProbe(t *testing.T) {
	dir, memo := folder(t, `{"currentContext":"old"}`, map[string]string{"old": "unix:///run/old.sock"})
	config := filepath.Join(dir, "config.json")
	login := func(context.Context, string) bool {
		put(t, config, `{"auths":{"r":{"auth":"x"}},"currentContext":"old"}`)
		return false
	}
	if got, err := Install(t.Context(), docker(dir), "cove", ours, memo, login); err != nil || !got.Current {
		t.Errorf("Install = %+v, %v", got, err)
	}
	if got := text(t, config); got != `{"auths":{"r":{"auth":"x"}},"currentContext":"cove"}` {
		t.Errorf("after a login meanwhile config.json is %s", got)
	}

	dir, memo = folder(t, `{"currentContext":"old"}`, map[string]string{"old": "unix:///run/old.sock"})
	config = filepath.Join(dir, "config.json")
	choose := func(context.Context, string) bool {
		put(t, config, `{"currentContext":"new"}`)
		return false
	}
	if got, err := Install(t.Context(), docker(dir), "cove", ours, memo, choose); err != nil || got.Current || got.Previous != "new" {
		t.Errorf("Install = %+v, %v; want it not current", got, err)
	}
	if got := text(t, config); got != `{"currentContext":"new"}` {
		t.Errorf("after a choice meanwhile config.json is %s", got)
	}
}

func TestRestorePutsBackEveryByte(t *testing.T) {
	for says, config := range map[string]string{
		"the CLI's own form":        "{\n\t\"auths\": {\n\t\t\"https://index.docker.io/v1/\": {}\n\t},\n\t\"credsStore\": \"cove\",\n\t\"currentContext\": \"old\"\n}",
		"a key in the middle":       "{\n  \"auths\": {},\n  \"currentContext\": \"old\",\n  \"psFormat\": \"a\\u003cb {{.ID}}\\t{{.Names}}\"\n}\n",
		"no current context":        "{\n\t\"auths\": {},\n\t\"HttpHeaders\": {\"X\":  [1, 2.50, 1e3]}\n}\n",
		"odd spaces and line ends":  " {\"b\" :2 ,\r\n\"currentContext\" : \"old\"  }\r\n\r\n",
		"keys that are nearly ours": `{"currentContextual":"x","x":{"currentContext":"y"},"currentContext":"old","z":null}`,
	} {
		dir, memo := folder(t, config, map[string]string{"old": "unix:///run/old.sock"})
		path := filepath.Join(dir, "config.json")
		if got, err := Install(t.Context(), docker(dir), "cove", ours, memo, dead); err != nil || !got.Current {
			t.Errorf("%s: Install = %+v, %v", says, got, err)
		}
		if now, err := currentContext(docker(dir)); now != "cove" || err != nil || !json.Valid([]byte(text(t, path))) {
			t.Errorf("%s: the current context is %q, %v, of %s", says, now, err, text(t, path))
		}
		if err := Restore(docker(dir), "cove", ours, memo); err != nil {
			t.Errorf("%s: Restore = %v", says, err)
		}
		if got := text(t, path); got != config {
			t.Errorf("%s: config.json is\n%q and was\n%q", says, got, config)
		}
		if text(t, memo) != "none" || text(t, metaPath(dir, "cove")) != "none" {
			t.Errorf("%s: Restore leaves the memo or the context", says)
		}
		if _, err := hostOf(dir, "old"); err != nil {
			t.Errorf("%s: the user's own context is gone: %v", says, err)
		}
	}
}

func TestRestore(t *testing.T) {
	two := map[string]string{"cove": ours, "old": "unix:///run/old.sock", "new": "unix:///run/new.sock"}
	for _, c := range []struct {
		says          string
		config, memo  string
		contexts      map[string]string
		after, leaves string // where the context cove leads after
	}{
		{"what was current comes back", `{"currentContext":"cove"}`, `{"previous":"old"}`, two, `{"currentContext":"old"}`, ""},
		{"the user's own choice since stays", `{"currentContext":"new"}`, `{"previous":"old"}`, two, `{"currentContext":"new"}`, ""},
		{"the default, chosen since, stays", `{"a":1}`, `{"previous":"old"}`, two, `{"a":1}`, ""},
		{"one that was removed since gives way to the default", `{"a":1,"currentContext":"cove"}`, `{"previous":"gone"}`, two, `{"a":1}`, ""},
		{"without a memo it is the default", `{"a":1,"currentContext":"cove"}`, "", two, `{"a":1}`, ""},
		{"with a memo that is damaged too", `{"a":1,"currentContext":"cove"}`, `{"prev`, two, `{"a":1}`, ""},
		{"a context that leads elsewhere now stays", `{"currentContext":"cove"}`, `{"previous":"old"}`, map[string]string{"cove": "unix:///other"}, `{"currentContext":"cove"}`, "unix:///other"},
		{"our context removed by hand does not stay current", `{"currentContext":"cove"}`, `{"previous":"old"}`, map[string]string{"old": "unix:///run/old.sock"}, `{"currentContext":"old"}`, ""},
		{"where nothing was installed nothing is done", `{"currentContext":"cove"}`, "", nil, `{"currentContext":"cove"}`, ""},
	} {
		dir, memo := folder(t, c.config, c.contexts)
		if c.memo != "" {
			put(t, memo, c.memo)
		}
		for range 2 { // a second one does no harm
			if err := Restore(docker(dir), "cove", ours, memo); err != nil {
				t.Errorf("%s: Restore = %v", c.says, err)
			}
			if got := text(t, filepath.Join(dir, "config.json")); got != c.after {
				t.Errorf("%s: config.json is %s; want %s", c.says, got, c.after)
			}
		}
		if host, _ := hostOf(dir, "cove"); host != c.leaves {
			t.Errorf("%s: the context leads to %q; want %q", c.says, host, c.leaves)
		}
	}
}

func TestAfterACrashTheMemoIsKept(t *testing.T) {
	dir, memo := folder(t, `{"currentContext":"old"}`, map[string]string{"old": "unix:///run/old.sock"})
	for range 2 { // the first coved was killed
		if got, err := Install(t.Context(), docker(dir), "cove", ours, memo, dead); err != nil || !got.Current {
			t.Errorf("Install = %+v, %v", got, err)
		}
	}
	if err := Restore(docker(dir), "cove", ours, memo); err != nil || text(t, filepath.Join(dir, "config.json")) != `{"currentContext":"old"}` {
		t.Errorf("Restore = %v; config.json is %s", err, text(t, filepath.Join(dir, "config.json")))
	}
}

func TestSettingsThatAreNotJSONAreLeftAlone(t *testing.T) {
	for _, config := range []string{`{"auths": {`, `[]`, `"x"`, `null`} {
		dir, memo := folder(t, config, nil)
		got, err := Install(t.Context(), docker(dir), "cove", ours, memo, dead)
		if err == nil || !strings.Contains(err.Error(), "config.json") || !got.Made || got.Current {
			t.Errorf("Install with %q = %+v, %v; want the context made, and an error that names the file", config, got, err)
		}
		if err := Restore(docker(dir), "cove", ours, memo); err == nil {
			t.Errorf("Restore with %q gives no error", config)
		}
		if after := text(t, filepath.Join(dir, "config.json")); after != config || text(t, memo) != "none" {
			t.Errorf("config.json was %q and is %q", config, after)
		}
	}
}

func TestTheFileKeepsItsModeAndItsPlace(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes and links are different there")
	}
	mode := func(path string) os.FileMode {
		st, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Mode()
	}
	dir, memo := folder(t, "", nil)
	if _, err := Install(t.Context(), docker(dir), "cove", ours, memo, dead); err != nil {
		t.Fatal(err)
	}
	if got := mode(filepath.Join(dir, "config.json")); got != 0o600 {
		t.Errorf("a new config.json has mode %s", got)
	}

	for says, link := range map[string]string{"whole": "", "relative": "../dotfiles/docker.json"} {
		for _, there := range []bool{true, false} {
			dir, memo := folder(t, "", nil)
			os.MkdirAll(dir, 0o700)
			elsewhere := filepath.Join(filepath.Dir(dir), "dotfiles", "docker.json")
			os.Mkdir(filepath.Dir(elsewhere), 0o700)
			want := os.FileMode(0o600)
			if there {
				put(t, elsewhere, `{"a":1}`)
				want = 0o640
				os.Chmod(elsewhere, want)
			}
			if link == "" {
				link = elsewhere
			}
			path := filepath.Join(dir, "config.json")
			if err := os.Symlink(link, path); err != nil {
				t.Fatal(err)
			}
			if _, err := Install(t.Context(), docker(dir), "cove", ours, memo, dead); err != nil {
				t.Errorf("%s link, there %v: Install = %v", says, there, err)
			}
			if mode(path)&os.ModeSymlink == 0 || mode(elsewhere) != want || !strings.Contains(text(t, elsewhere), `"currentContext":"cove"`) {
				t.Errorf("%s link, there %v: the link is %s, its end %s with %s", says, there, mode(path), mode(elsewhere), text(t, elsewhere))
			}
			if link == elsewhere {
				link = ""
			}
		}
	}
}

// engine is a server on a unix socket until the test ends.
func engine(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("pipes there")
	}
	dir, err := os.MkdirTemp("", "e") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: answer}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return "unix://" + path
}

func TestProbe(t *testing.T) {
	answering := engine(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("API-Version", "1.51")
		w.Write([]byte("OK"))
	})
	hanging := engine(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for says, c := range map[string]struct {
		host string
		want bool
	}{
		"an engine that answers is alive":    {answering, true},
		"one that only accepts is dead":      {hanging, false},
		"one without a socket is dead":       {answering + ".none", false},
		"a host that makes no sense is dead": {"nonsense", false},
	} {
		begun := time.Now()
		if got := Probe(t.Context(), c.host); got != c.want {
			t.Errorf("%s: Probe(%s) = %v", says, c.host, got)
		}
		if took := time.Since(begun); took > probePatience+3*time.Second {
			t.Errorf("%s: Probe took %s", says, took)
		}
	}
	// The whole way, with the real prober.
	for host, current := range map[string]bool{answering: false, answering + ".none": true} {
		dir, memo := folder(t, `{"currentContext":"old"}`, map[string]string{"old": host})
		if got, err := Install(t.Context(), docker(dir), "cove", ours, memo, Probe); err != nil || got.Current != current {
			t.Errorf("Install beside %s = %+v, %v; want current %v", host, got, err, current)
		}
	}
}
