// Package transport dials the guest. Every connection opens with a mutual challenge on the secret of
// this boot, because a container can open or squat a port of the link: nothing is said to a peer, and
// nothing is heard from one, that has not shown that it knows the secret. Only the host dials.
package transport

import (
	"crypto/rand"
	"fmt"
)

// SecretSize is the length of a Secret in bytes.
const SecretSize = 32

// Secret authenticates the connections of one boot. It prints as [secret].
type Secret struct{ b [SecretSize]byte }

// NewSecret makes a fresh one.
func NewSecret() Secret {
	var s Secret
	rand.Read(s.b[:]) // never fails: crypto/rand ends the program instead
	return s
}

// SecretFrom takes the bytes of one that was revealed.
func SecretFrom(b []byte) (Secret, error) {
	var s Secret
	if len(b) != SecretSize {
		return s, fmt.Errorf("a secret has %d bytes, not %d", SecretSize, len(b))
	}
	copy(s.b[:], b)
	return s, nil
}

// RevealSecretBytes gives the bytes, for the control port alone.
func (s Secret) RevealSecretBytes() []byte { return append([]byte(nil), s.b[:]...) }

func (Secret) String() string               { return "[secret]" }
func (Secret) GoString() string             { return "[secret]" }
func (Secret) Format(f fmt.State, _ rune)   { fmt.Fprint(f, "[secret]") }
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }
