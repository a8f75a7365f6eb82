package ports

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/covedesk/cove/proxy"
)

// Datagrams makes a stream carry datagrams, each after its length as 2 bytes big-endian: a Read is one
// datagram and needs a buffer of 65,535 bytes to take any whole, a Write is one.
func Datagrams(c proxy.Conn) net.Conn {
	return &datagrams{Conn: c, in: bufio.NewReaderSize(c, 16<<10)}
}

type datagrams struct {
	proxy.Conn
	in *bufio.Reader

	mu  sync.Mutex // one datagram is written at a time
	out []byte
}

func (d *datagrams) Read(b []byte) (int, error) {
	var head [2]byte
	if _, err := io.ReadFull(d.in, head[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > len(b) {
		if _, err := d.in.Discard(n); err != nil {
			return 0, err
		}
		return 0, io.ErrShortBuffer
	}
	_, err := io.ReadFull(d.in, b[:n])
	if errors.Is(err, io.EOF) && n > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (d *datagrams) Write(b []byte) (int, error) {
	if len(b) > maxPayload {
		return 0, errors.New("a datagram has at most 65,535 bytes")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.out = append(binary.BigEndian.AppendUint16(d.out[:0], uint16(len(b))), b...)
	if _, err := d.Conn.Write(d.out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// RelayDatagrams carries datagrams both ways until one side ends or the flow is silent for long, then
// closes both.
func RelayDatagrams(a, b net.Conn) {
	var used atomic.Int64
	used.Store(time.Now().UnixNano())
	// Not by deadlines: one in the middle of a datagram would cut it.
	over := make(chan struct{})
	go func() {
		for wait := flowIdle; wait > 0; wait = flowIdle - time.Since(time.Unix(0, used.Load())) {
			select {
			case <-over:
				return
			case <-time.After(wait):
			}
		}
		a.Close()
		b.Close()
	}()
	defer close(over)
	var wg sync.WaitGroup
	carry := func(to, from net.Conn) {
		defer to.Close()
		defer from.Close()
		buf := make([]byte, maxPayload)
		for {
			n, err := from.Read(buf)
			switch {
			case refused(err):
				continue // nobody listens yet; the next datagram may find somebody
			case err != nil:
				return
			}
			used.Store(time.Now().UnixNano())
			if _, err := to.Write(buf[:n]); err != nil && !refused(err) {
				return
			}
		}
	}
	wg.Go(func() { carry(a, b) })
	wg.Go(func() { carry(b, a) })
	wg.Wait()
}
