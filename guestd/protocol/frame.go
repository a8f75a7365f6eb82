package protocol

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// MaxMessage bounds one message in bytes. The largest we send is a Failed with 64 KiB of log, or a
// Hello with a user's daemon.json; this is 8 times that.
const MaxMessage = 512 << 10

// magic starts every frame. A reader drops bytes until it meets one, so that the rest of an older
// session (a daemon that died in the middle of a frame) costs nothing.
const magic = "\x00CVE"

// ErrTooLarge is returned for a frame over MaxMessage.
var ErrTooLarge = errors.New("control message is too large")

// Writer writes messages, each whole, from any goroutine.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter returns a Writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write sends one message.
func (w *Writer) Write(m Message) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode control message: %w", err)
	}
	if len(body) > MaxMessage {
		return ErrTooLarge
	}
	frame := make([]byte, 0, len(magic)+4+len(body))
	frame = append(frame, magic...)
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(body)))
	frame = append(frame, body...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.w.Write(frame); err != nil {
		return fmt.Errorf("send control message: %w", err)
	}
	return nil
}

// Reader reads messages. It is for one goroutine.
type Reader struct{ r *bufio.Reader }

// NewReader returns a Reader on r.
func NewReader(r io.Reader) *Reader { return &Reader{bufio.NewReaderSize(r, 16<<10)} }

// Read returns the next message. Bytes that belong to no frame are skipped; so is a frame whose body
// is not a message. A frame over MaxMessage is ErrTooLarge, and the session should end. Errors of
// the stream are returned as they are; io.EOF between frames is io.EOF.
func (r *Reader) Read() (Message, error) {
	for {
		if err := r.sync(); err != nil {
			return Message{}, err
		}
		var size [4]byte
		if _, err := io.ReadFull(r.r, size[:]); err != nil {
			return Message{}, err
		}
		n := binary.BigEndian.Uint32(size[:])
		if n > MaxMessage {
			return Message{}, ErrTooLarge
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(r.r, body); err != nil {
			return Message{}, err
		}
		var m Message
		if err := json.Unmarshal(body, &m); err != nil {
			continue
		}
		return m, nil
	}
}

// sync reads past the next magic.
func (r *Reader) sync() error {
	for matched := 0; matched < len(magic); {
		b, err := r.r.ReadByte()
		if err != nil {
			return err
		}
		switch b {
		case magic[matched]:
			matched++
		case magic[0]:
			matched = 1
		default:
			matched = 0
		}
	}
	return nil
}
