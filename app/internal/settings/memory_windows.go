package settings

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

// memoryStatus is MEMORYSTATUSEX of sysinfoapi.h.
type memoryStatus struct {
	length, load                                                                        uint32
	totalPhys, availPhys, totalPage, availPage, totalVirtual, availVirtual, availExtend uint64
}

var globalMemoryStatus = windows.NewLazySystemDLL("kernel32.dll").NewProc("GlobalMemoryStatusEx")

// HostMemory is the host's memory in bytes.
func HostMemory() (int64, error) {
	m := memoryStatus{}
	m.length = uint32(unsafe.Sizeof(m))
	if ok, _, err := globalMemoryStatus.Call(uintptr(unsafe.Pointer(&m))); ok == 0 {
		return 0, fmt.Errorf("ask for the host's memory: %w", err)
	}
	return int64(m.totalPhys), nil
}
