package vmhost

// Problem is a failure that has a name, so that callers can tell kinds apart and people can be told
// what to do. Its text is: what happened, why; the remedy stands on its own.
type Problem struct {
	ID       string // one of the constants below; append-only
	Summary  string // what happened and why, a full sentence
	Remedy   string // what to do, a full sentence
	Evidence string // what shows it, such as the end of the hypervisor's output; may be empty
	Err      error  // the cause; may be nil
}

// What can be wrong with a host or with a machine's parts.
const (
	ProblemNoHypervisor   = "no-hypervisor"   // the hypervisor is not installed
	ProblemOldHypervisor  = "old-hypervisor"  // it is, in a version known to corrupt guests or to lack what we need
	ProblemNoAccelerator  = "no-accelerator"  // the accelerator asked for does not work
	ProblemNoMemory       = "no-memory"       // the host has not enough memory for the guest
	ProblemNoDisk         = "no-disk"         // the host's disk is full
	ProblemImage          = "image"           // the guest image is missing or not what its digest says
	ProblemDataDisk       = "data-disk"       // the data disk cannot be used
	ProblemPathTooLong    = "path-too-long"   // a folder's path is too long for a socket
	ProblemBusy           = "busy"            // another process has the machine
	ProblemSaved          = "saved"           // a saved machine cannot be brought back
	ProblemHypervisorExit = "hypervisor-exit" // the hypervisor ended while starting
)

func (p *Problem) Error() string {
	if p.Err != nil {
		return p.Summary + " (" + p.Err.Error() + ")"
	}
	return p.Summary
}

func (p *Problem) Unwrap() error { return p.Err }
