package netstack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/covedesk/cove/vmhost"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// maxFrame is more than any card sends: QEMU's own limit is 68 KiB (NET_BUFSIZE).
	maxFrame = 128 << 10
	// readBuffer is what is read from a stream at once: many small frames, or a few of the largest.
	readBuffer = 1 << 20
	// maxBatch is how many frames go out in one call; Linux takes 1024 pieces (IOV_MAX), a frame has some.
	maxBatch = 64
)

// gatewayMAC is the gateway's, and of every address outside: locally administered, and the same for every
// guest, since no two share a link, and always, since a guest that was saved remembers it.
const gatewayMAC = tcpip.LinkAddress("\x5a\x94\xef\xe4\x0c\xdd")

// link is the stack's end of the guest's cable. gvisor-tap-vsock's switch is not used: it learns without
// bound which addresses a guest claims, and there is one card only.
type link struct {
	mtu uint32
	mac tcpip.LinkAddress
	// intercept sees each IPv4 packet of the guest's; what it takes the stack does not get.
	intercept func(packet []byte) bool

	mu         sync.RWMutex // guards all below
	dispatcher stack.NetworkDispatcher
	out        *frameWriter // nil while no card is plugged in
}

var _ stack.LinkEndpoint = (*link)(nil)

func newLink(mtu uint32, intercept func([]byte) bool) *link {
	return &link{mtu: mtu, mac: gatewayMAC, intercept: intercept}
}

// serve carries frames until the connection ends.
func (l *link) serve(conn net.Conn, framing vmhost.Framing) error {
	defer conn.Close()
	read, out, err := frames(conn, framing)
	if err != nil {
		return err
	}
	l.mu.Lock()
	if l.out != nil {
		l.mu.Unlock()
		return errors.New("attach a network card: the network has one already")
	}
	l.out = out
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.out = nil
	}()
	for {
		view, err := read()
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read from the network card: %w", err)
		}
		if view != nil {
			l.deliver(view)
		}
	}
}

// plugged says whether a card is.
func (l *link) plugged() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.out != nil
}

// deliver gives a frame to the stack.
func (l *link) deliver(frame *buffer.View) {
	b := frame.AsSlice()
	eth := header.Ethernet(b)
	kind := eth.Type()
	if kind == header.IPv4ProtocolNumber && l.intercept(b[header.EthernetMinimumSize:]) {
		frame.Release()
		return
	}
	l.mu.RLock()
	d := l.dispatcher
	l.mu.RUnlock()
	if d == nil || kind != header.IPv4ProtocolNumber && kind != header.ARPProtocolNumber {
		frame.Release()
		return
	}
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(frame)})
	defer p.DecRef()
	if l.ParseHeader(p) {
		// The destination is not looked at: there is nobody else on the link.
		d.DeliverNetworkPacket(kind, p)
	}
}

// WritePackets sends to the guest. Without a card they are lost, as on a cable that is not plugged in.
func (l *link) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	l.mu.RLock()
	out := l.out
	l.mu.RUnlock()
	if out == nil {
		return list.Len(), nil
	}
	if err := out.write(list.AsSlice()); err != nil {
		return 0, &tcpip.ErrAborted{}
	}
	return list.Len(), nil
}

// The rest is what gVisor wants of a link.

func (l *link) Attach(d stack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatcher = d
}

func (l *link) IsAttached() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.dispatcher != nil
}

// Capabilities: the way from the guest is a socket of this host's, which damages nothing.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired | stack.CapabilityRXChecksumOffload
}

func (l *link) MTU() uint32                             { return l.mtu }
func (l *link) SetMTU(uint32)                           {}
func (l *link) MaxHeaderLength() uint16                 { return header.EthernetMinimumSize }
func (l *link) LinkAddress() tcpip.LinkAddress          { return l.mac }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) Wait()                                   {}
func (l *link) Close()                                  {}
func (l *link) SetOnCloseAction(func())                 {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

func (l *link) AddHeader(p *stack.PacketBuffer) {
	header.Ethernet(p.LinkHeader().Push(header.EthernetMinimumSize)).Encode(&header.EthernetFields{
		SrcAddr: p.EgressRoute.LocalLinkAddress, DstAddr: p.EgressRoute.RemoteLinkAddress, Type: p.NetworkProtocolNumber})
}

func (l *link) ParseHeader(p *stack.PacketBuffer) bool {
	_, ok := p.LinkHeader().Consume(header.EthernetMinimumSize)
	return ok
}

// frames gives the two directions of a connection in a framing. read returns nil for a frame to ignore.
func frames(conn net.Conn, framing vmhost.Framing) (read func() (*buffer.View, error), out *frameWriter, err error) {
	switch framing {
	case vmhost.FrameStream:
		r := bufio.NewReaderSize(conn, readBuffer)
		return func() (*buffer.View, error) { return readStream(r) }, &frameWriter{conn: conn, lengths: true}, nil
	case vmhost.FrameDatagram:
		b := make([]byte, maxFrame)
		return func() (*buffer.View, error) {
			m, err := conn.Read(b)
			if err != nil || m < header.EthernetMinimumSize {
				return nil, err
			}
			return buffer.NewViewWithData(b[:m]), nil
		}, &frameWriter{conn: conn}, nil
	default:
		return nil, nil, fmt.Errorf("attach a network card: no framing is called %q", framing)
	}
}

func readStream(r *bufio.Reader) (*buffer.View, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxFrame {
		return nil, fmt.Errorf("a frame of %d bytes is larger than any", size) // the lengths are lost
	}
	if size < header.EthernetMinimumSize {
		_, err := r.Discard(int(size))
		return nil, err
	}
	view := buffer.NewViewSize(int(size))
	if _, err := io.ReadFull(r, view.AsSlice()); err != nil {
		view.Release()
		return nil, err
	}
	return view, nil
}

// frameWriter writes whole frames.
type frameWriter struct {
	conn    net.Conn
	lengths bool // before each frame

	mu      sync.Mutex // one writer at a time
	heads   [maxBatch][4]byte
	pieces  [][]byte
	scratch []byte
}

func (w *frameWriter) write(packets []*stack.PacketBuffer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.lengths {
		return w.datagrams(packets)
	}
	for len(packets) > 0 {
		batch := packets[:min(len(packets), maxBatch)]
		packets = packets[len(batch):]
		w.pieces = w.pieces[:0]
		for i, p := range batch {
			binary.BigEndian.PutUint32(w.heads[i][:], uint32(p.Size()))
			w.pieces = append(append(w.pieces, w.heads[i][:]), p.AsSlices()...)
		}
		all := net.Buffers(w.pieces)
		if _, err := all.WriteTo(w.conn); err != nil {
			return err
		}
	}
	return nil
}

func (w *frameWriter) datagrams(packets []*stack.PacketBuffer) error {
	for _, p := range packets {
		w.scratch = w.scratch[:0]
		for _, piece := range p.AsSlices() {
			w.scratch = append(w.scratch, piece...)
		}
		// A full queue of the card's makes the write wait or, on macOS, fail: then the frame is lost, which
		// IP allows.
		if _, err := w.conn.Write(w.scratch); err != nil && !transient(err) {
			return err
		}
	}
	return nil
}
