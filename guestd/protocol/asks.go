package protocol

import (
	"strconv"
	"strings"
)

// ShareTag is the name under which the guest mounts the host's folders (virtiofs). Below its root is a
// folder for each of Config.Shares, named by its index: "0", "1", ….
const ShareTag = "cove"

// StepShares is the boot step that mounts Config.Shares. Its error is for people; the engine starts without
// what it names.
const StepShares = "shares"

// Share is one folder of the host that containers may mount.
type Share struct {
	Path     string `json:"path"` // absolute and clean, the same in the guest
	ReadOnly bool   `json:"readOnly,omitempty"`
	// Names are other paths by which the host knows the folder (a link leads there); the same in the guest.
	Names []string `json:"names,omitempty"`
}

// Ask is what the guest wants of the host. It has an ID of its own, and the Answer has the same; answers
// come in any order. Exactly one of the other fields is set.
type Ask struct {
	ID      uint64   `json:"id"`
	Held    *Held    `json:"held,omitempty"`
	Bind    *Bind    `json:"bind,omitempty"`
	Release *Release `json:"release,omitempty"`
	Open    *Open    `json:"open,omitempty"`
}

// Answer is the host's answer. Without an Error it did what was asked.
type Answer struct {
	ID    uint64    `json:"id"`
	Error *AskError `json:"error,omitempty"`
}

// AskError is why the host did not do it. The guest's engine turns kinds into errno.
type AskError struct {
	Kind string `json:"kind"` // one of the Ask constants
	Text string `json:"text"` // a sentence for people, with the address in it
}

func (e *AskError) Error() string { return e.Text }

// Kinds of AskError, append-only.
const (
	AskInUse      = "in-use"      // somebody else has the address: EADDRINUSE
	AskNoAddress  = "no-address"  // the host has no such address: EADDRNOTAVAIL
	AskDenied     = "denied"      // the host's system does not allow it: EACCES
	AskNotOffered = "not-offered" // the host does not do that
	AskFailed     = "failed"      // anything else
)

// Held opens a session of asks: these bindings are wanted and no others. The host lets go of what is not
// in the list and makes what is missing; the Answer has the error of those that failed. A long list comes
// in pieces of MaxHeld, each after the other's Answer, all but the last with More.
type Held struct {
	Binds []Bind `json:"binds"`
	More  bool   `json:"more,omitempty"`
}

// MaxHeld is how many bindings one Held names: a message of them stays well below MaxMessage.
const MaxHeld = 500

// Bind asks for a listener on an address of the host, whose traffic the host carries to Target by
// ServiceConnect. When the Answer comes the host listens.
type Bind struct {
	Key      string `json:"key"`      // the guest's name for it, to release it by
	Protocol string `json:"protocol"` // "tcp" or "udp"
	Address  string `json:"address"`  // IP:port on the host; the unspecified IP means every address
	Target   string `json:"target"`   // IP:port in the guest's network
	// Container is the container's id where the guest knows it, for people.
	Container string `json:"container,omitempty"`
	// HostNetwork says that nobody waits for it: a container on the host network listens by itself, and
	// what the host cannot give it is for people to know, not for the engine.
	HostNetwork bool `json:"hostNetwork,omitempty"`
}

// Release lets go of a listener and of its connections. When the Answer comes the port is free. An
// unknown key is no error.
type Release struct {
	Key string `json:"key"`
}

// Open asks the host to dial ServiceCallback for a connection to one of its own services.
type Open struct {
	Service string `json:"service"` // such as HostServiceSSHAgent
	Call    uint64 `json:"call"`    // names the connection that waits in the guest
}

// HostServiceSSHAgent is the user's ssh agent.
const HostServiceSSHAgent = "ssh-agent"

// A service's name may be followed by an argument after a slash: see proxy/transport.

// ConnectService names a connection out of the guest's own network to an IP:port there. For "tcp" it
// carries the bytes, with half-close both ways; for "udp" it is one flow: datagrams both ways, each after
// its length as 2 bytes big-endian. The guest refuses what it cannot connect to.
func ConnectService(network, address string) string {
	return ServiceConnect + "/" + network + "/" + address
}

// ParseConnect takes the argument of ConnectService apart.
func ParseConnect(argument string) (network, address string) {
	network, address, _ = strings.Cut(argument, "/")
	return network, address
}

// CallbackService names the host's side of an Open: what follows are the bytes of the host's service and
// of who waits for it in the guest.
func CallbackService(call uint64) string {
	return ServiceCallback + "/" + strconv.FormatUint(call, 10)
}

// ParseCallback takes the argument of CallbackService apart.
func ParseCallback(argument string) (call uint64, err error) {
	return strconv.ParseUint(argument, 10, 64)
}
