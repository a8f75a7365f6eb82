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
)

// UDP is how datagrams are served. The counters may be nil.
type UDP struct {
	// Dial opens the way to the target for a client. A Read of it is one datagram, and so is a Write.
	Dial        func(client netip.AddrPort) (net.Conn, error)
	Open, Total *atomic.Int64
	Bytes       *proxy.Counters // A is the client's side
}

// flow is what one client and the target say to each other.
type flow struct {
	client netip.AddrPort
	reply  []byte // ancillary data that makes a reply come from the address that the client sent to
	in     chan []byte
	used   atomic.Int64 // unix nanoseconds
	end    context.CancelFunc
}

// ServeUDP relays datagrams until the socket is closed or the context ends, and returns when nothing
// runs any more. Replies go out from the address that the client sent to.
func ServeUDP(ctx context.Context, socket *net.UDPConn, u UDP) {
	if u.Open == nil {
		u.Open, u.Total, u.Bytes = new(atomic.Int64), new(atomic.Int64), new(proxy.Counters)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &udpServer{UDP: u, socket: socket, flows: map[netip.AddrPort]*flow{}}
	defer s.wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { socket.Close() })
	defer stop()
	s.told = wantDestination(socket)
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
		s.take(ctx, from, append([]byte(nil), buf[:n]...), oob[:m])
	}
}

type udpServer struct {
	UDP
	socket *net.UDPConn
	told   bool // the kernel says where a datagram was sent to
	wg     sync.WaitGroup

	mu    sync.Mutex
	flows map[netip.AddrPort]*flow
}

// take gives a datagram to its client's flow, which is made when there is none.
func (s *udpServer) take(ctx context.Context, from netip.AddrPort, datagram, oob []byte) {
	s.mu.Lock()
	f := s.flows[from]
	if f == nil {
		if len(s.flows) >= maxFlows {
			s.evictLocked()
		}
		var flowing context.Context
		f = &flow{client: from, in: make(chan []byte, flowQueue)}
		flowing, f.end = context.WithCancel(ctx)
		if s.told {
			f.reply = replyFrom(oob)
		}
		s.flows[from] = f
		s.Total.Add(1)
		s.Open.Add(1)
		s.wg.Go(func() { s.run(flowing, f) })
	}
	f.used.Store(time.Now().UnixNano())
	s.mu.Unlock()
	select {
	case f.in <- datagram:
	default: // as a full socket buffer does
	}
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

// run carries a flow until it was silent for long, its target is gone, or it is ended.
func (s *udpServer) run(ctx context.Context, f *flow) {
	defer func() {
		s.mu.Lock()
		if s.flows[f.client] == f {
			delete(s.flows, f.client)
		}
		s.mu.Unlock()
		f.end()
		s.Open.Add(-1)
	}()
	target, err := s.Dial(f.client)
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { target.Close() })
	defer stop()
	replies := make(chan struct{})
	go func() {
		defer close(replies)
		defer f.end()
		s.replies(f, target)
	}()
	defer func() { target.Close(); <-replies }()
	idle := time.NewTimer(flowIdle)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-f.in:
			if _, err := target.Write(d); err != nil && !refused(err) {
				return
			}
			s.Bytes.AtoB.Add(int64(len(d)))
		case <-idle.C:
			left := flowIdle - time.Since(time.Unix(0, f.used.Load()))
			if left <= 0 {
				return
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
