package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Counters counts the bytes of joined streams as they pass. The zero value is ready.
type Counters struct {
	AtoB, BtoA atomic.Int64 // bytes
}

// A relay reads into a small buffer of its own and borrows a large one only while bytes come fast
// enough to fill the small one: a thousand idle connections cost 4 KiB a direction, a bulk copy few calls.
const (
	smallBuffer = 4 << 10
	largeBuffer = 128 << 10
)

var largeBuffers = sync.Pool{New: func() any { b := make([]byte, largeBuffer); return &b }}

// Join carries bytes between a and b until both directions have ended, then closes both.
// The end of one direction is passed on as a half-close while the other goes on. A failed
// direction takes the other down with it, since what the peer would still say can no longer be
// answered; the first such error is returned. A plain end on both sides returns nil. A side whose
// stream was cut is reset where it can be (TCP), so that half an answer does not look like a whole one.
// Counters may be nil.
func Join(a, b Conn, n *Counters) error {
	if n == nil {
		n = new(Counters)
	}
	var wg, drains sync.WaitGroup
	var ab, ba error
	var toA, toB atomic.Bool // it was given all
	abort := func(err error) {
		if err != nil {
			end(a, toA.Load())
			end(b, toB.Load())
		}
	}
	wg.Go(func() { ab = pipe(b, a, &n.AtoB, &toB, &drains); abort(ab) })
	wg.Go(func() { ba = pipe(a, b, &n.BtoA, &toA, &drains); abort(ba) })
	wg.Wait()
	a.Close()
	b.Close()
	drains.Wait()
	if ab != nil && !errors.Is(ab, net.ErrClosed) {
		return ab
	}
	if ba != nil && !errors.Is(ba, net.ErrClosed) {
		return ba
	}
	return nil
}

// end closes a side, with a reset when it was not given all.
func end(c Conn, whole bool) {
	if l, is := c.(interface{ SetLinger(seconds int) error }); is && !whole {
		l.SetLinger(0)
	}
	c.Close()
}

// pipe copies src to dst and ends dst's direction when src ends: whole is set then. What is thrown away after that runs in
// drains, until src is closed.
func pipe(dst, src Conn, n *atomic.Int64, whole *atomic.Bool, drains *sync.WaitGroup) error {
	small := make([]byte, smallBuffer)
	buf := small
	var large *[]byte
	defer func() {
		if large != nil {
			largeBuffers.Put(large)
		}
	}()
	for {
		m, err := src.Read(buf)
		if m > 0 {
			if _, werr := dst.Write(buf[:m]); werr != nil {
				// Nobody reads this direction any more. The source is told, so that it stops sending;
				// the other direction may still carry an answer.
				src.CloseRead()
				// A writer that waits for room in a unix socket does not wake up by that on Linux, but when
				// what it wrote is taken.
				drains.Go(func() { io.Copy(io.Discard, struct{ io.Reader }{src}) })
				if gone(werr) {
					return nil
				}
				return werr
			}
			n.Add(int64(m))
		}
		switch {
		case err == io.EOF:
			whole.Store(true)
			if err := dst.CloseWrite(); err != nil && !gone(err) {
				return err
			}
			return nil
		case err != nil:
			return err
		case m == smallBuffer && large == nil:
			large = largeBuffers.Get().(*[]byte)
			buf = *large
		case m < smallBuffer && large != nil:
			largeBuffers.Put(large)
			large, buf = nil, small
		}
	}
}
