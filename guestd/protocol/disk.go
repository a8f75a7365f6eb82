package protocol

// ServiceDisk is the data disk as the guest has it: one DiskRequest (JSON, newline), one DiskAnswer.
const ServiceDisk = "disk"

// DiskRequest asks how the file system on the data disk is, after what is to be done with it.
type DiskRequest struct {
	// Grow waits until the disk has so many bytes, then makes the file system as large as the disk.
	Grow int64 `json:"grow,omitempty"`
	// Trim tells the host which blocks are free.
	Trim bool `json:"trim,omitempty"`
}

// DiskAnswer is how the file system on the data disk is, in bytes.
type DiskAnswer struct {
	Size    int64  `json:"size"`
	Used    int64  `json:"used"`
	Free    int64  `json:"free"`              // for an ordinary user
	Trimmed int64  `json:"trimmed,omitempty"` // what the host was told by a Trim, known to it already or not
	Error   string `json:"error,omitempty"`   // one sentence: why it was not done
}
