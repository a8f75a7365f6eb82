//go:build linux

package guest

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
	"golang.org/x/sys/unix"
)

// echo sends back what it gets and ends its side when the caller has: the self-test of half-close.
func echo(c proxy.Conn) {
	io.Copy(c, struct{ io.Reader }{c})
	c.CloseWrite()
}

// sink counts what it gets, for measurements.
func sink(c proxy.Conn) {
	n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
	c.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
	c.CloseWrite()
}

// source sends as many bytes as it is asked for, for measurements.
func source(c proxy.Conn) {
	var want [8]byte
	if _, err := io.ReadFull(c, want[:]); err != nil {
		return
	}
	piece := make([]byte, 256<<10)
	for n := binary.BigEndian.Uint64(want[:]); n > 0; {
		m := min(n, uint64(len(piece)))
		if _, err := c.Write(piece[:m]); err != nil {
			return
		}
		n -= m
	}
	c.CloseWrite()
}

// serveLogs sends a log's end and, if asked, what comes.
func (g *Guest) serveLogs(c proxy.Conn) {
	line, err := bufio.NewReaderSize(c, 4096).ReadSlice('\n')
	if err != nil {
		return
	}
	var req protocol.LogsRequest
	if json.Unmarshal(line, &req) != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // the caller's end ends the following
		io.Copy(io.Discard, struct{ io.Reader }{c})
		cancel()
	}()
	defer c.CloseWrite()
	if req.Service == "kernel" {
		kernelLog(ctx, c, req)
		return
	}
	if l := g.logs[req.Service]; l != nil {
		l.Copy(ctx, c, req.Tail, req.Follow)
	}
}

// kernelLog reads the kernel's own ring: Documentation/ABI/testing/dev-kmsg.
func kernelLog(ctx context.Context, w io.Writer, req protocol.LogsRequest) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), "kmsg")
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var kept [][]byte
	following := false
	buf := make([]byte, 8<<10)
	for {
		if !following {
			f.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // what is there comes at once
		}
		n, err := f.Read(buf)
		switch {
		case errors.Is(err, unix.EPIPE): // overwritten while we read: go on with the next
			continue
		case err != nil && following || ctx.Err() != nil:
			return
		case err != nil:
			if req.Tail > 0 && len(kept) > req.Tail {
				kept = kept[len(kept)-req.Tail:]
			}
			for _, l := range kept {
				if _, err := w.Write(l); err != nil {
					return
				}
			}
			if !req.Follow {
				return
			}
			following = true
			f.SetReadDeadline(time.Time{})
			continue
		}
		l := append([]byte(nil), kernelLine(buf[:n])...)
		if following {
			if _, err := w.Write(l); err != nil {
				return
			}
			continue
		}
		kept = append(kept, l)
	}
}

// kernelLine turns "6,1234,5678901,-;text" into "[5.678901] text".
func kernelLine(b []byte) []byte {
	var head, text []byte
	for i, c := range b {
		if c == ';' {
			head, text = b[:i], b[i+1:]
			break
		}
	}
	fields := 0
	var micros int64
	for _, c := range head {
		switch {
		case c == ',':
			fields++
		case fields == 2 && c >= '0' && c <= '9':
			micros = micros*10 + int64(c-'0')
		}
	}
	return append([]byte("["+(time.Duration(micros)*time.Microsecond).String()+"] "), text...)
}

// serial is a virtio-serial port as a byte pipe. A read gives nothing while the host is away, which is
// no end.
type serial struct{ *os.File }

func newSerial(f *os.File) io.ReadWriteCloser { return serial{f} }

func (s serial) Read(b []byte) (int, error) {
	for {
		n, err := s.File.Read(b)
		if n == 0 && errors.Is(err, io.EOF) {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		return n, err
	}
}

var _ transport.Handler = echo
