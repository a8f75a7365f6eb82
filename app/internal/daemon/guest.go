package daemon

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/internal/localapi"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
)

func nonce() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Shell dials the guest's shell service: see localapi.Core.
func (d *Daemon) Shell(ctx context.Context) (localapi.Joiner, error) {
	v, err := d.current(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := v.Dial(ctx, protocol.ServiceShell)
	if err != nil {
		return nil, err
	}
	return &joiner{conn, d.uses.begin()}, nil
}

// joiner is a connection to the guest that waits for its other side.
type joiner struct {
	proxy.Conn
	unused func() // the engine, by this one
}

// Close ends it.
func (j *joiner) Close() error {
	j.unused()
	return j.Conn.Close()
}

// Join carries bytes both ways until both ended.
func (j *joiner) Join(client net.Conn, ahead io.Reader) error {
	c, ok := client.(proxy.Conn)
	if !ok {
		return fmt.Errorf("a %T cannot be half-closed", client)
	}
	if _, err := io.Copy(struct{ io.Writer }{j.Conn}, ahead); err != nil {
		return err
	}
	return proxy.Join(c, j.Conn, nil)
}

// roundTrips is how many a measurement takes.
const roundTrips = 300

// Measure times the transport alone: see localapi.Core.
func (d *Daemon) Measure(ctx context.Context, size int64) (api.Measured, error) {
	v, err := d.current(ctx)
	if err != nil {
		return api.Measured{}, err
	}
	v.mu.Lock()
	client := v.client
	v.mu.Unlock()
	if client == nil {
		return api.Measured{}, errResting
	}
	m := api.Measured{Link: client.Link(), Bytes: size}
	trips, err := measureTrips(ctx, v)
	if err != nil {
		return m, err
	}
	m.RTTp50, m.RTTp99 = trips[len(trips)/2].Seconds(), trips[len(trips)*99/100].Seconds()
	var dials []time.Duration
	for range 50 {
		begun := time.Now()
		conn, err := v.Dial(ctx, protocol.ServiceEcho)
		if err != nil {
			return m, err
		}
		dials = append(dials, time.Since(begun))
		conn.Close()
	}
	slices.Sort(dials)
	m.DialP50 = dials[len(dials)/2].Seconds()
	if m.ToGuest, err = measureTo(ctx, v, size); err != nil {
		return m, err
	}
	m.FromGuest, err = measureFrom(ctx, v, size)
	return m, err
}

func measureTrips(ctx context.Context, d proxy.Dialer) ([]time.Duration, error) {
	conn, err := d.Dial(ctx, protocol.ServiceEcho)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var out []time.Duration
	b := make([]byte, 1)
	for range roundTrips {
		begun := time.Now()
		if _, err := conn.Write(b); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(conn, b); err != nil {
			return nil, err
		}
		out = append(out, time.Since(begun))
	}
	slices.Sort(out)
	return out, nil
}

// piece is what a measurement writes at once: what proxy.Join writes in bulk.
const piece = 128 << 10

func measureTo(ctx context.Context, d proxy.Dialer, size int64) (float64, error) {
	conn, err := d.Dial(ctx, protocol.ServiceSink)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	b := make([]byte, piece)
	begun := time.Now()
	for left := size; left > 0; left -= min(left, piece) {
		if _, err := conn.Write(b[:min(left, piece)]); err != nil {
			return 0, err
		}
	}
	if err := conn.CloseWrite(); err != nil {
		return 0, err
	}
	var count [8]byte
	if _, err := io.ReadFull(conn, count[:]); err != nil {
		return 0, err
	}
	if got := binary.BigEndian.Uint64(count[:]); got != uint64(size) {
		return 0, fmt.Errorf("the guest got %d of %d bytes", got, size)
	}
	return float64(size) / time.Since(begun).Seconds(), nil
}

func measureFrom(ctx context.Context, d proxy.Dialer, size int64) (float64, error) {
	conn, err := d.Dial(ctx, protocol.ServiceSource)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	begun := time.Now()
	if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, uint64(size))); err != nil {
		return 0, err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, make([]byte, piece))
	if err != nil || n != size {
		return 0, fmt.Errorf("the guest sent %d of %d bytes: %w", n, size, err)
	}
	return float64(size) / time.Since(begun).Seconds(), nil
}
