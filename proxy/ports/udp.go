package ports

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/covedesk/cove/proxy"
)

// Bounds of a port of datagrams. There is no end to a flow but silence.
const (
	flowIdle   = 90 * time.Second // the engine's own proxy waits as long
	maxFlows   = 2048             // the oldest idle one goes for a new one
	flowQueue  = 64               // datagrams that wait for a flow that is being dialled or is slow; then they are lost
	maxPayload = 65535            // of UDP, and more than IP lets through

	// socketBuffer is what the kernel is asked to keep for us while we are busy: a burst of maxEarlyBytes.
	// It gives what it allows.
	socketBuffer = maxEarlyBytes

	// What waits for a guest that sleeps: the first of a port's datagrams, whoever sent them. Of those who
	// may not wake it a quarter waits beside them.
	maxEarly      = 256
	maxEarlyBytes = 1 << 20
)

// UDP is how datagrams are served. The counters may be nil.
type UDP struct {
	// Dial opens the way to the target for a client. A Read of it is one datagram, and so is a Write.
	Dial                 func(ctx context.Context, client netip.AddrPort) (net.Conn, error)
	Open, Total, Dropped *atomic.Int64
	Bytes                *proxy.Counters // A is the client's side

	// asleep says for a client whether flows have to wait, and whether he may end that. It may be nil.
	asleep func(client netip.AddrPort) (waits, stray bool)
}

// room is what may wait yet.
type room struct{ datagrams, bytes int }

func (r *room) has(payload []byte) bool { return r.datagrams > 0 && r.bytes >= len(payload) }

// datagram is one that waits in its flow's queue.
type datagram struct {
	payload []byte
	in      *room // where it counts; nil: in its flow
}

// flow is what one client and the target say to each other.
type flow struct {
	client netip.AddrPort
	reply  []byte       // ancillary data that makes a reply come from the address that the client sent to
	used   atomic.Int64 // unix nanoseconds
	end    context.CancelFunc
	more   chan struct{} // has one when something was put in the queue

	// Guarded by the server's lock.
	open  bool // it has been dialled
	queue []datagram
	late  int // how many of them are in no room
}

// ServeUDP relays datagrams until the socket is closed or the context ends, and returns when nothing
// runs any more. Replies go out from the address that the client sent to.
func ServeUDP(ctx context.Context, socket *net.UDPConn, u UDP) {
	if u.Open == nil {
		u.Open, u.Total, u.Dropped, u.Bytes = new(atomic.Int64), new(atomic.Int64), new(atomic.Int64), new(proxy.Counters)
	}
	if u.asleep == nil {
		u.asleep = func(netip.AddrPort) (bool, bool) { return false, false }
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &udpServer{UDP: u, socket: socket, flows: map[netip.AddrPort]*flow{},
		early: room{maxEarly, maxEarlyBytes}, strays: room{maxEarly / 4, maxEarlyBytes / 4}}
	defer s.wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { socket.Close() })
	defer stop()
	s.told = wantDestination(socket)
	socket.SetReadBuffer(socketBuffer)
	wantOverflow(socket)
	var lost uint32
	buf, oob := make([]byte, maxPayload), make([]byte, 128)
	for {
		n, m, _, from, err := socket.ReadMsgUDPAddrPort(buf, oob)
		switch {
		case errors.Is(err, net.ErrClosed) || ctx.Err() != nil:
			return
		case err != nil:
			runtime.Gosched() // an earlier reply's refusal comes as an error of this socket
			continue
		}
		if now, is := overflow(oob[:m]); is {
			s.Dropped.Add(int64(now - lost))
			lost = now
		}
		s.take(ctx, from, append([]byte(nil), buf[:n]...), oob[:m])
	}
}

type udpServer struct {
	UDP
	socket *net.UDPConn
	told   bool // the kernel says where a datagram was sent to
	wg     sync.WaitGroup

	mu            sync.Mutex
	flows         map[netip.AddrPort]*flow
	early, strays room // for what comes before its flow is open
}

// take gives a datagram to its client's flow, which is made when there is none.
func (s *udpServer) take(ctx context.Context, from netip.AddrPort, payload, oob []byte) {
	waits, stray := s.asleep(from)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flows[from]
	d := datagram{payload: payload}
	switch {
	case waits && stray:
		d.in = &s.strays
	case waits || f == nil || !f.open:
		d.in = &s.early
	}
	if d.in != nil && !d.in.has(payload) {
		if waits {
			s.Dropped.Add(1)
			return
		}
		d.in = nil
	}
	if f != nil && d.in == nil && f.late >= flowQueue { // as a full socket buffer does
		s.Dropped.Add(1)
		return
	}
	if f == nil {
		var reply []byte
		if s.told {
			reply = replyFrom(oob)
		}
		f = s.openLocked(ctx, from, reply)
	}
	f.used.Store(time.Now().UnixNano())
	f.queue = append(f.queue, d)
	if d.in != nil {
		d.in.datagrams--
		d.in.bytes -= len(payload)
	} else {
		f.late++
	}
	f.tell()
}

// tell says that something was put in the queue.
func (f *flow) tell() {
	select {
	case f.more <- struct{}{}:
	default: // it knows
	}
}

func (s *udpServer) openLocked(ctx context.Context, from netip.AddrPort, reply []byte) *flow {
	if len(s.flows) >= maxFlows {
		s.evictLocked()
	}
	f := &flow{client: from, reply: reply, more: make(chan struct{}, 1)}
	f.used.Store(time.Now().UnixNano())
	var flowing context.Context
	flowing, f.end = context.WithCancel(ctx)
	s.flows[from] = f
	s.Total.Add(1)
	s.Open.Add(1)
	s.wg.Go(func() { s.run(ctx, flowing, f) })
	return f
}

// next takes the first of a flow's queue.
func (s *udpServer) next(f *flow) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nextLocked(f)
}

func (s *udpServer) nextLocked(f *flow) ([]byte, bool) {
	if len(f.queue) == 0 {
		f.queue = nil
		return nil, false
	}
	d := f.queue[0]
	f.queue[0] = datagram{}
	f.queue = f.queue[1:]
	if d.in != nil {
		d.in.datagrams++
		d.in.bytes += len(d.payload)
	} else {
		f.late--
	}
	return d.payload, true
}

func (s *udpServer) evictLocked() {
	var oldest *flow
	for _, f := range s.flows {
		if oldest == nil || f.used.Load() < oldest.used.Load() {
			oldest = f
		}
	}
	delete(s.flows, oldest.client)
	oldest.end()
}

// run is a flow's life. What it has not passed on when its way ends under it goes to another.
func (s *udpServer) run(ctx, flowing context.Context, f *flow) {
	cut := s.carry(flowing, f)
	f.end()
	s.Open.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flows[f.client] == f {
		delete(s.flows, f.client)
		if cut && len(f.queue) > 0 {
			next := s.openLocked(ctx, f.client, f.reply)
			next.queue, next.late, f.queue = f.queue, f.late, nil
			next.tell()
		}
	}
	for _, is := s.nextLocked(f); is; _, is = s.nextLocked(f) {
		s.Dropped.Add(1)
	}
}

// carry carries a flow until it was silent for long, its target is gone, or it is ended. It says whether
// the way to the target ended.
func (s *udpServer) carry(ctx context.Context, f *flow) (cut bool) {
	target, err := s.Dial(ctx, f.client)
	if err != nil {
		return false
	}
	s.mu.Lock()
	f.open = true
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { target.Close() })
	defer stop()
	replies := make(chan struct{})
	go func() {
		defer close(replies)
		s.replies(f, target)
	}()
	defer func() { target.Close(); <-replies }()
	idle := time.NewTimer(flowIdle)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-replies:
			return ctx.Err() == nil
		case <-f.more:
			for d, is := s.next(f); is; d, is = s.next(f) {
				if _, err := target.Write(d); err != nil && !refused(err) {
					s.Dropped.Add(1)
					return ctx.Err() == nil
				}
				s.Bytes.AtoB.Add(int64(len(d)))
			}
		case <-idle.C:
			left := flowIdle - time.Since(time.Unix(0, f.used.Load()))
			if left <= 0 {
				return false
			}
			idle.Reset(left)
		}
	}
}

func (s *udpServer) replies(f *flow, target net.Conn) {
	buf := make([]byte, maxPayload)
	for {
		n, err := target.Read(buf)
		if refused(err) {
			continue // nobody listens yet; the next datagram may find somebody
		}
		if err != nil {
			return
		}
		f.used.Store(time.Now().UnixNano())
		if _, _, err := s.socket.WriteMsgUDPAddrPort(buf[:n], f.reply, f.client); err != nil && errors.Is(err, net.ErrClosed) {
			return
		}
		s.Bytes.BtoA.Add(int64(n))
	}
}
