package protocol

// ServiceSwap changes the guest's swap: a SwapRequest in one line of JSON, answered by a SwapAnswer in
// another.
const ServiceSwap = "swap"

// SwapRequest is how much swap the guest is to have: a file on its data disk. The same size changes nothing.
type SwapRequest struct {
	Size int64 `json:"size"` // bytes; 0: none
}

// SwapAnswer says what came of it.
type SwapAnswer struct {
	Error string `json:"error,omitempty"` // why it is not so; one sentence without its full stop
}
