package protocol

// ServiceFileEvents carries changes that the host made below its shares: first the guest's FileReplayer,
// then the host's FileEvents, each answered by a FileReplayed when all of them were replayed. One
// connection at a time.
//
// The guest replays a change by doing it again in its own kernel, whose caches and watchers then know. The
// host recognises the requests that come of it by the thread that does it, and lets them change nothing.
const ServiceFileEvents = "file-events"

// FileReplayer is the thread that replays.
type FileReplayer struct {
	Thread uint32 `json:"thread"` // its id in the guest's first pid namespace
}

// FileEvents are changes in the order in which they happened.
type FileEvents struct {
	// Forget: these come late, so the kernel is first to forget all that it knows of files and does not use.
	Forget bool        `json:"forget,omitempty"`
	Events []FileEvent `json:"events"`
}

// MaxFileEvents is how many changes one FileEvents has: a message of them stays below MaxMessage.
const MaxFileEvents = 32

// MaxFileEventPath bounds the path of a folder in a FileEvent.
const MaxFileEventPath = 3000

// FileEvent is one change. Names are bytes: they need not be UTF-8. Before it replays one, the guest looks
// the name "Seq" (decimal) up in ReplayFolder of the file system of the shares.
type FileEvent struct {
	Seq    uint64 `json:"seq"`
	Op     string `json:"op"`               // one of the File constants
	Kind   uint32 `json:"kind"`             // S_IFMT bits of what it is about
	Dir    []byte `json:"dir"`              // path below the root of the shares; empty: ReplayFolder
	Name   []byte `json:"name"`             // in Dir; empty for Dir itself
	ToDir  []byte `json:"toDir,omitempty"`  // of FileRenamed; empty: ReplayFolder
	ToName []byte `json:"toName,omitempty"` // of FileRenamed
}

// Operations of FileEvent.
const (
	FileCreated    = "created"
	FileDeleted    = "deleted"
	FileRenamed    = "renamed"
	FileModified   = "modified"
	FileWritten    = "written" // closed by somebody who had it open for writing
	FileAttributes = "attributes"
	FileLooked     = "looked" // no change: the kernel is to ask what it knows of the file, and tells nobody
)

// ReplayFolder is a folder in the root of the shares that only the replayer finds.
const ReplayFolder = ".cove-replay"

// FileReplayed answers FileEvents.
type FileReplayed struct {
	Seq uint64 `json:"seq"` // of the last one
}
