package protocol

import (
	"encoding/json"
	"fmt"
)

// Proxy is how the engine reaches registries and what builds fetch. URLs are the guest's view: a proxy on
// the host's loopback has another name there.
type Proxy struct {
	HTTP  SecretURL `json:"http,omitzero"`
	HTTPS SecretURL `json:"https,omitzero"`
	// No lists what is reached directly, in the form of the variable NO_PROXY.
	No string `json:"no,omitempty"`
}

// SecretURL is a URL that may hold a password, so it prints as [secret]. On the wire it is itself.
type SecretURL struct{ url string }

// NewSecretURL keeps a URL.
func NewSecretURL(url string) SecretURL { return SecretURL{url} }

// RevealURL gives the URL with what it holds.
func (s SecretURL) RevealURL() string { return s.url }

func (SecretURL) String() string             { return "[secret]" }
func (SecretURL) GoString() string           { return "[secret]" }
func (SecretURL) Format(f fmt.State, _ rune) { fmt.Fprint(f, "[secret]") }

// IsZero says whether there is none.
func (s SecretURL) IsZero() bool { return s.url == "" }

// MarshalJSON and UnmarshalJSON are for the control port alone.
func (s SecretURL) MarshalJSON() ([]byte, error)     { return json.Marshal(s.url) }
func (s *SecretURL) UnmarshalJSON(text []byte) error { return json.Unmarshal(text, &s.url) }
