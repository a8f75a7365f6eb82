// Package api holds the wire types of coved's local API: HTTP and JSON over a unix socket (a named pipe
// on Windows), described in docs/api.md. Fields and words are only ever added. Standard library only.
package api

import "time"

// Version is the first part of every path.
const Version = "v1"

// Phase is where the engine is in its life.
//
//	stopped -start-> starting -up-> running -stop-> stopping -down-> stopped
//	starting -stop-> stopping; starting -fail-> failed; running -fail-> failed; running -lost-> starting;
//	failed -start-> starting; failed -stop-> stopped
//	running -suspend-> suspending -saved-> suspended -start-> resuming -up-> running
//	suspending -unsaved-> running; suspending -lost-> starting; resuming -cold-> starting; resuming -stop-> stopping;
//	suspending, resuming -fail-> failed
type Phase string

// The phases.
const (
	Stopped  Phase = "stopped"
	Starting Phase = "starting"
	Running  Phase = "running"
	Stopping Phase = "stopping"
	Failed   Phase = "failed"

	Suspending Phase = "suspending" // being saved
	Suspended  Phase = "suspended"  // saved, containers and all; no VM runs
	Resuming   Phase = "resuming"   // being brought back
)

// Status is how the engine is.
type Status struct {
	Phase   Phase     `json:"phase"`
	Since   time.Time `json:"since"`
	Reason  string    `json:"reason"`            // why it is in this phase
	Stage   string    `json:"stage,omitempty"`   // while starting: what is being done
	Failure *Failure  `json:"failure,omitempty"` // in the phase failed
	Notices []Notice  `json:"notices,omitempty"` // what people should know, the newest last

	Machine   *Machine   `json:"machine,omitempty"`   // while there is one
	Transport *Transport `json:"transport,omitempty"` // once it is chosen
	Engine    *Engine    `json:"engine,omitempty"`    // once it serves
	Services  []Service  `json:"services,omitempty"`  // of the guest
	Timeline  []Step     `json:"timeline,omitempty"`  // of the last start

	// While it is suspended, or being brought back, one of the two.
	Saved  *Saved  `json:"saved,omitempty"`
	Paused *Paused `json:"paused,omitempty"`

	Sockets Sockets `json:"sockets"`
	Context string  `json:"context,omitempty"` // the docker context that leads here
	Disk    *Disk   `json:"disk,omitempty"`
	Daemon  Daemon  `json:"daemon"`
}

// Saved is an engine that was saved.
type Saved struct {
	At    time.Time `json:"at"`
	Bytes int64     `json:"bytes"` // on the host's disk
}

// Paused is an engine whose VM was not saved: it stands still, and its memory stays.
type Paused struct {
	At    time.Time `json:"at"`
	Bytes int64     `json:"bytes"` // of the host's memory that it holds; 0: nobody can say
}

// Failure is why something did not work, for people and for programs.
type Failure struct {
	Cause    string `json:"cause"`              // an id, such as "no-hypervisor"; append-only
	Summary  string `json:"summary"`            // what happened and why
	Remedy   string `json:"remedy,omitempty"`   // what to do
	Evidence string `json:"evidence,omitempty"` // what shows it, such as the console's end
}

// Notice is something that happened and that people should know.
type Notice struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}

// Machine is the VM that runs.
type Machine struct {
	Driver            string `json:"driver"`
	Accelerator       string `json:"accelerator"`
	AcceleratorReason string `json:"acceleratorReason"`
	CPUs              int    `json:"cpus"`
	Memory            int64  `json:"memory"` // bytes
	Kernel            string `json:"kernel,omitempty"`
	Image             string `json:"image"` // digest
}

// Transport is the way to the guest, and what came of those tried before.
type Transport struct {
	Link  string    `json:"link"`
	Tried []Attempt `json:"tried"`
}

// Attempt is one link's self-test.
type Attempt struct {
	Link    string  `json:"link"`
	Error   string  `json:"error,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Engine is what serves docker.sock.
type Engine struct {
	Version    string `json:"version"`
	APIVersion string `json:"apiVersion"`
}

// Service is a supervised program of the guest.
type Service struct {
	Name     string `json:"name"`
	State    string `json:"state"` // "starting", "running", "backoff", "failed", "stopped"
	Restarts int    `json:"restarts"`
	Detail   string `json:"detail,omitempty"`
}

// Step is one piece of a start. Times are seconds since the start was asked for.
type Step struct {
	Where   string  `json:"where"` // "host" or "guest"
	Name    string  `json:"name"`
	Start   float64 `json:"start"`
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"`
}

// Sockets are the paths that clients connect to.
type Sockets struct {
	Docker string `json:"docker"`
	API    string `json:"api"`
}

// Disk is the data disk as the host sees it, in bytes.
type Disk struct {
	Path      string `json:"path"`
	Size      int64  `json:"size"`
	Allocated int64  `json:"allocated"`
}

// DiskUsage is what the data disk holds and takes. Sizes are in bytes.
type DiskUsage struct {
	Disk
	HostFree int64      `json:"hostFree"`         // room for this user on the disk of the host that it lies on
	Guest    *GuestDisk `json:"guest,omitempty"`  // while the engine runs
	Engine   []DiskUse  `json:"engine,omitempty"` // while the engine runs
}

// GuestDisk is the file system on the data disk, in bytes.
type GuestDisk struct {
	Size int64 `json:"size"`
	Used int64 `json:"used"`
	Free int64 `json:"free"`
}

// DiskUse is what the engine keeps of one kind, in bytes as the engine counts them.
type DiskUse struct {
	Kind        string `json:"kind"` // "images", "containers", "volumes", "build-cache"
	Count       int64  `json:"count"`
	Active      int64  `json:"active"` // of them, in use
	Size        int64  `json:"size"`
	Reclaimable int64  `json:"reclaimable"` // what a prune of all that is not in use gives back
}

// Compacted is what POST /v1/disk/compact came to: the disk as it is now, and before.
type Compacted struct {
	Disk
	Before  int64 `json:"before"`  // allocated on the host before, bytes
	Trimmed int64 `json:"trimmed"` // what the guest says is free of the disk, given back before or now
}

// Daemon is coved itself.
type Daemon struct {
	Version string `json:"version"`
	PID     int    `json:"pid"`
	Home    string `json:"home"`
}

// Image is the guest image.
type Image struct {
	Digest     string      `json:"digest"`
	Dir        string      `json:"dir"`
	Arch       string      `json:"arch"`
	Kernel     string      `json:"kernel"`
	Size       int64       `json:"size"`       // bytes of its files
	Compressed int64       `json:"compressed"` // bytes as it is distributed
	Packages   int         `json:"packages"`   // of the distribution
	Components []Component `json:"components"`
}

// Component is a program of the image.
type Component struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Source  string `json:"source"`
	Stands  string `json:"stands,omitempty"` // the release that the version stands for
}

// Event is one line of GET /v1/events.
type Event struct {
	Type   string  `json:"type"`             // "status" or "step"
	Status *Status `json:"status,omitempty"` // once at the start, after the steps so far, and at every change
	Step   *Step   `json:"step,omitempty"`
}

// Error is the body of every answer that is not 2xx.
type Error struct {
	Failure
}

func (e *Error) Error() string {
	if e.Remedy == "" {
		return e.Summary
	}
	return e.Summary + " " + e.Remedy
}

// Causes that the daemon itself gives, beside those of vmhost and of the guest.
const (
	CauseInvalid    = "invalid"     // the request makes no sense
	CauseNotFound   = "not-found"   // no such thing
	CauseForbidden  = "forbidden"   // the caller is a browser or not the user
	CauseStopped    = "stopped"     // the engine was stopped, also while it started
	CauseNotRunning = "not-running" // the engine does not run
	CauseBootSilent = "boot-silent" // the guest said nothing in time
	CauseTransport  = "transport"   // no way to the guest works
	CauseSettings   = "settings"    // a value in the settings, or one that was just given, cannot be used
	CauseNotOffered = "not-offered" // this machine, or its hypervisor, does not do it
	CauseUnsaved    = "unsaved"     // the engine could not be suspended, and goes on
	CauseInternal   = "internal"    // anything else
)

// Measured is what POST /v1/diag/transport answers: the transport alone, without docker.sock.
type Measured struct {
	Link      string  `json:"link"`
	RTTp50    float64 `json:"rttP50"` // seconds, one byte there and back on an open connection
	RTTp99    float64 `json:"rttP99"`
	DialP50   float64 `json:"dialP50"` // seconds, handshake included
	ToGuest   float64 `json:"toGuest"` // bytes a second
	FromGuest float64 `json:"fromGuest"`
	Bytes     int64   `json:"bytes"` // moved each way
}

// Port is a port of the host that leads to a container.
type Port struct {
	Protocol  string     `json:"protocol"` // "tcp" or "udp"
	Address   string     `json:"address"`  // IP:port on the host
	Also      string     `json:"also,omitempty"`
	Target    string     `json:"target"` // IP:port in the VM; empty while the container starts
	Container *Container `json:"container,omitempty"`
	Since     time.Time  `json:"since"`

	Open     int64 `json:"open"`     // connections now; for UDP, clients of the last 90 seconds
	Total    int64 `json:"total"`    // since the port was bound
	BytesIn  int64 `json:"bytesIn"`  // to the container
	BytesOut int64 `json:"bytesOut"` // from it

	Dropped int64  `json:"dropped,omitempty"` // datagrams that there was no room for
	Fault   string `json:"fault,omitempty"`   // why it is not bound now; it is tried again
}

// Container is one that the engine knows.
type Container struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}
