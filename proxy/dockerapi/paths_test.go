package dockerapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/covedesk/cove/proxy"
	"github.com/moby/moby/api/types/container"
)

func TestGuestPaths(t *testing.T) {
	for _, row := range []struct {
		name string
		want bool
	}{
		{"/var/run/docker.sock", true},
		{"//var/run/docker.sock", true}, // as Git's shell on Windows must write it
		{"/run/docker.sock", true},
		{"/var/run/docker.sock/", true},
		{"/var/lib/docker/volumes", true},
		{"/lib/modules", true},
		{"/sys/fs/cgroup", true},
		{"/proc", true},
		{"/dev/net/tun", true},
		{"/etc/localtime", true},
		{"/var/run/docker.sock.evil", false},
		{"/var/run/docker.sock/../../etc", false},
		{"/sys/..", false},
		{"/dev/../etc/shadow", false},
		{"/var/run", false},
		{"/var/lib", false},
		{"/device", false},
		{"/", false},
		{"", false},
		{".", false},
		{"var/run/docker.sock", false},
		{`C:\Users\me`, false},
		{`C:/dev`, false},
		{`\\.\pipe\docker_engine`, false},
	} {
		if got := GuestPaths.Guest(row.name); got != row.want {
			t.Errorf("Guest(%q) = %t; want %t", row.name, got, row.want)
		}
	}
}

// shared are the folders of the host that the tests' guest has; one that is named "missing" does not exist.
type shared []string

func (s shared) Mount(name string) error {
	for _, folder := range s {
		if strings.HasPrefix(path.Clean(name)+"/", folder+"/") {
			if path.Base(name) == "missing" {
				return fmt.Errorf("the host's %s does not exist", name)
			}
			return nil
		}
	}
	return fmt.Errorf("the host's %s is not shared", name)
}

// containers, volumes and services describe each kind of body with one mount in it.
func binds(b ...string) string {
	j, _ := json.Marshal(map[string]any{"Image": "a", "HostConfig": map[string]any{"Binds": b}})
	return string(j)
}

func mounts(m string) string  { return `{"Image":"a","HostConfig":{"Mounts":[` + m + `]}}` }
func service(m string) string { return `{"TaskTemplate":{"ContainerSpec":{"Mounts":[` + m + `]}}}` }

func TestPathChecks(t *testing.T) {
	const create, volume, serve, update = "/v1.47/containers/create?name=x", "/v1.47/volumes/create", "/v1.47/services/create", "/v1.47/services/s/update?version=3"
	volumeOf := func(options string) string { return `{"Name":"v","DriverOpts":{` + options + `}}` }
	inline := func(driver, options string) string {
		return `{"Type":"volume","Target":"/x","VolumeOptions":{"DriverConfig":{"Name":"` + driver + `","Options":{` + options + `}}}}`
	}
	const bound = `"type":"none","o":"bind","device":"/home/me"`
	for _, row := range []struct {
		says, uri, body string
		refuses         string // the path that is refused; empty: the call passes
	}{
		{"a container without mounts passes", create, `{"Image":"a"}`, ""},
		{"a container with no body passes", create, ``, ""},
		{"a body that is no JSON is the engine's to refuse", create, `{"HostConfig":{"Binds":["/home/me:/x"]}`, ""},
		{"a body of another shape is the engine's to refuse", create, `{"HostConfig":{"Binds":"/home/me:/x"}}`, ""},
		{"a bind of a host folder is refused", create, binds("/home/me:/x"), "/home/me"},
		{"a bind with options is refused", create, binds("/home/me:/x:ro,z"), "/home/me"},
		{"a bind of the root is refused", create, binds("/:/host:ro"), "/"},
		{"the second bind is looked at too", create, binds("v:/x", "/home/me:/y"), "/home/me"},
		{"the engine's socket passes", create, binds("/var/run/docker.sock:/var/run/docker.sock"), ""},
		{"what only begins like the engine's socket is refused", create, binds("/var/run/docker.sock.evil:/x"), "/var/run/docker.sock.evil"},
		{"a way out of the engine's socket is refused", create, binds("/var/run/docker.sock/../../etc:/x"), "/var/run/docker.sock/../../etc"},
		{"a named volume passes", create, binds("data:/x"), ""},
		{"a named volume with options passes", create, binds("data:/x:ro"), ""},
		{"a volume with a name of one letter is the engine's to refuse", create, binds("v:/x", "w:/y:ro"), ""},
		{"an anonymous volume passes", create, binds("/x"), ""},
		{"a folder of Windows is refused by its name", create, binds(`C:\Users\me:/x`), `C:\Users\me`},
		{"a folder of Windows with slashes is refused by its name", create, binds(`c:/Users/me:/x:ro`), `c:/Users/me`},
		{"a folder as Git's shell writes it is refused by its name", create, binds(`//c/Users/me:/x`), `//c/Users/me`},
		{"a share of Windows is refused by its name", create, binds(`\\server\share:/x`), `\\server\share`},
		{"keys in another case are read as the engine reads them", create, `{"hostconfig":{"BINDS":["/home/me:/x"]}}`, "/home/me"},
		{"what follows the JSON hides no mount", create, binds("/home/me:/x") + "}", "/home/me"},
		{"a bind mount of a host folder is refused", create, mounts(`{"Type":"bind","Source":"/home/me","Target":"/x"}`), "/home/me"},
		{"a bind mount of a folder of Windows is refused", create, mounts(`{"Type":"bind","Source":"C:\\Users\\me","Target":"/x"}`), `C:\Users\me`},
		{"a bind mount of a relative folder is refused", create, mounts(`{"Type":"bind","Source":"src","Target":"/x"}`), "src"},
		{"a bind mount of nothing is the engine's to refuse", create, mounts(`{"Type":"bind","Target":"/x"}`), ""},
		{"a bind mount of the guest's modules passes", create, mounts(`{"Type":"bind","Source":"/lib/modules","Target":"/lib/modules"}`), ""},
		{"a volume mount passes", create, mounts(`{"Type":"volume","Source":"data","Target":"/x"}`), ""},
		{"a tmpfs passes", create, mounts(`{"Type":"tmpfs","Target":"/x"}`), ""},
		{"an inline volume that is a bind is refused", create, mounts(inline("local", bound)), "/home/me"},
		{"an inline volume of no driver that is a bind is refused", create, mounts(inline("", bound)), "/home/me"},
		{"an inline volume of another driver passes", create, mounts(inline("rclone", bound)), ""},
		{"a volume passes", volume, `{"Name":"v"}`, ""},
		{"a volume that is a bind is refused", volume, volumeOf(bound), "/home/me"},
		{"a volume that is a bind among options is refused", volume, volumeOf(`"type":"none","o":"ro,rbind","device":"/home/me"`), "/home/me"},
		{"a volume that is a bind of the guest's passes", volume, volumeOf(`"o":"bind","device":"/var/lib/docker/x"`), ""},
		{"a volume on NFS passes", volume, volumeOf(`"type":"nfs","o":"addr=10.0.0.1,rw","device":":/export"`), ""},
		{"a volume in memory passes", volume, volumeOf(`"type":"tmpfs","o":"size=1m","device":"tmpfs"`), ""},
		{"a volume of another driver passes", volume, `{"Driver":"rclone","DriverOpts":{` + bound + `}}`, ""},
		{"a service that binds a host folder is refused", serve, service(`{"Type":"bind","Source":"/home/me","Target":"/x"}`), "/home/me"},
		{"a service is refused a host folder in an update", update, service(`{"Type":"bind","Source":"/home/me","Target":"/x"}`), "/home/me"},
		{"a service that binds the engine's socket passes", serve, service(`{"Type":"bind","Source":"/var/run/docker.sock","Target":"/x"}`), ""},
		{"a service with an inline bind is refused", serve, service(inline("local", bound)), "/home/me"},
		{"a service without a container passes", serve, `{"TaskTemplate":{}}`, ""},
		{"a bind of a shared folder passes", create, binds("/srv/shared:/x"), ""},
		{"a bind below a shared folder passes", create, binds("/srv/shared/a/b:/x:ro"), ""},
		{"a bind of what only begins like a shared folder is refused", create, binds("/srv/shared2:/x"), "/srv/shared2"},
		{"a bind of what is above a shared folder is refused", create, binds("/srv:/x"), "/srv"},
		{"a way out of a shared folder is refused", create, binds("/srv/shared/../home:/x"), "/srv/shared/../home"},
		{"a bind of what does not exist is refused", create, binds("/srv/shared/missing:/x"), "/srv/shared/missing"},
		{"a bind mount of a shared folder passes", create, mounts(`{"Type":"bind","Source":"/srv/shared/a","Target":"/x"}`), ""},
		{"a bind mount of what does not exist is refused", create, mounts(`{"Type":"bind","Source":"/srv/shared/missing","Target":"/x"}`), "/srv/shared/missing"},
		{"a bind mount that asks for its source to be made is refused", create, mounts(`{"Type":"bind","Source":"/srv/shared/missing","Target":"/x","BindOptions":{"CreateMountpoint":true}}`), "/srv/shared/missing"},
		{"an inline volume that binds a shared folder passes", create, mounts(inline("local", `"type":"none","o":"bind","device":"/srv/shared/a"`)), ""},
		{"a volume that is a shared folder passes", volume, volumeOf(`"type":"none","o":"bind","device":"/srv/shared/a"`), ""},
		{"a volume that is what does not exist is refused", volume, volumeOf(`"type":"none","o":"bind","device":"/srv/shared/missing"`), "/srv/shared/missing"},
		{"a service that binds a shared folder passes", serve, service(`{"Type":"bind","Source":"/srv/shared/a","Target":"/x"}`), ""},
		{"a service that binds what does not exist is refused", serve, service(`{"Type":"bind","Source":"/srv/shared/missing","Target":"/x"}`), "/srv/shared/missing"},
		{"a service is refused what does not exist in an update", update, service(`{"Type":"bind","Source":"/srv/shared/missing","Target":"/x"}`), "/srv/shared/missing"},
		{"other calls are not looked at", "/v1.47/containers/c/start", binds("/home/me:/x"), ""},
	} {
		t.Run(row.says, func(t *testing.T) {
			asked := false
			f := New(waker(func(context.Context, bool) (proxy.Dialer, error) {
				asked = true
				return nil, errors.New("asked")
			}), GuestPaths, shared{"/srv/shared"}, slog.New(slog.DiscardHandler))
			w := httptest.NewRecorder()
			f.ServeHTTP(w, httptest.NewRequest(http.MethodPost, row.uri, strings.NewReader(row.body)))
			var m struct{ Message string }
			json.Unmarshal(w.Body.Bytes(), &m)
			if row.refuses == "" {
				if !asked {
					t.Errorf("POST %s %s = %d %q; want it to pass", row.uri, row.body, w.Code, m.Message)
				}
				return
			}
			want := fmt.Sprintf("the host's %s is not shared", row.refuses)
			if strings.HasSuffix(row.refuses, "/missing") {
				want = fmt.Sprintf("the host's %s does not exist", row.refuses)
			}
			if asked || w.Code != http.StatusBadRequest || !strings.Contains(m.Message, want) {
				t.Errorf("POST %s %s = %d %q; want 400 with %q", row.uri, row.body, w.Code, m.Message, want)
			}
		})
	}
}

func FuzzMounted(f *testing.F) {
	f.Add("/home/me:/x:ro", []byte(`{"HostConfig":{"Binds":["/a:/b"]}}`))
	f.Add(`C:\a:/b`, []byte(`{"Driver":"local","DriverOpts":{"o":"bind","device":"/a"}}`))
	f.Add("v:/x", []byte(service(`{"Type":"bind","Source":"/a"}`)))
	f.Add("", []byte(`null`))
	f.Fuzz(func(t *testing.T, bind string, body []byte) {
		for in := NoMounts; in <= ServiceMounts; in++ {
			if slices.Contains(mounted(in, body), "") {
				t.Errorf("mounted(%d, %q) names nothing", in, body)
			}
		}
		described, err := json.Marshal(container.CreateRequest{Config: &container.Config{}, HostConfig: &container.HostConfig{Binds: []string{bind}}})
		if err != nil {
			t.Fatal(err)
		}
		// What is written is read again with U+FFFD for what is no UTF-8.
		source, _, found := strings.Cut(strings.ToValidUTF8(bind, "\uFFFD"), ":")
		if found && strings.HasPrefix(source, "/") && strings.ToValidUTF8(bind, "") == bind && !slices.Contains(mounted(ContainerMounts, described), source) {
			t.Errorf("mounted(%s) does not name %q", described, source)
		}
	})
}
