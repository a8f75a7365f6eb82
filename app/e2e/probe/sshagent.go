//go:build linux

package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// Messages of the agent's protocol (draft-miller-ssh-agent, sections 4.4 and 7.1).
const (
	agentRequestIdentities = 11
	agentIdentitiesAnswer  = 12
)

// sshAgent prints the keys that the agent at a socket holds, each in base64.
func sshAgent(socket string) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		fail(err.Error())
	}
	c.SetDeadline(time.Now().Add(time.Minute))
	// Who has no agent hangs up at once: the write may find that out already.
	if _, err := c.Write([]byte{0, 0, 0, 1, agentRequestIdentities}); err != nil {
		fail("the agent does not answer: " + err.Error())
	}
	// No half-close yet: OpenSSH's agent hangs up on it, answer or not.
	size := make([]byte, 4)
	if _, err := io.ReadFull(c, size); err != nil {
		fail("the agent does not answer: " + err.Error())
	}
	answer := make([]byte, min(binary.BigEndian.Uint32(size), 1<<20))
	if _, err := io.ReadFull(c, answer); err != nil {
		fail("the agent's answer is cut off: " + err.Error())
	}
	if len(answer) < 5 || answer[0] != agentIdentitiesAnswer {
		fail(fmt.Sprintf("the agent answers %q", answer))
	}
	rest := answer[5:]
	for range binary.BigEndian.Uint32(answer[1:]) {
		var key []byte
		key, rest = sshString(rest)
		_, rest = sshString(rest) // its comment
		fmt.Println(base64.StdEncoding.EncodeToString(key))
	}
}

// sshString takes a length and so many bytes off.
func sshString(b []byte) (text, rest []byte) {
	if len(b) < 4 || uint32(len(b)-4) < binary.BigEndian.Uint32(b) {
		fail("the agent's answer is cut off")
	}
	n := 4 + binary.BigEndian.Uint32(b)
	return b[4:n], b[n:]
}
