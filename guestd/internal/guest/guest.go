//go:build linux

// Package guest is the guest as a whole: the list of its boot's steps, its services, what it tells
// the host, and how it stops. Whatever happens, it ends in an ordered stop and a power off; when the
// host is gone, too.
package guest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/covedesk/cove/guestd/internal/asks"
	"github.com/covedesk/cove/guestd/internal/boot"
	"github.com/covedesk/cove/guestd/internal/clock"
	"github.com/covedesk/cove/guestd/internal/control"
	"github.com/covedesk/cove/guestd/internal/datadisk"
	"github.com/covedesk/cove/guestd/internal/engine"
	"github.com/covedesk/cove/guestd/internal/hostservices"
	"github.com/covedesk/cove/guestd/internal/logs"
	"github.com/covedesk/cove/guestd/internal/mounts"
	"github.com/covedesk/cove/guestd/internal/ports"
	"github.com/covedesk/cove/guestd/internal/reap"
	"github.com/covedesk/cove/guestd/internal/reclaim"
	"github.com/covedesk/cove/guestd/internal/shell"
	"github.com/covedesk/cove/guestd/internal/supervise"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
	"golang.org/x/sys/unix"
)

// How long the parts of a stop may take. Together they stay under the 25 s after which the host's
// guard ends the machine; dockerd itself gives containers 10 s.
const (
	dockerdPatience    = 15 * time.Second
	containerdPatience = 3 * time.Second
	restPatience       = 2 * time.Second
)

// Guest is the running guest. There is one, in process 1.
type Guest struct {
	session  control.Session
	clock    clock.Clock
	asks     *asks.Asks
	ports    *ports.Book
	doors    *hostservices.Doors
	replayer *mounts.Replayer
	server   *transport.Server
	reaper   *reap.Reaper
	logs     map[string]*logs.Log

	hello  chan struct{} // closed at the first hello
	once   sync.Once
	config protocol.Config
	stop   chan string // why the guest is to stop; the first word counts
	data   *datadisk.Disk

	engineUp   context.Context // ends when the engine's services are to end
	engineDown context.CancelFunc
	containerd *supervise.Service
	dockerd    *supervise.Service
	services   sync.WaitGroup
}

// New prepares the guest. Its log goes to the console and to the "guestd" log.
func New() *Guest {
	g := &Guest{clock: clock.Clock{System: clock.Kernel{}}, hello: make(chan struct{}), stop: make(chan string, 8), logs: map[string]*logs.Log{}}
	for _, name := range []string{"guestd", "containerd", "dockerd"} {
		g.logs[name] = logs.New(name)
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(both{g.logs["guestd"], os.Stderr}, nil)))
	g.reaper = reap.New()
	g.data = &datadisk.Disk{Folder: "/var", Reaper: g.reaper}
	g.asks = &asks.Asks{Held: func() []protocol.Bind { return g.ports.Held() }}
	g.ports = ports.NewBook(g.asks)
	g.replayer = &mounts.Replayer{Root: boot.SharesDir, Forget: mounts.DropNames}
	g.doors = hostservices.New(g.asks)
	g.session.Hello = g.greeted
	g.session.SetClock = g.clock.Move
	g.session.Sync = syncDisks
	g.session.Shutdown = func() { g.askStop("host asked") }
	g.server = transport.NewServer(g.handlers())
	g.engineUp, g.engineDown = context.WithCancel(context.Background())
	return g
}

// both writes to the log and to the console.
type both struct {
	log     *logs.Log
	console *os.File
}

func (b both) Write(p []byte) (int, error) {
	b.log.Write(p)
	b.console.Write(p)
	return len(p), nil
}

func (g *Guest) askStop(why string) {
	select {
	case g.stop <- why:
	default:
	}
}

// greeted takes the host's hello: the secret of this session, the clock, and once what we are to be.
func (g *Guest) greeted(h protocol.Hello) {
	secret, err := transport.SecretFrom(h.Secret)
	if err != nil {
		g.fail(protocol.CauseProtocol, err, "", true)
		return
	}
	g.clock.Hello(h.Time, time.Now())
	g.server.SetSecret(secret)
	g.once.Do(func() {
		g.config = h.Config
		close(g.hello)
	})
}

// steps is the boot.
func (g *Guest) steps() []boot.Step {
	return []boot.Step{
		{Name: "kernel files", Run: boot.KernelFiles},
		{Name: "modules", After: []string{"kernel files"}, Run: boot.Modules, Optional: true},
		{Name: "root", After: []string{"modules"}, Run: boot.Root},
		{Name: "control port", After: []string{"root"}, Run: g.openControl},
		{Name: "hello", After: []string{"control port"}, Run: g.awaitHello},
		{Name: "transport", After: []string{"control port"}, Run: g.listen},
		{Name: "read ahead", After: []string{"root"}, Run: readAhead, Optional: true},
		{Name: "control groups", After: []string{"root"}, Run: boot.Cgroups},
		{Name: "sysctls", After: []string{"root"}, Run: boot.Sysctls, Optional: true},
		{Name: "loopback", After: []string{"root"}, Run: boot.Loopback},
		{Name: "data disk", After: []string{"root"}, Run: g.mountData},
		{Name: "names", After: []string{"hello"}, Run: func(context.Context) error { return g.names() }},
		{Name: "network", After: []string{"names"}, Run: boot.Network, Optional: true},
		{Name: "engine settings", After: []string{"hello"}, Run: g.configure},
		{Name: "ports", After: []string{"root"}, Run: g.openPorts},
		{Name: "host services", After: []string{"root"}, Run: g.openDoors, Optional: true},
		{Name: protocol.StepShares, After: []string{"hello", "data disk"}, Run: func(context.Context) error { return boot.Shares(g.config.Shares) }, Optional: true},
		{Name: "containerd", After: []string{"data disk", "control groups", "engine settings"}, Run: g.startContainerd},
		// dockerd waits for containerd by itself; the transport's ports are taken before a container could.
		{Name: "dockerd", After: []string{"data disk", "control groups", "engine settings", "names", "sysctls", "loopback", "transport", "ports", "host services", protocol.StepShares}, Run: g.startDockerd},
		{Name: "ready", After: []string{"containerd", "dockerd"}, Run: g.ready},
		{Name: "memory", After: []string{"ready"}, Run: g.giveBack, Optional: true},
		{Name: "listeners", After: []string{"ready"}, Run: g.followListeners, Optional: true},
		{Name: "grow data disk", After: []string{"ready"}, Run: g.keepData, Optional: true},
	}
}

// Run boots the guest, keeps it until it is to stop, and stops it. It returns when everything is
// written and the machine can be switched off.
func (g *Guest) Run() {
	begun := boot.SinceKernel()
	g.session.Tell(protocol.Message{Step: &protocol.Step{Name: "kernel", Duration: begun}})
	ctx, cancel := context.WithCancel(context.Background())
	go watchPowerButton(ctx, func() { g.askStop("power button") })
	booted := make(chan struct{})
	go func() {
		defer close(booted)
		err := boot.Run(ctx, g.steps(), func(e boot.Ended) {
			step := &protocol.Step{Name: e.Name, Start: e.Start, Duration: e.Duration}
			if e.Err != nil {
				step.Error = e.Err.Error()
				slog.Warn("boot step failed", "step", e.Name, "err", e.Err)
			}
			g.session.Tell(protocol.Message{Step: step})
		})
		if err != nil && ctx.Err() == nil {
			g.bootFailed(err)
		}
	}()
	why := <-g.stop
	slog.Info("stopping", "why", why)
	g.session.Tell(protocol.Message{Stopping: &protocol.Stopping{Reason: why}})
	cancel()
	g.shutDown()
	<-booted
	g.session.Flush(lastWordPatience)
}

func (g *Guest) bootFailed(err error) {
	cause := protocol.CauseBoot
	var alien *boot.AlienError
	var step *boot.Error
	switch {
	case errors.As(err, &alien):
		cause, err = protocol.CauseDataDiskAlien, alien
	case errors.As(err, &step) && step.Step == "data disk":
		cause, err = protocol.CauseDataDisk, step.Err
	case errors.Is(err, engine.ErrOwned) || errors.As(err, &step) && step.Step == "engine settings":
		cause, err = protocol.CauseEngineConfig, step.Err
	}
	g.fail(cause, err, string(g.logs["guestd"].Tail(40)), true)
	g.askStop("boot failed")
}

func (g *Guest) fail(cause string, err error, evidence string, fatal bool) {
	slog.Error("failed", "cause", cause, "err", err)
	g.session.Tell(protocol.Message{Failed: &protocol.Failed{Cause: cause, Detail: err.Error(), Evidence: evidence, Fatal: fatal}})
}

func (g *Guest) openControl(ctx context.Context) error {
	port, err := control.OpenPort(ctx, protocol.ControlPort)
	if err != nil {
		return err
	}
	go func() {
		err := g.session.Serve(context.Background(), port)
		slog.Info("control session ended", "err", err)
		g.askStop("host is gone")
	}()
	return nil
}

// lastWordPatience bounds the wait for the host to take what was told last.
const lastWordPatience = 2 * time.Second

// helloPatience bounds the wait for the host's first word: a host that is there says it at once.
const helloPatience = 2 * time.Minute

func (g *Guest) awaitHello(ctx context.Context) error {
	select {
	case <-g.hello:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(helloPatience):
		return errors.New("the host said nothing on the control port")
	}
}

// listen takes the transport's ports, before any container can.
func (g *Guest) listen(context.Context) error {
	told := protocol.Listening{}
	ctx := context.Background()
	l, vsockErr := transport.ListenVsock(protocol.VsockPort)
	if vsockErr == nil {
		told.Vsock = true
		go g.server.Serve(ctx, l)
	}
	port, muxErr := control.OpenPort(ctx, protocol.MuxPort)
	if muxErr == nil {
		told.Mux = true
		go transport.ServeMux(ctx, newSerial(port), g.server)
	}
	if vsockErr != nil && muxErr != nil {
		return errors.Join(vsockErr, muxErr)
	}
	g.session.Tell(protocol.Message{Listening: &told})
	return nil
}

func (g *Guest) mountData(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	dev, err := boot.Disk(ctx, "cove-data")
	if err != nil {
		return err
	}
	g.data.Device = dev
	if err := boot.DataDisk(g.reaper, dev, g.data.Folder); err != nil {
		return err
	}
	if err := boot.DataFolders(); err != nil {
		return err
	}
	for _, l := range g.logs {
		l.Persist("/var/log/cove")
	}
	return nil
}

// keepData makes the file system as large as its disk, and looks after it for as long as the guest lives.
func (g *Guest) keepData(ctx context.Context) error {
	go g.data.Sweep(g.engineUp)
	return g.data.Grow(ctx, 0)
}

func (g *Guest) names() error {
	if err := unix.Sethostname([]byte(g.config.Hostname)); err != nil {
		return err
	}
	return boot.Names(g.config.Hostname)
}

func (g *Guest) configure(context.Context) error {
	if err := engine.Believe(g.config.Trust); err != nil {
		return err
	}
	return engine.Configure(g.config.Engine, g.config.PublishAddress, g.config.Proxy, g.config.Network)
}

// openPorts takes what the engine and its userland proxies say about ports, and gives those their name.
func (g *Guest) openPorts(context.Context) error {
	if err := os.MkdirAll(boot.RunDir, 0o755); err != nil {
		return err
	}
	if err := os.Symlink("/proc/1/exe", ports.UserlandPath); err != nil {
		return err
	}
	return ports.Open(g.ports)
}

// openDoors makes the sockets that lead to services of the host, before a container could mount them.
func (g *Guest) openDoors(context.Context) error {
	l, err := hostservices.Listen(hostservices.AgentSocket)
	if err != nil {
		return err
	}
	go g.doors.Serve(l, protocol.HostServiceSSHAgent)
	return nil
}

// giveBack lets the host have the memory that nobody here uses, for as long as the guest lives.
func (g *Guest) giveBack(context.Context) error {
	r := &reclaim.Reclaimer{Root: os.DirFS("/"), Take: reclaim.Take}
	go r.Run(g.engineUp)
	return boot.ReportFreeMemory()
}

// followListeners leads the host's ports to containers on the host network for as long as the guest lives.
func (g *Guest) followListeners(context.Context) error {
	go func() {
		if err := ports.Follow(g.engineUp, g.ports, g.config.PublishAddress); err != nil {
			slog.Error("listeners on the host network are not followed", "err", err)
		}
	}()
	return nil
}

func (g *Guest) service(name string, args []string, patience time.Duration) *supervise.Service {
	return &supervise.Service{
		Name: name, Args: args, Cgroup: boot.Cgroup(name), Log: g.logs[name], Reaper: g.reaper, StopPatience: patience,
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/var/lib/cove", "TMPDIR=/var/tmp"},
		Watch: func(c supervise.Change) {
			g.session.Tell(protocol.Message{Service: &protocol.Service{Name: c.Name, State: string(c.State), Restarts: c.Restarts, Detail: c.Detail}})
			if c.Name == "dockerd" && c.State == supervise.Starting {
				engine.RemoveStale()
			}
		},
	}
}

func (g *Guest) keep(s *supervise.Service, ctx context.Context) {
	g.services.Go(func() {
		if err := s.Run(ctx); err != nil {
			cause := protocol.CauseEngineFailed
			tail := string(s.Log.Tail(30))
			if strings.Contains(tail, "unable to configure the Docker daemon") {
				cause = protocol.CauseEngineConfig
			}
			g.fail(cause, err, tail, false)
		}
	})
}

func (g *Guest) startContainerd(ctx context.Context) error {
	g.containerd = g.service("containerd", engine.ContainerdArgs(), containerdPatience)
	// It must outlive dockerd, so it has a life of its own: shutDown ends it.
	g.keep(g.containerd, containerdLife.ctx)
	return engine.AwaitContainerd(ctx)
}

// containerdLife ends after dockerd's.
var containerdLife = func() (l struct {
	ctx context.Context
	end context.CancelFunc
}) {
	l.ctx, l.end = context.WithCancel(context.Background())
	return l
}()

func (g *Guest) startDockerd(context.Context) error {
	g.dockerd = g.service("dockerd", engine.DockerdArgs(), dockerdPatience)
	g.keep(g.dockerd, g.engineUp)
	return nil
}

func (g *Guest) ready(ctx context.Context) error {
	v, err := engine.Await(ctx)
	if err != nil {
		return err
	}
	g.session.Tell(protocol.Message{Ready: &protocol.Ready{EngineVersion: v.Version, APIVersion: v.APIVersion}})
	return nil
}

// handlers are the services that the host can dial.
func (g *Guest) handlers() map[string]transport.Handler {
	return map[string]transport.Handler{
		protocol.ServiceDocker: engine.Forward,
		protocol.ServiceEcho:   echo,
		protocol.ServiceSink:   sink,
		protocol.ServiceSource: source,
		protocol.ServiceShell: func(c proxy.Conn) {
			shell.Serve(context.Background(), g.reaper, boot.Cgroup("shell"), c)
		},
		protocol.ServiceLogs: g.serveLogs,
		protocol.ServiceAsks: func(c proxy.Conn) { g.asks.Serve(c) },
		protocol.ServiceFileEvents: func(c proxy.Conn) {
			if err := g.replayer.Serve(c); err != nil {
				slog.Info("replay of the host's changes ended", "err", err)
			}
		},
		protocol.ServiceUsage:    serveUsage,
		protocol.ServiceDisk:     g.data.Serve,
		protocol.ServiceSwap:     g.serveSwap,
		protocol.ServiceConnect:  ports.Connect,
		protocol.ServiceCallback: g.doors.Callback,
	}
}

// readAhead brings the engine's programs into memory while disks are mounted.
func readAhead(context.Context) error {
	for _, name := range []string{"/usr/bin/dockerd", "/usr/bin/containerd"} {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		st, err := f.Stat()
		if err == nil {
			err = unix.Fadvise(int(f.Fd()), 0, st.Size(), unix.FADV_WILLNEED)
		}
		f.Close()
		if err != nil {
			return fmt.Errorf("read ahead %s: %w", name, err)
		}
	}
	return nil
}
