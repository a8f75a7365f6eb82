package protocol

import (
	"encoding/binary"
	"fmt"
	"io"
)

// ShellKind says what a shell frame carries.
type ShellKind byte

// The kinds of shell frame. Stdin with no bytes ends the input. Resize carries rows and columns as
// two big-endian uint16. Exit carries the exit status as a big-endian int32 and is the last frame;
// a command ended by a signal has status 128 plus its number, one that could not start 127 with the
// reason as a Stderr frame before.
const (
	ShellStdin ShellKind = iota
	ShellStdout
	ShellStderr
	ShellResize
	ShellExit
	ShellSignal // to the guest: one byte, the signal's number on Linux
)

// MaxShellFrame bounds the bytes of one shell frame.
const MaxShellFrame = 64 << 10

// WriteShell sends one frame in one Write; larger data is for the caller to split.
func WriteShell(w io.Writer, kind ShellKind, data []byte) error {
	if len(data) > MaxShellFrame {
		return ErrTooLarge
	}
	frame := make([]byte, 5+len(data))
	frame[0] = byte(kind)
	binary.BigEndian.PutUint32(frame[1:], uint32(len(data)))
	copy(frame[5:], data)
	_, err := w.Write(frame)
	return err
}

// ReadShell reads one frame into buf, which must hold MaxShellFrame bytes, and returns the part filled.
func ReadShell(r io.Reader, buf []byte) (ShellKind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > MaxShellFrame || int(n) > len(buf) {
		return 0, nil, fmt.Errorf("shell frame of %d bytes: %w", n, ErrTooLarge)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		if err == io.EOF && n > 0 {
			err = io.ErrUnexpectedEOF // a head without its body is no end
		}
		return 0, nil, err
	}
	return ShellKind(head[0]), buf[:n], nil
}
