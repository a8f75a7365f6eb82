// Package daemon is coved: it owns the VM, the sockets and the settings, and is the only place that
// knows every part. docker.sock is served from its first moment to its last, whatever the VM does.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/internal/build"
	"github.com/covedesk/cove/app/internal/dockerconfig"
	"github.com/covedesk/cove/app/internal/dockercontext"
	"github.com/covedesk/cove/app/internal/hostproxy"
	"github.com/covedesk/cove/app/internal/lifecycle"
	"github.com/covedesk/cove/app/internal/localapi"
	"github.com/covedesk/cove/app/internal/settings"
	"github.com/covedesk/cove/app/internal/shares"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/dockerapi"
	"github.com/covedesk/cove/proxy/ports"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/disk"
)

// profile is the one machine there is.
const profile = "default"

// contextName is the docker context that leads here.
const contextName = "cove"

// enginePatience bounds how long a call to docker.sock waits for an engine that starts. A first boot on
// a slow machine, with a disk check, takes minutes.
const enginePatience = 10 * time.Minute

// Daemon is the running coved.
type Daemon struct {
	home      api.Home
	log       *slog.Logger
	driver    vmhost.Driver
	life      *lifecycle.Life
	quit      context.CancelFunc
	front     *dockerapi.Front
	uses      ownUses
	sleepless sync.Once        // says that the settings of sleep have no effect
	knocks    chan struct{}    // of clients of published ports while the engine sleeps
	ports     *ports.Publisher // on the host, whatever becomes of the VM that they lead to

	console io.WriteCloser // of each VM

	settingsLock sync.Mutex // one reader or writer of the file at a time

	mu      sync.Mutex
	start   *start      // the last one
	shared  *shares.Set // what the VM that runs has of the host; nil without one
	context string      // the docker context, if it was made
	still   *vm         // that was not saved and stands still while the engine sleeps; nil without one
}

var (
	_ localapi.Core   = (*Daemon)(nil)
	_ dockerapi.Waker = (*Daemon)(nil)
	_ lifecycle.VM    = (*vm)(nil)
	_ proxy.Dialer    = (*vm)(nil)
	_ localapi.Joiner = (*joiner)(nil)
	_ vmhost.Driver   = vmhost.Driver(nil)
	_ dockerapi.Paths = dockerapi.GuestPaths
	_ lifecycle.Boot  = (*Daemon)(nil).boot
)

// Run serves until the context ends or somebody asks it to quit, and stops the VM in order before it
// returns. Only one runs in a home: the other's pid is in the error.
func Run(ctx context.Context, home api.Home, newDriver func(home api.Home, log *slog.Logger) vmhost.Driver) error {
	for _, dir := range []string{"", "run", "log", "vm", filepath.Join("vm", profile), "images"} {
		if err := os.MkdirAll(home.Dir(dir), 0o700); err != nil {
			return fmt.Errorf("make Cove's folder: %w", err)
		}
	}
	// It may have been made by a person, or copied.
	for _, dir := range []string{"", "run"} {
		if err := os.Chmod(home.Dir(dir), 0o700); err != nil {
			return fmt.Errorf("make Cove's folder: %w", err)
		}
	}
	unlock, err := lock(home.Dir("run", "coved.lock"))
	if err != nil {
		return err
	}
	defer unlock()

	out := logFile(home.Dir("log", "coved.log"))
	defer out.Close()
	log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: logLevel()}))
	log.Info("coved starts", "version", build.Version, "pid", os.Getpid(), "os", runtime.GOOS, "home", string(home))

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &Daemon{home: home, log: log, driver: newDriver(home, log), quit: cancel, knocks: make(chan struct{}, 1),
		console: logFile(home.Dir("vm", profile, "console.log"))}
	d.front = dockerapi.New(d, dockerapi.GuestPaths, mountable{d}, log)
	d.ports = ports.New(ports.Options{Log: log, Wake: d.wakeFor})
	defer d.ports.Close()
	was, err := readRest(d.saved())
	d.life = lifecycle.New(d.boot, time.Now, err == nil)
	if err == nil {
		d.holdPorts(was.Ports)
		d.loadAnswers()
	}
	err = d.serve(ctx)
	log.Info("coved ends", "err", err)
	return err
}

// serve listens, then serves until the context ends. The VM is stopped while docker.sock still answers.
func (d *Daemon) serve(ctx context.Context) error {
	docker, err := listen(d.home.Docker())
	if err != nil {
		return err
	}
	defer docker.Close()
	local, err := listen(d.home.API())
	if err != nil {
		return err
	}
	defer local.Close()

	serving, end := context.WithCancelCause(context.Background())
	defer end(nil)
	var wg sync.WaitGroup
	wg.Go(func() { end(d.front.Serve(serving, docker)) })
	wg.Go(func() { end(localapi.Serve(serving, local, d)) })
	wg.Go(func() { d.makeContext(serving) })
	wg.Go(func() { d.keepLogins(serving) })
	wg.Go(func() { giveBack(serving) })
	wg.Go(func() { d.hearKnocks(serving) })
	wg.Go(func() { d.sleepWhenIdle(serving) })
	select {
	case <-ctx.Done():
	case <-serving.Done():
		d.log.Error("a socket failed", "err", context.Cause(serving))
	}
	d.leave(context.Background(), "coved ends")
	d.life.Wait()
	d.containerProxies(hostproxy.Proxies{}, false)
	d.restoreContext()
	cause := context.Cause(serving)
	end(nil)
	wg.Wait()
	d.leaveLogins()
	if errors.Is(cause, context.Canceled) {
		cause = nil
	}
	return cause
}

// listen makes a socket of the user's own. What stands in the way is an older coved's: its lock is ours.
func listen(path string) (net.Listener, error) {
	l, err := listenLocal(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// docker is the docker CLI's folder, with our copies of what we replaced in it.
func (d *Daemon) docker() (dockerconfig.Docker, error) {
	return dockerconfig.Find(d.home.Dir("docker-config"))
}

// makeContext makes the docker context, which becomes current if the current one does not answer.
func (d *Daemon) makeContext(ctx context.Context) {
	docker, err := d.docker()
	if err != nil {
		d.log.Warn("docker context", "err", err)
		return
	}
	state, err := dockercontext.Install(ctx, docker, contextName, d.home.DockerHost(), d.home.Dir("context.json"), dockercontext.Probe)
	if err != nil {
		d.log.Warn("docker context", "err", err)
		d.life.Notice("The docker context " + contextName + " was not made: " + err.Error() + ".")
		return
	}
	d.log.Info("docker context", "state", state)
	d.mu.Lock()
	d.context = contextName
	d.mu.Unlock()
}

func (d *Daemon) restoreContext() {
	docker, err := d.docker()
	if err == nil {
		err = dockercontext.Restore(docker, contextName, d.home.DockerHost(), d.home.Dir("context.json"))
	}
	if err != nil {
		d.log.Warn("restore the docker context", "err", err)
	}
}

// Status is how it is: see localapi.Core.
func (d *Daemon) Status() (api.Status, <-chan struct{}) {
	state, changed := d.life.State()
	s := api.Status{
		Phase: state.Phase, Since: state.Since, Reason: state.Reason, Stage: state.Stage, Failure: state.Failure, Notices: state.Notices,
		Sockets: api.Sockets{Docker: d.home.Docker(), API: d.home.API()},
		Daemon:  api.Daemon{Version: build.Version, PID: os.Getpid(), Home: string(d.home)},
	}
	d.mu.Lock()
	st := d.start
	s.Context = d.context
	d.mu.Unlock()
	if st != nil {
		st.fill(&s)
	}
	d.fillSaved(&s)
	if s.Disk != nil {
		if u, err := disk.UsageOf(s.Disk.Path); err == nil {
			s.Disk.Size, s.Disk.Allocated = u.Size, u.Allocated
		}
	}
	return s, changed
}

// Start, Stop and Quit are for the local API.
func (d *Daemon) Start(ctx context.Context) error {
	return d.life.Start(ctx, "asked for by cove start")
}
func (d *Daemon) Stop(ctx context.Context) error { return d.life.Stop(ctx, "asked for by cove stop") }

// Quit stops the VM, then ends the daemon. One that was saved stays so.
func (d *Daemon) Quit(ctx context.Context) error {
	if err := d.leave(ctx, "coved quits"); err != nil {
		return err
	}
	d.quit()
	return nil
}

// store opens the settings as they are now: people edit the file. With an error for a value in it comes
// a store that can mend it.
func (d *Daemon) store() (*settings.Store, error) {
	memory, err := settings.HostMemory()
	if err != nil {
		return nil, err
	}
	s, err := settings.Open(d.home.Dir("settings.json"), settings.Host{CPUs: runtime.NumCPU(), Memory: memory, Home: userHome(), Temp: os.TempDir()})
	if err != nil {
		return s, settingsFailure(err)
	}
	if aside := s.Aside(); aside != "" {
		d.life.Notice("settings.json was not JSON. It was kept as " + aside + ", and the defaults are used.")
	}
	return s, nil
}

func settingsFailure(err error) error {
	var v *settings.ValueError
	f := api.Failure{Cause: api.CauseInternal, Summary: "The settings cannot be used: " + err.Error() + "."}
	switch {
	case errors.As(err, &v) && errors.Is(err, settings.ErrUnknownKey):
		f = api.Failure{Cause: api.CauseSettings, Summary: v.Error(), Remedy: "Drop it with `cove config unset " + v.Key + "`."}
	case errors.As(err, &v):
		f = api.Failure{Cause: api.CauseSettings, Summary: v.Error(), Remedy: "Change it with `cove config set " + v.Key + " VALUE`, or drop it with `cove config unset " + v.Key + "`."}
	case errors.Is(err, settings.ErrUnknownKey):
		f = api.Failure{Cause: api.CauseInvalid, Summary: err.Error(), Remedy: "See `cove config list`."}
	}
	return &api.Error{Failure: f}
}

// Settings, Setting, Set and Unset are for the local API.
func (d *Daemon) Settings() ([]api.Setting, error) {
	d.settingsLock.Lock()
	defer d.settingsLock.Unlock()
	s, err := d.store()
	if err != nil {
		return nil, err
	}
	return s.List(), nil
}

// Setting is one of them.
func (d *Daemon) Setting(key string) (api.Setting, error) {
	d.settingsLock.Lock()
	defer d.settingsLock.Unlock()
	s, err := d.store()
	if err != nil {
		return api.Setting{}, err
	}
	v, err := s.Get(key)
	if err != nil {
		return v, settingsFailure(err)
	}
	return v, nil
}

// Set changes one, or in a dry run says what that would come to.
func (d *Daemon) Set(ctx context.Context, key, value string, dry bool) (api.SettingChange, error) {
	if key == "disk" {
		return d.setDisk(ctx, value, dry)
	}
	c, err := d.change(dry, func(s *settings.Store) (api.SettingChange, error) { return s.Set(key, value) })
	if err != nil {
		return c, err
	}
	return d.follow(ctx, c), nil
}

// Unset gives one its default again, or in a dry run says what that would come to.
func (d *Daemon) Unset(ctx context.Context, key string, dry bool) (api.SettingChange, error) {
	if key == "disk" {
		return d.unsetDisk(ctx, dry)
	}
	c, err := d.change(dry, func(s *settings.Store) (api.SettingChange, error) { return s.Unset(key) })
	if err != nil {
		return c, err
	}
	return d.follow(ctx, c), nil
}

func (d *Daemon) change(dry bool, f func(*settings.Store) (api.SettingChange, error)) (api.SettingChange, error) {
	d.settingsLock.Lock()
	defer d.settingsLock.Unlock()
	s, err := d.store()
	if s == nil {
		return api.SettingChange{}, err
	}
	if dry {
		s.Rehearse()
	}
	c, err := f(s)
	if err != nil {
		return c, settingsFailure(err)
	}
	state, _ := d.life.State()
	c.Restart = c.Restart && state.Phase != api.Stopped && state.Phase != api.Stopping && state.Phase != api.Failed
	return c, nil
}
