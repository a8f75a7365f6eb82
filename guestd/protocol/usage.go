package protocol

import "time"

// ServiceUsage answers one Usage in JSON and ends: see [Usage]. A look costs the guest some reads of small
// files of its kernel; the engine is not asked.
const ServiceUsage = "usage"

// MaxUsage bounds a Usage in bytes: a host reads no more.
const MaxUsage = 64 << 10

// Usage is what the guest uses at one moment. Sizes are in bytes.
type Usage struct {
	Up time.Duration `json:"up"` // ns since the kernel started, pauses of the machine included

	// Containers run, and so do all their processes' control groups together: ContainersCPU is processor
	// time in ns since the boot, builds included. It can become less only where a control group ends that
	// somebody made beside the engine's.
	Containers    int           `json:"containers"`
	ContainersCPU time.Duration `json:"containersCPU"`
	// ContainersNet was received and sent on the guest's ends of containers' interfaces (veth). It becomes
	// less when a container ends. What containers on the host network move is in ExternalNet only, with
	// what the engine pulls.
	ContainersNet int64 `json:"containersNet"`
	ExternalNet   int64 `json:"externalNet"` // by the network card

	Memory UsageMemory `json:"memory"`
	Disk   UsageDisk   `json:"disk"`
}

// UsageMemory is the guest's memory as its kernel counts it (proc(5), meminfo).
type UsageMemory struct {
	Total     int64 `json:"total"`
	Used      int64 `json:"used"`      // by programs and the kernel: neither free nor cached. What a balloon holds is in it
	Cached    int64 `json:"cached"`    // of files, and what the kernel can give up like it; not what lies in tmpfs
	Free      int64 `json:"free"`      // of no use to anybody
	Available int64 `json:"available"` // that programs can have without swapping

	SwapTotal int64 `json:"swapTotal"`
	SwapUsed  int64 `json:"swapUsed"`
}

// UsageDisk is the data disk's file system.
type UsageDisk struct {
	Total int64 `json:"total"`
	Used  int64 `json:"used"`
}
