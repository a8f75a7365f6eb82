// Package protocol is what host and guest say to each other on the control port, a root-only
// virtio-serial port named [ControlPort]. It is versioned, every message is capped, and a reader
// survives any bytes: the guest is not trusted by the host, and the host's bytes may be the rest of
// an older session. Standard library only.
//
// A session: the host sends [Hello] with a fresh nonce and the secret of this boot; the guest
// answers [Welcome] with the same nonce, then tells [Step]s as the boot goes on, [Listening] when
// the transport accepts connections, [Ready] when the engine serves, and [Failed] when it cannot.
// When the port is closed by the host, however that came, the guest stops the engine in order and
// powers off. [Sleep] and [Asleep] end a session whose machine is saved; [Hello] opens the next one.
package protocol

import (
	"encoding/json"
	"time"
)

const (
	// Version of this protocol. A guest that speaks another one says so in Welcome and goes no further.
	Version = 1

	// ControlPort and MuxPort are the names of the virtio-serial ports (/dev/virtio-ports/NAME).
	ControlPort = "cove.control"
	MuxPort     = "cove.mux"

	// VsockPort is where guestd listens. Below 1024, so that a process without
	// CAP_NET_BIND_SERVICE cannot squat it (vsock(7)).
	VsockPort = 1023
)

// Names of the services that guestd serves over the transport.
const (
	ServiceDocker = "docker" // the engine's API socket
	ServiceShell  = "shell"  // a command or a login shell as root in the guest: see ShellRequest
	ServiceLogs   = "logs"   // a service's log: see LogsRequest
	ServiceEcho   = "echo"   // sends back all it gets, then ends its side: the self-test of half-close
	ServiceSink   = "sink"   // reads to the end, then answers the count as 8 bytes big-endian
	ServiceSource = "source" // reads a count as 8 bytes big-endian, then sends so many bytes

	ServiceAsks     = "asks"     // frames both ways: the guest's Asks and the host's Answers; one at a time, a new one ends the older
	ServiceConnect  = "connect"  // a connection out of the guest's own network: see ConnectService
	ServiceCallback = "callback" // the host's side of an Open: see CallbackService
)

// Message is one frame on the control port. Exactly one field is set.
type Message struct {
	// From the host.
	Hello    *Hello    `json:"hello,omitempty"`
	SetClock *SetClock `json:"setClock,omitempty"`
	Shutdown *Shutdown `json:"shutdown,omitempty"`
	Ping     *Ping     `json:"ping,omitempty"`
	Sleep    *Sleep    `json:"sleep,omitempty"`

	// From the guest.
	Welcome   *Welcome   `json:"welcome,omitempty"`
	Step      *Step      `json:"step,omitempty"`
	Listening *Listening `json:"listening,omitempty"`
	Service   *Service   `json:"service,omitempty"`
	Ready     *Ready     `json:"ready,omitempty"`
	Failed    *Failed    `json:"failed,omitempty"`
	Pong      *Pong      `json:"pong,omitempty"`
	Stopping  *Stopping  `json:"stopping,omitempty"`
	Asleep    *Asleep    `json:"asleep,omitempty"`

	// On a connection to ServiceAsks, from the guest and from the host.
	Ask    *Ask    `json:"ask,omitempty"`
	Answer *Answer `json:"answer,omitempty"`

	// On a connection to ServiceFileEvents, from the guest, the host and the guest.
	FileReplayer *FileReplayer `json:"fileReplayer,omitempty"`
	FileEvents   *FileEvents   `json:"fileEvents,omitempty"`
	FileReplayed *FileReplayed `json:"fileReplayed,omitempty"`
}

// Hello opens a session. A second Hello, with another nonce, opens a new session with a new secret:
// so a guest brought back from a saved state gets one that was never used.
type Hello struct {
	Version int       `json:"version"`
	Nonce   string    `json:"nonce"`  // random, per session
	Secret  []byte    `json:"secret"` // proxy/transport.SecretSize bytes; only here, never on the kernel command line
	Time    time.Time `json:"time"`   // the host's clock when this was written, which may be long before it is read
	Config  Config    `json:"config"`
}

// Config is what the guest is to be in this boot.
type Config struct {
	Hostname string `json:"hostname"`
	// Engine is merged over guestd's own daemon.json, key by key; what guestd must own (hosts,
	// containerd, data-root, pidfile, exec-root) is refused by the host's settings before it gets here.
	Engine json.RawMessage `json:"engine,omitempty"`
	// PublishAddress is where a published port is bound that names no address of the host. Empty: everywhere.
	PublishAddress string `json:"publishAddress,omitempty"`
	// Proxy is how the engine reaches the network. Absent: directly.
	Proxy *Proxy `json:"proxy,omitempty"`
	// Trust is whom the engine believes. Absent: the image's own authorities.
	Trust *Trust `json:"trust,omitempty"`
	// Shares are the host's folders that the guest mounts, each at its path on the host.
	Shares []Share `json:"shares,omitempty"`
	// Network is what the guest cannot learn of its network by DHCP; nil where it is not ours.
	Network *Network `json:"network,omitempty"`
	// ShutdownSeconds bounds how long an ordered stop of the engine may take; 0 means guestd's default.
	ShutdownSeconds int `json:"shutdownSeconds,omitempty"`
}

// Network is what the engine has to know of the network outside.
type Network struct {
	MTU         int    `json:"mtu"`         // the largest packet, in bytes
	HostAddress string `json:"hostAddress"` // where containers find the host: host-gateway
}

// SetClock corrects the guest's clock, which never steps back. It is a span, because a time would be over
// when a guest that stood still gets to read it.
type SetClock struct {
	By time.Duration `json:"by"` // ns; negative where the guest's clock is ahead of the host's
}

// Shutdown asks for an ordered stop: containers, engine, file systems, power off.
type Shutdown struct{}

// Sleep says that the machine is about to be saved, or paused. The guest writes all that it holds to its disk, answers
// Asleep, and says nothing more until the next Hello: so no message is cut in two by the save. A Hello in place
// of the save calls it off.
type Sleep struct {
	// Forget has the guest give up what it keeps of files, after it has written all: of a machine that is
	// paused the memory stays with the host.
	Forget bool `json:"forget,omitempty"`
}

// Asleep answers Sleep.
type Asleep struct{}

// Ping asks for a Pong with the same ID: the guest's user space is alive, and its clock shows.
type Ping struct {
	ID uint64 `json:"id"`
}

// Pong answers a Ping.
type Pong struct {
	ID   uint64    `json:"id"`
	Time time.Time `json:"time"` // the guest's clock
}

// Welcome answers Hello with its nonce.
type Welcome struct {
	Version int    `json:"version"`
	Nonce   string `json:"nonce"`
	Kernel  string `json:"kernel"` // uname -r
	Arch    string `json:"arch"`   // GOARCH
}

// Step is one named piece of the boot, told when it ends. Steps may overlap.
type Step struct {
	Name     string        `json:"name"`  // such as "mount data"
	Start    time.Duration `json:"start"` // ns since the kernel started (CLOCK_BOOTTIME)
	Duration time.Duration `json:"duration"`
	Error    string        `json:"error,omitempty"`
}

// Listening says that the transport accepts connections.
type Listening struct {
	Vsock bool `json:"vsock"` // AF_VSOCK on VsockPort
	Mux   bool `json:"mux"`   // a multiplexer on MuxPort
}

// Service is a change in a supervised program of the guest.
type Service struct {
	Name     string `json:"name"`     // "containerd", "dockerd"
	State    string `json:"state"`    // "starting", "running", "backoff", "failed", "stopped"
	Restarts int    `json:"restarts"` // since boot
	Detail   string `json:"detail,omitempty"`
}

// Ready says that the engine answers its API.
type Ready struct {
	EngineVersion string `json:"engineVersion"`
	APIVersion    string `json:"apiVersion"`
}

// Failed says that the guest cannot do its job, and why. The cause is one of the Cause constants.
type Failed struct {
	Cause    string `json:"cause"`
	Detail   string `json:"detail"`             // one sentence
	Evidence string `json:"evidence,omitempty"` // the end of the log that shows it
	Fatal    bool   `json:"fatal"`              // the guest powers off after this
}

// Causes of failure, append-only: hosts map them to remedies.
const (
	CauseProtocol      = "protocol"        // the two sides speak different versions
	CauseDataDisk      = "data-disk"       // missing or cannot be mounted
	CauseDataDiskAlien = "data-disk-alien" // holds something that is not ours: left untouched
	CauseEngineFailed  = "engine-failed"   // containerd or dockerd does not stay up
	CauseEngineConfig  = "engine-config"   // dockerd refuses its daemon.json
	CauseBoot          = "boot"            // any other step
)

// Stopping says that an ordered stop has begun, and why ("host asked", "host is gone", "power button").
type Stopping struct {
	Reason string `json:"reason"`
}

// LogsRequest is the first line (JSON, newline) on a ServiceLogs connection. The answer is the log's
// bytes; with Follow it goes on until either side closes.
type LogsRequest struct {
	Service string `json:"service"` // "guestd", "containerd", "dockerd", "kernel"
	Tail    int    `json:"tail"`    // lines; 0 means all that is kept
	Follow  bool   `json:"follow"`
}

// ShellRequest is the first line (JSON, newline) on a ServiceShell connection. What follows, both
// ways, are shell frames: see WriteShell and ReadShell.
type ShellRequest struct {
	Args []string `json:"args,omitempty"` // empty: a login shell
	TTY  bool     `json:"tty"`
	Term string   `json:"term,omitempty"` // value of TERM
	Rows uint16   `json:"rows,omitempty"`
	Cols uint16   `json:"cols,omitempty"`
}
