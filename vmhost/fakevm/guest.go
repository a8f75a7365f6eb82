package fakevm

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
	"github.com/covedesk/cove/vmhost"
)

// What the fake engine says it is.
const (
	EngineVersion = "29.0.0-fake"
	APIVersion    = "1.52"
)

// guest is what guestd is, without a Linux.
type guest struct {
	fault  Fault
	pause  <-chan struct{}
	data   string // path of the data disk
	port   proxy.Conn
	vsock  *link
	mux    proxy.Conn
	halt   func(vmhost.Exit)
	born   time.Time
	swap   atomic.Int64 // bytes
	forgot atomic.Int64 // bytes, of what was kept of files
	server *transport.Server
	engine *http.Server
	calls  *queue // connections to the engine

	mu    sync.Mutex
	out   *protocol.Writer
	hello *protocol.Hello // the last
	ended bool            // it stops
	// behind is how far its clock is behind the host's. It is not slowed where it is ahead, but right at once.
	behind time.Duration

	resumed bool // it has booted in an earlier machine
	still   gate
}

func newGuest(d *Driver, data string, port proxy.Conn, vsock *link, mux proxy.Conn, halt func(vmhost.Exit)) *guest {
	handler := d.Engine
	if handler == nil {
		handler = engine()
	}
	g := &guest{fault: d.Fault, pause: d.Pause, data: data, port: port, vsock: vsock, mux: mux, halt: halt, calls: newQueue(), born: time.Now(),
		engine: &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}}
	services := map[string]transport.Handler{
		protocol.ServiceDocker: g.docker, protocol.ServiceDisk: g.disk, protocol.ServiceEcho: echo, protocol.ServiceSink: sink, protocol.ServiceSource: source,
		protocol.ServiceLogs: logs, protocol.ServiceShell: shell, protocol.ServiceUsage: g.usage, protocol.ServiceSwap: g.setSwap,
	}
	maps.Copy(services, d.Services)
	g.server = transport.NewServer(services)
	return g
}

// run is the guest's life. It returns when all its goroutines have ended.
func (g *guest) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() {
		g.port.Close()
		g.mux.Close()
		g.calls.Close()
		g.engine.Close()
	})
	defer stop()
	if !g.fault.DeafLink && !g.fault.NoVsock {
		wg.Go(func() { g.server.Serve(ctx, g.vsock) })
	}
	wg.Go(func() { transport.ServeMux(ctx, g.mux, g.server) })
	wg.Go(func() { g.engine.Serve(g.calls) })
	in := protocol.NewReader(g.port)
	for booted := g.resumed; ; {
		m, err := in.Read()
		if err != nil {
			g.stop("host is gone")
			<-ctx.Done() // a stubborn one stays
			return
		}
		g.still.pass(ctx)
		switch {
		case g.fault.Silent:
		case m.Hello != nil:
			if g.welcome(*m.Hello) && !booted {
				booted = true
				wg.Go(func() { g.boot(ctx) })
			}
		case m.Ping != nil:
			g.tell(protocol.Message{Pong: &protocol.Pong{ID: m.Ping.ID, Time: time.Now().Add(-g.lag())}})
		case m.SetClock != nil:
			g.fallBehind(-m.SetClock.By)
		case m.Sleep != nil:
			if m.Sleep.Forget {
				g.forgot.Store(256 << 20)
			}
			g.tell(protocol.Message{Asleep: &protocol.Asleep{}})
		case m.Shutdown != nil:
			g.stop("host asked")
		}
	}
}

// welcome takes a hello and says whether the two understand each other.
func (g *guest) welcome(h protocol.Hello) bool {
	version := protocol.Version
	if g.fault.Version != 0 {
		version = g.fault.Version
	}
	secret, err := transport.SecretFrom(h.Secret)
	if err == nil && h.Version == version {
		g.server.SetSecret(secret) // before the host may dial
	}
	g.mu.Lock()
	g.out, g.hello = protocol.NewWriter(g.port), &h
	g.mu.Unlock()
	g.tell(protocol.Message{Welcome: &protocol.Welcome{Version: version, Nonce: h.Nonce, Kernel: "6.12.0-fake", Arch: runtime.GOARCH}})
	if err != nil {
		g.tell(protocol.Message{Failed: &protocol.Failed{Cause: protocol.CauseProtocol, Detail: err.Error(), Fatal: true}})
		g.stop("boot failed")
	}
	return err == nil && h.Version == version
}

// boot tells what guestd tells.
func (g *guest) boot(ctx context.Context) {
	for i, name := range []string{"kernel", "data disk", "containerd", "dockerd"} {
		g.tell(protocol.Message{Step: &protocol.Step{Name: name, Start: time.Duration(i) * time.Millisecond, Duration: time.Millisecond}})
	}
	g.tell(protocol.Message{Listening: &protocol.Listening{Vsock: !g.fault.NoVsock, Mux: true}})
	if g.pause != nil {
		select {
		case <-ctx.Done():
			return
		case <-g.pause:
		}
	}
	if f := g.fault.Failed; f != nil {
		g.tell(protocol.Message{Failed: f})
		if f.Fatal {
			g.stop("boot failed")
		}
		return
	}
	for _, name := range []string{"containerd", "dockerd"} {
		g.tell(protocol.Message{Service: &protocol.Service{Name: name, State: "running"}})
	}
	g.tell(protocol.Message{Ready: &protocol.Ready{EngineVersion: EngineVersion, APIVersion: APIVersion}})
}

// tell says something to a host that has said hello. What is told before that or after the end is lost.
func (g *guest) tell(m protocol.Message) {
	g.mu.Lock()
	out := g.out
	g.mu.Unlock()
	if out != nil {
		out.Write(m)
	}
}

func (g *guest) greeting() *protocol.Hello {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hello
}

// lag is how far the guest's clock is behind the host's.
func (g *guest) lag() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.behind
}

func (g *guest) fallBehind(by time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.behind += by
}

// stop is an ordered one: nothing has to be written here.
func (g *guest) stop(why string) {
	if g.fault.Stubborn {
		return
	}
	g.mu.Lock()
	first := !g.ended
	g.ended = true
	g.mu.Unlock()
	if first {
		g.tell(protocol.Message{Stopping: &protocol.Stopping{Reason: why}})
		g.halt(vmhost.Exit{Reason: vmhost.ExitPoweredOff, Detail: "the guest switched itself off"})
	}
}

// docker gives the connection to the engine and waits for its end, or the guest's.
func (g *guest) docker(c proxy.Conn) {
	if transport.Accept(c) != nil {
		return
	}
	h := &held{Conn: c, closed: make(chan struct{})}
	if g.calls.put(h) {
		select {
		case <-h.closed:
		case <-g.calls.done: // a handler of a test's may not look
		}
	}
}

// disk has a file system that is as large as its file, and that is never full.
func (g *guest) disk(c proxy.Conn) {
	line, err := bufio.NewReader(c).ReadBytes('\n')
	var r protocol.DiskRequest
	if err != nil || json.Unmarshal(line, &r) != nil {
		return
	}
	var a protocol.DiskAnswer
	switch st, err := os.Stat(g.data); {
	case err != nil:
		a.Error = err.Error()
	case st.Size() < r.Grow:
		a.Error = "the disk has not grown"
	default:
		a.Size, a.Free = st.Size(), st.Size()
	}
	json.NewEncoder(c).Encode(a)
}

// engine answers what the host asks of any engine.
func engine() http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, code int, v any) {
		w.Header().Set("Api-Version", APIVersion)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /_ping", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", APIVersion)
		io.WriteString(w, "OK")
	})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"Version": EngineVersion, "ApiVersion": APIVersion, "Os": "linux", "Arch": runtime.GOARCH})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusNotFound, map[string]string{"message": "page not found"})
	})
	return mux
}

func echo(c proxy.Conn) {
	io.Copy(c, struct{ io.Reader }{c})
	c.CloseWrite()
}

func sink(c proxy.Conn) {
	n, err := io.Copy(io.Discard, struct{ io.Reader }{c})
	if err == nil {
		c.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
	}
}

func source(c proxy.Conn) {
	var size [8]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return
	}
	for left := binary.BigEndian.Uint64(size[:]); left > 0; {
		n, err := c.Write(make([]byte, min(left, 64<<10)))
		if err != nil {
			return
		}
		left -= uint64(n)
	}
}

// logs gives one line that says what was asked for, and follows nothing until the host leaves.
func logs(c proxy.Conn) {
	in := bufio.NewReader(c)
	line, err := in.ReadBytes('\n')
	var r protocol.LogsRequest
	if err != nil || json.Unmarshal(line, &r) != nil {
		return
	}
	fmt.Fprintf(c, "the fake log of %s\n", r.Service)
	if r.Follow {
		io.Copy(io.Discard, in)
	}
}

// setSwap makes any swap there is to be.
func (g *guest) setSwap(c proxy.Conn) {
	var r protocol.SwapRequest
	if json.NewDecoder(c).Decode(&r) != nil {
		return
	}
	g.swap.Store(r.Size)
	json.NewEncoder(c).Encode(protocol.SwapAnswer{})
	c.CloseWrite()
}

// usage is of a guest in which nothing runs.
func (g *guest) usage(c proxy.Conn) {
	u := protocol.Usage{Up: time.Since(g.born), Memory: protocol.UsageMemory{Total: 1 << 30, Used: 256 << 20, Cached: 256<<20 - g.forgot.Load(), Free: 512<<20 + g.forgot.Load(), Available: 704 << 20, SwapTotal: g.swap.Load()}, Disk: protocol.UsageDisk{Total: 1 << 40, Used: 1 << 30}}
	json.NewEncoder(c).Encode(u)
	c.CloseWrite()
}

// shell prints what it was asked to run and all its input, and exits with 0; without a command, with 127.
func shell(c proxy.Conn) {
	in := bufio.NewReader(c)
	line, err := in.ReadBytes('\n')
	var r protocol.ShellRequest
	if err != nil || json.Unmarshal(line, &r) != nil {
		return
	}
	exit := func(status int32) {
		protocol.WriteShell(c, protocol.ShellExit, binary.BigEndian.AppendUint32(nil, uint32(status)))
	}
	if len(r.Args) == 0 {
		protocol.WriteShell(c, protocol.ShellStderr, []byte("the fake guest has no login shell\n"))
		exit(127)
		return
	}
	protocol.WriteShell(c, protocol.ShellStdout, fmt.Appendf(nil, "%q\n", r.Args))
	buf := make([]byte, protocol.MaxShellFrame)
	for {
		kind, data, err := protocol.ReadShell(in, buf)
		switch {
		case err != nil:
			return
		case kind != protocol.ShellStdin:
		case len(data) == 0:
			exit(0)
			return
		default:
			protocol.WriteShell(c, protocol.ShellStdout, data)
		}
	}
}

// held tells when its user closed it.
type held struct {
	proxy.Conn
	once   sync.Once
	closed chan struct{}
}

func (h *held) Close() error {
	err := h.Conn.Close()
	h.once.Do(func() { close(h.closed) })
	return err
}

// queue is a listener to which connections are handed.
type queue struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newQueue() *queue { return &queue{conns: make(chan net.Conn), done: make(chan struct{})} }

// put hands a connection over, or says that nobody takes it any more.
func (q *queue) put(c net.Conn) bool {
	select {
	case q.conns <- c:
		return true
	case <-q.done:
		return false
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

func (q *queue) Addr() net.Addr { return addr{} }

type addr struct{}

func (addr) Network() string { return "fake" }
func (addr) String() string  { return "fake" }
