//go:build unix

package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/client"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/fakevm"
	"github.com/covedesk/cove/vmhost/guestimage"
)

const patience = 2 * time.Minute

// world is a whole coved on a driver whose machines are goroutines.
type world struct {
	*client.Client
	home   api.Home
	driver *fakevm.Driver
}

func newWorld(t *testing.T, driver *fakevm.Driver) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "cv") // short: sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("DOCKER_CONFIG", filepath.Join(dir, "docker"))
	t.Setenv(imageEnv, fakeImage(t))
	w := &world{home: api.Home(filepath.Join(dir, "h")), driver: driver}
	w.Client = client.New(w.home)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, w.home, func(api.Home, *slog.Logger) vmhost.Driver { return driver })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error("Run:", err)
		}
		if _, err := os.Stat(w.home.Docker()); err == nil {
			t.Error("docker.sock is still there after the end")
		}
	})
	w.eventually(t, "an answer of the local API", func() bool { _, err := w.Status(ctx); return err == nil })
	return w
}

// fakeImage is an image that verifies and that no machine looks into.
func fakeImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	info := guestimage.Info{Schema: guestimage.Schema, Arch: "amd64"}
	for _, name := range []string{guestimage.KernelFile, guestimage.InitrdFile, guestimage.RootFile} {
		sum := sha256.Sum256([]byte(name))
		info.Files = append(info.Files, guestimage.File{Name: name, Size: int64(len(name)), SHA256: hex.EncodeToString(sum[:])})
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	info.Digest = guestimage.DigestOf(info.Files)
	b, err := json.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, guestimage.ManifestFile), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (w *world) eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			s, _ := w.Status(context.Background())
			t.Fatalf("never came: %s; status %+v", what, s)
		}
	}
}

func (w *world) phase(t *testing.T, p api.Phase) api.Status {
	t.Helper()
	var s api.Status
	w.eventually(t, "phase "+string(p), func() bool {
		s, _ = w.Status(context.Background())
		return s.Phase == p
	})
	return s
}

func (w *world) dialDocker(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", w.home.Docker())
}

// ping asks the engine through docker.sock and gives status and body.
func (w *world) ping() (int, string) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: w.dialDocker}}
	resp, err := c.Get("http://engine/_ping")
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func TestALife(t *testing.T) {
	ready := make(chan struct{})
	w := newWorld(t, &fakevm.Driver{Pause: ready})
	ctx := context.Background()
	if code, text := w.ping(); code != http.StatusServiceUnavailable || !strings.Contains(text, "cove start") {
		t.Errorf("a call before the start = %d %s; want 503 and how to start", code, text)
	}
	started := make(chan error, 1)
	go func() { started <- w.Start(ctx) }()
	w.phase(t, api.Starting)
	type answer struct {
		code int
		text string
	}
	waited := make(chan answer, 1)
	go func() { code, text := w.ping(); waited <- answer{code, text} }()
	if _, err := w.ImportDisk(ctx, "/backup.qcow2"); err == nil || !strings.Contains(err.Error(), "cove stop") {
		t.Errorf("an import while it starts = %v; want that it must be stopped", err)
	}
	close(ready)
	if err := <-started; err != nil {
		t.Fatal("Start:", err)
	}
	if a := <-waited; a.code != http.StatusOK {
		t.Errorf("the call that waited got %d %s; want 200", a.code, a.text)
	}
	s := w.phase(t, api.Running)
	if s.Machine == nil || s.Machine.Accelerator != "fake" || s.Transport == nil || s.Transport.Link != "vsock" || s.Engine == nil || s.Disk == nil || s.Disk.Size == 0 {
		t.Errorf("status %+v; want machine, transport, engine and disk in it", s)
	}
	var steps []string
	for _, step := range s.Timeline {
		steps = append(steps, step.Where+" "+step.Name)
	}
	for _, want := range []string{"host guest image", "host data disk", "host start the VM", "host transport"} {
		if !strings.Contains(strings.Join(steps, "\n"), want) {
			t.Errorf("timeline %q; want %q in it", steps, want)
		}
	}
	if h := w.driver.Machine().Hello(); h == nil || h.Config.Hostname != "cove" || len(h.Secret) == 0 {
		t.Errorf("the guest's hello is %+v; want a name and a secret", h)
	}
	var console bytes.Buffer
	if err := w.Logs(ctx, &console, "console", 0, false); err != nil || !strings.Contains(console.String(), "fake guest") {
		t.Errorf("the console's log is %q, %v", console.String(), err)
	}
	if err := w.Stop(ctx); err != nil {
		t.Fatal("Stop:", err)
	}
	if code, text := w.ping(); code != http.StatusServiceUnavailable || !strings.Contains(text, "cove start") {
		t.Errorf("a call after the stop = %d %s; want 503 and how to start", code, text)
	}
}

func TestWhatGoesWrongInAStart(t *testing.T) {
	for _, row := range []struct {
		says   string
		driver *fakevm.Driver
		cause  string
		remedy string
	}{
		{"no hypervisor", &fakevm.Driver{Unfit: &vmhost.Problem{ID: vmhost.ProblemNoHypervisor, Summary: "None.", Remedy: "Install one."}}, vmhost.ProblemNoHypervisor, "Install one."},
		{"a hypervisor that refuses", &fakevm.Driver{Refusal: &vmhost.Problem{ID: vmhost.ProblemNoMemory, Summary: "No.", Remedy: "Close something."}}, vmhost.ProblemNoMemory, "Close something."},
		{"an alien disk", &fakevm.Driver{Fault: fakevm.Fault{Failed: &protocol.Failed{Cause: protocol.CauseDataDiskAlien, Detail: "it is somebody's", Fatal: true}}}, protocol.CauseDataDiskAlien, "data.raw"},
		{"an engine that refuses its settings", &fakevm.Driver{Fault: fakevm.Fault{Failed: &protocol.Failed{Cause: protocol.CauseEngineConfig, Detail: "bad key", Fatal: true}}}, protocol.CauseEngineConfig, "cove config unset engine"},
		{"a guest of another version", &fakevm.Driver{Fault: fakevm.Fault{Version: 99}}, protocol.CauseProtocol, "image"},
	} {
		t.Run(row.says, func(t *testing.T) {
			w := newWorld(t, row.driver)
			err := w.Start(context.Background())
			var e *api.Error
			if !errors.As(err, &e) || e.Cause != row.cause || !strings.Contains(e.Remedy, row.remedy) {
				t.Errorf("Start = %#v; want cause %s and %q in its remedy", err, row.cause, row.remedy)
			}
			if s := w.phase(t, api.Failed); s.Failure == nil || s.Failure.Cause != row.cause {
				t.Errorf("status %+v; want the failure in it", s)
			}
			if code, text := w.ping(); code != http.StatusServiceUnavailable || !json.Valid([]byte(text)) {
				t.Errorf("a call after it = %d %s; want 503 in the engine's form", code, text)
			}
		})
	}
}

func TestTheSecondLinkIsTakenWhereTheFirstIsDeaf(t *testing.T) {
	w := newWorld(t, &fakevm.Driver{Fault: fakevm.Fault{NoVsock: true}})
	if err := w.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s := w.phase(t, api.Running); s.Transport == nil || s.Transport.Link != "mux" {
		t.Errorf("transport %+v; want mux", s.Transport)
	}
	if code, text := w.ping(); code != http.StatusOK {
		t.Errorf("ping = %d %s", code, text)
	}
}

func TestAMachineThatEndsIsStartedAgain(t *testing.T) {
	w := newWorld(t, &fakevm.Driver{})
	if err := w.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	first := w.driver.Machine()
	first.End(vmhost.Exit{Reason: vmhost.ExitPanicked, Detail: "the guest's kernel panicked"})
	w.eventually(t, "another machine that serves", func() bool {
		code, _ := w.ping()
		return w.driver.Machine() != first && code == http.StatusOK
	})
	s := w.phase(t, api.Running)
	if len(s.Notices) != 1 || !strings.Contains(s.Notices[0].Text, "panicked") {
		t.Errorf("notices %v; want the panic", s.Notices)
	}
}

func TestAFullDiskAndAServiceThatFails(t *testing.T) {
	w := newWorld(t, &fakevm.Driver{})
	if err := w.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.driver.Machine().Happen(vmhost.EventDiskFull)
	w.driver.Machine().Tell(protocol.Message{Service: &protocol.Service{Name: "dockerd", State: "backoff", Restarts: 1, Detail: "ended by signal 9"}})
	w.eventually(t, "both notices", func() bool {
		s, _ := w.Status(context.Background())
		text := fmt.Sprint(s.Notices)
		return strings.Contains(text, "VM is paused") && strings.Contains(text, "dockerd ended")
	})
}

func TestASecondDaemonNamesTheFirst(t *testing.T) {
	w := newWorld(t, &fakevm.Driver{})
	err := Run(context.Background(), w.home, func(api.Home, *slog.Logger) vmhost.Driver { return &fakevm.Driver{} })
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("a second Run = %v; want the first one's process", err)
	}
	if _, err := w.Status(context.Background()); err != nil {
		t.Error("after it the first does not answer:", err)
	}
}

func TestABadSettingStopsTheStartAndIsMended(t *testing.T) {
	w := newWorld(t, &fakevm.Driver{})
	ctx := context.Background()
	if err := os.WriteFile(w.home.Dir("settings.json"), []byte(`{"cpus": 9999}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var e *api.Error
	if err := w.Start(ctx); !errors.As(err, &e) || e.Cause != api.CauseSettings || !strings.Contains(e.Summary, "cpus") {
		t.Errorf("Start = %v; want the setting named", err)
	}
	if _, err := w.Set(ctx, "cpus", "1", false); err != nil {
		t.Fatal("Set:", err)
	}
	if err := w.Start(ctx); err != nil {
		t.Error("Start after mending:", err)
	}
	if got := w.driver.Machine().Spec().CPUs; got != 1 {
		t.Errorf("the machine has %d CPUs; want 1", got)
	}
}
