package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/qemu/vufs"
	"github.com/covedesk/cove/vmhost/qemu/vuvsock"
	"github.com/covedesk/cove/vmhost/saved"
	"github.com/digitalocean/go-qemu/qmp"
	"golang.org/x/sys/unix"
)

const (
	// monitorPatience bounds QEMU's own start: it takes 0.1 s on a quiet machine.
	monitorPatience = time.Minute
	// predecessorPatience bounds the wait for an older QEMU of this machine: its guest has Grace.
	predecessorPatience = Grace + 30*time.Second
	// evidenceSize is how much of QEMU's and of the console's last words is kept for an explanation.
	evidenceSize = 16 << 10
)

// arch is the guests': the host's own.
const arch = runtime.GOARCH

func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// Start runs a machine. An older QEMU of the same RunDir, whose owner died, is waited for.
func (d *Driver) Start(ctx context.Context, spec vmhost.Spec) (vmhost.Machine, error) {
	version, err := d.version(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkMemory(spec.Memory); err != nil {
		return nil, err
	}
	lock, err := takeLock(ctx, filepath.Join(spec.RunDir, "vm.lock"))
	if err != nil {
		return nil, err
	}
	defer lock.Close() // QEMU has it from here on
	accel, err := d.choose(ctx, spec)
	if err != nil {
		return nil, err
	}
	return d.run(ctx, spec, version, accel, lock)
}

// takeLock waits for the machine's lock, which QEMU holds for its whole life, its owner alive or not.
func takeLock(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the machine: %w", err)
	}
	end := time.Now().Add(predecessorPatience)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock the machine: %w", err)
		}
		if time.Now().After(end) {
			f.Close()
			return nil, &vmhost.Problem{ID: vmhost.ProblemBusy, Summary: "Another QEMU still runs this machine, and did not end in time.",
				Remedy: "Find it with `pgrep -af qemu-system` and end it, then start again."}
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// machine is a running QEMU.
type machine struct {
	spec     vmhost.Spec
	version  string // QEMU's
	accel    vmhost.Accelerator
	plumbing plumbing
	log      *slog.Logger
	cmd      *exec.Cmd
	control  *conn
	links    []proxy.Link
	vsock    *vuvsock.Device
	monitor  *qmp.SocketMonitor
	event    func(vmhost.Event)

	printed *tail // what QEMU printed
	console *tail // what the guest printed

	closers []io.Closer // let go at the end
	done    chan struct{}

	memory *os.File   // the guest's
	load   *loading   // of it, while a saved machine is brought back
	saving sync.Mutex // held while the machine stands still or goes on by our will
	still  bool       // by Pause; under saving

	mu        sync.Mutex
	exit      vmhost.Exit
	killed    bool
	suspended bool
	asked     string                   // why QEMU said it shuts down
	paused    bool                     // for a full disk
	gone      map[string]chan struct{} // devices that are being unplugged
}

var _ vmhost.Machine = (*machine)(nil)

func (m *machine) Accelerator() vmhost.Accelerator { return m.accel }
func (m *machine) Control() proxy.Conn             { return m.control }
func (m *machine) Links() []proxy.Link             { return m.links }
func (m *machine) Done() <-chan struct{}           { return m.done }

func (m *machine) Exit() vmhost.Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exit
}

func (m *machine) PowerOff(context.Context) error { return m.do("system_powerdown") }

func (m *machine) Kill() error {
	m.mu.Lock()
	m.killed = true
	m.mu.Unlock()
	if err := m.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill qemu: %w", err)
	}
	return nil
}

func (m *machine) do(command string) error {
	_, err := m.monitor.Run([]byte(`{"execute":"` + command + `"}`))
	if err != nil {
		return fmt.Errorf("tell qemu %s: %w", command, err)
	}
	return nil
}

// conn is our end of a socket pair with QEMU.
type conn struct{ *net.UnixConn }

var _ proxy.Conn = (*conn)(nil)

// pair makes a connected pair: our end and the file that QEMU inherits.
func pair() (*conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "pair"), os.NewFile(uintptr(fds[1]), "pair")
	defer ours.Close()
	c, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return &conn{c.(*net.UnixConn)}, theirs, nil
}

// launch is a QEMU about to be started: what it inherits, and what must go if it does not start.
type launch struct {
	inherited []*os.File
	closers   []io.Closer
}

// pair adds a socket pair and returns our end and its descriptor's number in QEMU.
func (l *launch) pair() (*conn, int, error) {
	c, theirs, err := pair()
	if err != nil {
		return nil, 0, err
	}
	l.closers = append(l.closers, c)
	return c, l.inherit(theirs), nil
}

// serveFiles gives the guest a device for the host's folders, answered over our end of a pair.
func (l *launch) serveFiles(handler vufs.Handler, conn *conn, log *slog.Logger) {
	device := vufs.New(handler, log)
	go func() {
		if err := device.Serve(conn.UnixConn); err != nil {
			log.Warn("file system device", "err", err)
		}
	}()
	l.closers = append(l.closers, closeFunc(device.Close))
}

func (l *launch) inherit(f *os.File) int {
	l.inherited = append(l.inherited, f)
	return 2 + len(l.inherited)
}

func (l *launch) close() {
	for _, c := range l.closers {
		c.Close()
	}
}

// listenMonitor makes the monitor's socket ourselves, so that it is there and the user's own from the
// first moment.
func (l *launch) listenMonitor(path string) (int, error) {
	if len(path) > 103 {
		return 0, &vmhost.Problem{ID: vmhost.ProblemPathTooLong, Summary: fmt.Sprintf("The path %s is too long for a socket.", path), Remedy: "Set COVE_HOME to a shorter path."}
	}
	os.Remove(path)
	lis, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return 0, fmt.Errorf("listen for qemu's monitor: %w", err)
	}
	defer lis.Close()
	lis.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		return 0, fmt.Errorf("listen for qemu's monitor: %w", err)
	}
	f, err := lis.File()
	if err != nil {
		return 0, fmt.Errorf("listen for qemu's monitor: %w", err)
	}
	return l.inherit(f), nil
}

func (d *Driver) run(ctx context.Context, spec vmhost.Spec, version string, accel vmhost.Accelerator, lock *os.File) (_ *machine, err error) {
	var l launch
	var memory *os.File // ours too: see Suspend
	defer func() {
		for _, f := range l.inherited {
			if f != lock && f != memory {
				f.Close()
			}
		}
		if err != nil {
			l.close()
		}
	}()
	m := &machine{spec: spec, version: version, accel: accel, log: d.Log, event: spec.Event, done: make(chan struct{}), printed: newTail(evidenceSize), console: newTail(evidenceSize),
		gone: map[string]chan struct{}{}}
	if m.event == nil {
		m.event = func(vmhost.Event) {}
	}
	var p plumbing
	socket := filepath.Join(spec.RunDir, "qmp.sock")
	if p.monitor, err = l.listenMonitor(socket); err != nil {
		return nil, err
	}
	var console, control, mux, vsock, files *conn
	for _, s := range []struct {
		c  **conn
		fd *int
	}{{&console, &p.console}, {&control, &p.control}, {&mux, &p.mux}, {&vsock, &p.vsock}} {
		if *s.c, *s.fd, err = l.pair(); err != nil {
			return nil, err
		}
	}
	if spec.Files != nil {
		if files, p.files, err = l.pair(); err != nil {
			return nil, err
		}
		l.serveFiles(spec.Files, files, d.Log)
	}
	if spec.Network != nil {
		var card *conn
		if card, p.network, err = l.pair(); err != nil {
			return nil, err
		}
		go func() {
			if err := spec.Network.Attach(card.UnixConn, vmhost.FrameStream); err != nil {
				d.Log.Warn("network card", "err", err)
			}
		}()
	}
	l.inherit(lock)
	if memory, err = newMemory(spec.Memory); err != nil {
		return nil, err
	}
	l.closers = append(l.closers, memory)
	p.memory, m.memory = l.inherit(memory), memory

	if m.plumbing = p; spec.Saved != "" {
		if err := checkSaved(spec, version, accel.Name, p); err != nil {
			return nil, saved.Problem(err)
		}
		m.plumbing.incoming = true
		load, err := m.loadMemory(ctx)
		if err != nil {
			return nil, saved.Problem(err)
		}
		l.closers = append(l.closers, load)
		m.load = load
	}
	device := vuvsock.New(guestCID, d.Log)
	go func() {
		if err := device.Serve(vsock.UnixConn); err != nil {
			d.Log.Warn("vsock device", "err", err)
		}
	}()
	l.closers = append(l.closers, closeFunc(device.Close))
	m.vsock = device
	m.control = control
	m.links = []proxy.Link{device.Link(protocol.VsockPort), transport.OpenMux(mux)}

	m.cmd = exec.Command(d.Binary, argv(spec, accel.Name, arch, m.plumbing)...)
	m.cmd.ExtraFiles = l.inherited
	m.cmd.Stdout, m.cmd.Stderr = m.printed, m.printed
	m.cmd.Dir = "/"
	m.cmd.Env = environ()
	m.cmd.SysProcAttr = detached()
	d.Log.Info("qemu starts", "args", m.cmd.Args)
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start qemu: %w", err)
	}
	watch, err := guard(m.cmd.Process.Pid)
	if err != nil {
		m.cmd.Process.Kill()
		m.cmd.Wait()
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- m.cmd.Wait() }()
	if err := m.connect(ctx, socket, ended); err != nil {
		m.cmd.Process.Kill()
		<-ended
		watch.Close()
		return nil, m.startProblem(err)
	}
	os.Remove(socket) // one user, and he is in
	// The control port stays open for the guest's last words; its reader closes it when he has them.
	m.closers = append(slices.DeleteFunc(l.closers, func(c io.Closer) bool { return c == io.Closer(control) }), watch)
	var out io.Writer = io.Discard
	if spec.Console != nil {
		out = spec.Console
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		io.Copy(io.MultiWriter(out, m.console), struct{ io.Reader }{console})
	}()
	go m.listen()
	go m.end(ended, heard)
	if m.load != nil {
		if err := m.resume(ctx); err != nil {
			m.Kill()
			<-m.done
			control.Close()
			said := strings.TrimSpace(m.printed.String())
			p := saved.Problem(err)
			p.Evidence = said
			return nil, p
		}
	}
	return m, nil
}

type closeFunc func()

func (f closeFunc) Close() error { f(); return nil }

// connect opens the monitor, or finds that QEMU ended. With an error QEMU is to be killed.
func (m *machine) connect(ctx context.Context, socket string, ended chan error) error {
	ctx, cancel := context.WithTimeout(ctx, monitorPatience)
	defer cancel()
	mon, err := qmp.NewSocketMonitor("unix", socket, monitorPatience)
	if err != nil {
		return fmt.Errorf("reach qemu's monitor: %w", err)
	}
	greeted := make(chan error, 1)
	go func() { greeted <- mon.Connect() }()
	select {
	case err := <-greeted:
		if err == nil {
			m.monitor = mon
			return nil
		}
		select { // QEMU's end says more than a closed monitor
		case err := <-ended:
			ended <- err
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("reach qemu's monitor: %w", err)
		}
	case err := <-ended:
		ended <- err
		go forget(mon, greeted)
		return errEnded
	case <-ctx.Done():
		go forget(mon, greeted)
		return fmt.Errorf("reach qemu's monitor: %w", context.Cause(ctx))
	}
}

// forget lets go of a monitor whose greeting nobody waits for any more: it ends with QEMU. One that did not greet
// must not be disconnected, which waits for the end of a stream that it has not got (go-qemu ranges over a nil
// channel); its descriptor goes with it.
func forget(mon *qmp.SocketMonitor, greeted <-chan error) {
	if <-greeted == nil {
		mon.Disconnect()
	}
}

var errEnded = errors.New("qemu ended while it started")

// startProblem says why QEMU did not start, from what it printed.
func (m *machine) startProblem(err error) error {
	if !errors.Is(err, errEnded) {
		return err
	}
	said := strings.TrimSpace(m.printed.String())
	p := &vmhost.Problem{ID: vmhost.ProblemHypervisorExit, Summary: "QEMU ended while it started: " + lastLine(said) + ".", Evidence: said, Err: err,
		Remedy: "See `cove logs coved` for its arguments; if they look right, report it with `cove status --json`."}
	switch {
	case strings.Contains(said, "Cannot allocate memory"), strings.Contains(said, "cannot set up guest memory"):
		p.ID, p.Summary = vmhost.ProblemNoMemory, "The host did not give QEMU the memory for the VM."
		p.Remedy = "Close other programs, or give the VM less: `cove config set memory 1GiB`."
	case strings.Contains(said, `Failed to get "write" lock`):
		p.ID, p.Summary = vmhost.ProblemBusy, "Another process has the VM's data disk open for writing."
		p.Remedy = "End it (`pgrep -af qemu-system` shows it), then start again."
	case strings.Contains(said, "No space left on device"):
		p.ID, p.Summary = vmhost.ProblemNoDisk, "The host's disk is full."
		p.Remedy = "Free some space, then start again."
	}
	return p
}

func lastLine(s string) string {
	s = strings.TrimSuffix(s[strings.LastIndexByte(s, '\n')+1:], ".")
	if program, said, found := strings.Cut(s, ": "); found && strings.HasPrefix(program, "qemu-system-") {
		return said
	}
	return s
}

// listen takes the monitor's events until QEMU is gone. They must be taken: the monitor's commands wait
// behind them.
func (m *machine) listen() {
	events, err := m.monitor.Events(context.Background())
	if err != nil {
		m.log.Warn("qemu's events", "err", err)
		return
	}
	for e := range events {
		m.log.Debug("qemu", "event", e.Event, "data", e.Data)
		switch e.Event {
		case "SHUTDOWN":
			reason, _ := e.Data["reason"].(string)
			m.mu.Lock()
			m.asked = reason
			m.mu.Unlock()
		case "GUEST_PANICKED":
			m.mu.Lock()
			m.asked = "guest-panic"
			m.mu.Unlock()
		case "DEVICE_DELETED":
			id, _ := e.Data["device"].(string)
			m.mu.Lock()
			if gone := m.gone[id]; gone != nil {
				close(gone)
				delete(m.gone, id)
			}
			m.mu.Unlock()
		case "BLOCK_IO_ERROR":
			if w, paused := writeFailed(e.Data); paused {
				m.pauseFor(w)
			}
		}
	}
}

// end waits for QEMU's end, says what it was, and lets go of everything.
func (m *machine) end(ended <-chan error, heard <-chan struct{}) {
	err := <-ended
	<-heard
	m.monitor.Disconnect()
	for _, c := range m.closers {
		c.Close()
	}
	for _, l := range m.links {
		l.Close()
	}
	m.mu.Lock()
	if m.exit = explain(err, m.killed, m.asked, m.console.String(), m.printed.String()); m.suspended {
		m.exit = vmhost.Exit{Reason: vmhost.ExitSuspended, Detail: "the machine was saved"}
	}
	m.mu.Unlock()
	m.log.Info("qemu ended", "reason", m.exit.Reason, "detail", m.exit.Detail)
	close(m.done)
}

// explain says how a machine ended from what is known of it.
func explain(err error, killed bool, asked, console, printed string) vmhost.Exit {
	e := vmhost.Exit{Evidence: strings.TrimSpace(printed)}
	panicked := asked == "guest-panic" || asked == "guest-reset" && strings.Contains(console, "Kernel panic")
	switch {
	case killed:
		e.Reason, e.Detail = vmhost.ExitKilled, "QEMU was killed because we asked for it"
	case panicked:
		e.Reason, e.Detail, e.Evidence = vmhost.ExitPanicked, "the guest's kernel panicked", fromPanic(console)
	case asked == "guest-shutdown" || asked == "host-qmp-quit" || asked == "host-qmp-system-powerdown":
		e.Reason, e.Detail = vmhost.ExitPoweredOff, "the guest switched itself off"
	case asked == "guest-reset":
		e.Reason, e.Detail = vmhost.ExitReset, "the guest restarted itself"
	case asked == "host-signal":
		e.Reason, e.Detail = vmhost.ExitCrashed, "QEMU was asked to end by a signal from outside"
	case err != nil:
		e.Reason, e.Detail = vmhost.ExitCrashed, "QEMU ended by itself: "+err.Error()
	default:
		e.Reason, e.Detail = vmhost.ExitCrashed, "QEMU ended without a word"
	}
	return e
}

// fromPanic is the console from the oops or the panic on.
func fromPanic(console string) string {
	at := strings.Index(console, "Kernel panic")
	if oops := strings.Index(console, "BUG: "); oops >= 0 && oops < at {
		at = oops
	}
	return console[max(0, at-200):]
}

// trial boots the kernel alone on an accelerator and waits for its first line.
func (d *Driver) trial(ctx context.Context, accel, kernel string) error {
	ctx, cancel := context.WithTimeout(ctx, trialPatience)
	defer cancel()
	console, theirs, err := pair()
	if err != nil {
		return err
	}
	defer console.Close()
	defer theirs.Close()
	printed := newTail(4 << 10)
	spec := vmhost.Spec{Name: "trial", CPUs: 1, Memory: 256 << 20, Kernel: kernel, Cmdline: []string{"panic=-1"}}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	args := argv(spec, accel, arch, plumbing{console: 3})
	cmd := exec.CommandContext(ctx, d.Binary, withoutMonitor(args)...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stdout, cmd.Stderr = printed, printed
	cmd.Env = environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	theirs.Close()
	spoke := make(chan bool, 1)
	go func() {
		var said strings.Builder
		buf := make([]byte, 4096)
		for !strings.Contains(said.String(), "Linux version") {
			n, err := console.Read(buf)
			said.Write(buf[:n])
			if err != nil {
				spoke <- false
				return
			}
		}
		spoke <- true
	}()
	ok := false
	select {
	case ok = <-spoke:
	case <-ctx.Done():
	}
	timedOut := ctx.Err() != nil
	cancel()
	cmd.Wait()
	switch {
	case ok:
		return nil
	case timedOut:
		return fmt.Errorf("its guests hang: a kernel said nothing for %.0f s", trialPatience.Seconds())
	default:
		return fmt.Errorf("QEMU does not run on it: %s", lastLine(strings.TrimSpace(printed.String())))
	}
}

// withoutMonitor drops the monitor: a trial needs none.
func withoutMonitor(args []string) []string {
	var out []string
	for i := 0; i < len(args); i++ {
		if args[i] == "-mon" || args[i] == "-chardev" && strings.Contains(args[i+1], "id=monitor") {
			i++
			continue
		}
		out = append(out, args[i])
	}
	return out
}

// unavailable says why an accelerator need not even be tried.
func unavailable(name string) string {
	if name != "kvm" {
		return ""
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "/dev/kvm is not there: hardware virtualisation is off, or its module is not loaded"
	case errors.Is(err, os.ErrPermission):
		return "/dev/kvm may not be opened: add yourself to the group kvm"
	case err != nil:
		return err.Error()
	}
	f.Close()
	return ""
}

func hostIdentity() string {
	var u unix.Utsname
	unix.Uname(&u)
	kvm := unavailable("kvm")
	return unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Version[:]) + " " + kvm
}

// leastFree is what the host must be able to give at once: what a guest touches while it boots.
const leastFree = 512 << 20

// checkMemory refuses a guest that the host could not hold.
func checkMemory(want int64) error {
	total, available, err := hostMemory()
	if err != nil {
		return nil // the host does not say; QEMU will
	}
	if want > total {
		return &vmhost.Problem{ID: vmhost.ProblemNoMemory, Summary: fmt.Sprintf("The VM is to have %d MiB of memory, and the host has %d MiB in all.", want>>20, total>>20),
			Remedy: "Give it less: `cove config set memory 2GiB`, or `cove config unset memory` for the default."}
	}
	if available < min(want, leastFree) {
		return &vmhost.Problem{ID: vmhost.ProblemNoMemory, Summary: fmt.Sprintf("The host has only %d MiB of memory free.", available>>20),
			Remedy: "Close other programs, then start again."}
	}
	return nil
}

// hostMemory reads total and available memory in bytes: proc(5), MemTotal and MemAvailable.
func hostMemory() (total, available int64, err error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "MemTotal: %d kB", &kib); n == 1 {
			total = kib << 10
		}
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			available = kib << 10
		}
	}
	if total == 0 {
		return 0, 0, errors.New("/proc/meminfo does not say how much memory there is")
	}
	return total, available, nil
}
