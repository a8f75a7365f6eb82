package protocol

import (
	"bufio"
	"bytes"
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
type Reader struct {
	r     *bufio.Reader
	again []byte // read already, and to be read again
}

// NewReader returns a Reader on r.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 16<<10)} }

// Read returns the next message. Bytes that belong to no frame are skipped; so is a frame whose body
// is not a message, and one that was cut off: the frame after it is read. A frame over MaxMessage is
// ErrTooLarge, and the session should end. Errors of the stream are returned as they are; io.EOF
// between frames is io.EOF.
func (r *Reader) Read() (Message, error) {
	for {
		if err := r.sync(); err != nil {
			return Message{}, err
		}
		taken, whole, err := r.frame()
		if err != nil {
			return Message{}, err
		}
		var m Message
		if whole && json.Unmarshal(taken[4:], &m) == nil {
			return m, nil
		}
		r.again = append(taken, r.again...) // it may hold the next frame
	}
}

// sync reads past the next magic.
func (r *Reader) sync() error {
	for matched := 0; matched < len(magic); {
		b, err := r.readByte()
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

// frame reads length and body. A frame that was cut off is not whole: no JSON has a zero byte, and
// every frame begins with one.
func (r *Reader) frame() (taken []byte, whole bool, err error) {
	taken = make([]byte, 0, 512) // grows with what comes, not with what is announced
	for want := 4; len(taken) < want; {
		b, err := r.readByte()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, false, err
		}
		taken = append(taken, b)
		switch {
		case len(taken) > 4 && b == magic[0]:
			return taken, false, nil
		case len(taken) == 4:
			n := binary.BigEndian.Uint32(taken)
			if n > MaxMessage && bytes.Contains(taken, []byte(magic[:2])) {
				return taken, false, nil // no length: cut off right after its magic
			}
			if n > MaxMessage {
				return nil, false, ErrTooLarge
			}
			want += int(n)
		}
	}
	return taken, true, nil
}

func (r *Reader) readByte() (byte, error) {
	if len(r.again) > 0 {
		b := r.again[0]
		r.again = r.again[1:]
		return b, nil
	}
	return r.r.ReadByte()
}
