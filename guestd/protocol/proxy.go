package protocol

// Proxy is how the engine reaches registries and what builds fetch. URLs are the guest's view: a proxy on
// the host's loopback has another name there.
type Proxy struct {
	HTTP  Secret `json:"http,omitzero"`
	HTTPS Secret `json:"https,omitzero"`
	// No lists what is reached directly, in the form of the variable NO_PROXY.
	No string `json:"no,omitempty"`
}
