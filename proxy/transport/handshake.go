package transport

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/covedesk/cove/proxy"
)

// The handshake, two round trips:
//
//	host  → guest  magic, host nonce
//	guest → host   guest nonce, MAC("guest", both nonces)
//	host  → guest  MAC("host", both nonces, service), length of service, service
//	guest → host   0, or 1 and why the service is refused
//
// The guest proves itself first, so that one who squats the port learns neither what the host wants
// nor anything that the real guest would take; fresh nonces from both sides make a recorded handshake
// worthless.
const (
	magic      = "COVE/2\r\n"
	nonceSize  = 32
	macSize    = sha256.Size
	maxService = 128  // longer than any name we have with its argument, such as an IPv6 address
	maxRefusal = 1024 // bytes of a sentence
)

// ErrNotOurGuest says that the peer does not know this boot's secret.
var ErrNotOurGuest = errors.New("the peer is not our guest: it does not know the secret of this boot")

// ErrNotOurHost is the guest's word for the same.
var ErrNotOurHost = errors.New("the peer is not our host: it does not know the secret of this boot")

// RefusedError says that our guest does not give the service.
type RefusedError struct{ Service, Message string }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the guest refuses %q: %s", e.Service, e.Message)
}

func mac(s Secret, role string, host, guest []byte, service string) []byte {
	h := hmac.New(sha256.New, s.b[:])
	// Lengths are fixed but for the last part, so no two inputs meet.
	io.WriteString(h, magic+role+"\x00")
	h.Write(host)
	h.Write(guest)
	io.WriteString(h, service)
	return h.Sum(nil)
}

// greet is the host's side, up to the guest's answer.
func greet(c proxy.Conn, secret Secret, service string) error {
	if err := prove(c, secret, service); err != nil {
		return err
	}
	return answered(c, service)
}

// prove is the host's side without the guest's answer.
func prove(c proxy.Conn, secret Secret, service string) error {
	if len(service) > maxService {
		return fmt.Errorf("service name of %d bytes: at most %d", len(service), maxService)
	}
	nonce := make([]byte, nonceSize)
	rand.Read(nonce)
	if _, err := c.Write(append([]byte(magic), nonce...)); err != nil {
		return err
	}
	answer := make([]byte, nonceSize+macSize)
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	theirs, proof := answer[:nonceSize], answer[nonceSize:]
	if !hmac.Equal(proof, mac(secret, "guest", nonce, theirs, "")) {
		return ErrNotOurGuest
	}
	ask := append(mac(secret, "host", nonce, theirs, service), byte(len(service)))
	_, err := c.Write(append(ask, service...))
	return err
}

// answered reads the guest's answer to the service that was asked for.
func answered(c io.Reader, service string) error {
	var status [1]byte
	if _, err := io.ReadFull(c, status[:]); err != nil {
		return err
	}
	if status[0] == 0 {
		return nil
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return err
	}
	n := min(int(binary.BigEndian.Uint16(size[:])), maxRefusal)
	why := make([]byte, n)
	if _, err := io.ReadFull(c, why); err != nil {
		return err
	}
	return &RefusedError{Service: service, Message: string(why)}
}

// challenge is the guest's side, up to the host's proof; it returns the service that is asked for.
func challenge(c io.ReadWriter, secret Secret) (string, error) {
	hello := make([]byte, len(magic)+nonceSize)
	if _, err := io.ReadFull(c, hello); err != nil {
		return "", err
	}
	if string(hello[:len(magic)]) != magic {
		return "", ErrNotOurHost
	}
	theirs := hello[len(magic):]
	nonce := make([]byte, nonceSize, nonceSize+macSize)
	rand.Read(nonce)
	if _, err := c.Write(append(nonce, mac(secret, "guest", theirs, nonce, "")...)); err != nil {
		return "", err
	}
	ask := make([]byte, macSize+1)
	if _, err := io.ReadFull(c, ask); err != nil {
		return "", err
	}
	n := int(ask[macSize])
	if n > maxService {
		return "", ErrNotOurHost
	}
	name := make([]byte, n)
	if _, err := io.ReadFull(c, name); err != nil {
		return "", err
	}
	if !hmac.Equal(ask[:macSize], mac(secret, "host", theirs, nonce, string(name))) {
		return "", ErrNotOurHost
	}
	return string(name), nil
}

// refuse tells an authenticated host why it does not get its service.
func refuse(c io.Writer, why string) error {
	why = why[:min(len(why), maxRefusal)]
	b := binary.BigEndian.AppendUint16([]byte{1}, uint16(len(why)))
	_, err := c.Write(append(b, why...))
	return err
}
