package protocol

// Trust is whom the engine believes beyond the image's own authorities, and what it shows of itself to
// registries. The guest keeps it in memory: a key of it is on no disk.
type Trust struct {
	// Authorities are the certificates (PEM) that count everywhere, as the image's own do.
	Authorities string     `json:"authorities,omitempty"`
	Registries  []Registry `json:"registries,omitempty"`
}

// MaxTrust bounds the certificates and keys of a Trust, in bytes of PEM: about 150 authorities. A Hello has
// to hold them, with all else of it, in MaxMessage.
const MaxTrust = 256 << 10

// Registry is how the engine treats one registry, or one mirror of a registry.
type Registry struct {
	Host string `json:"host"` // as in the names of images: host or host:port
	// Authorities are certificates (PEM) that count for this registry, beyond those of all.
	Authorities string       `json:"authorities,omitempty"`
	Clients     []ClientPair `json:"clients,omitempty"`
	// Mirrors are URLs that are asked before it, in this order.
	Mirrors []string `json:"mirrors,omitempty"`
	// Insecure says that its certificate is not checked, and that it may speak http.
	Insecure bool `json:"insecure,omitempty"`
}

// ClientPair is a client's certificate and its key, both PEM.
type ClientPair struct {
	Certificate string `json:"certificate"`
	Key         Secret `json:"key"`
}
