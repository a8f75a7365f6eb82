package api

// Memory is how the VM's memory stands, in bytes: Size is Used, Cached, Free and Withheld together.
type Memory struct {
	Size     int64 `json:"size"`     // the VM was started with
	Used     int64 `json:"used"`     // by containers, the engine and the kernel
	Cached   int64 `json:"cached"`   // of files; given up when programs need the room, and when nobody uses them
	Free     int64 `json:"free"`     // of no use to anybody
	Withheld int64 `json:"withheld"` // by the setting memory, since the VM was started with more

	SwapTotal int64 `json:"swapTotal"`
	SwapUsed  int64 `json:"swapUsed"`

	Resident  int64 `json:"resident"`  // of Size, what the host holds for the VM
	GivenBack int64 `json:"givenBack"` // the rest: the host has it for others, given back or never asked for
}
