package vuvsock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Requests of the vhost-user protocol that we answer.
const (
	reqGetFeatures         = 1
	reqSetFeatures         = 2
	reqSetOwner            = 3
	reqResetOwner          = 4
	reqSetMemTable         = 5
	reqSetVringNum         = 8
	reqSetVringAddr        = 9
	reqSetVringBase        = 10
	reqGetVringBase        = 11
	reqSetVringKick        = 12
	reqSetVringCall        = 13
	reqSetVringErr         = 14
	reqGetProtocolFeatures = 15
	reqSetProtocolFeatures = 16
	reqGetQueueNum         = 17
	reqSetVringEnable      = 18
	reqGetConfig           = 24
	reqSetConfig           = 25
)

const (
	messageHeader = 12
	maxMessage    = 4 << 10 // the largest, a memory table of 32 regions, is 1,032 bytes
	maxFDs        = maxRegions

	flagVersion   = 1
	flagReply     = 1 << 2
	flagNeedReply = 1 << 3

	noDescriptor = 1 << 8 // SET_VRING_KICK, CALL and ERR: the message carries none

	features         = 1<<32 | 1<<30 | 1<<featEventIdx // VERSION_1, PROTOCOL_FEATURES, EVENT_IDX
	protocolFeatures = 1<<0 | 1<<3 | 1<<9              // MQ, REPLY_ACK, CONFIG
)

// Serve talks to a front end until it goes away or the device is closed; then every connection is reset, what it gave is let
// go, and the device can serve another one. A front end that breaks the protocol is an error.
func (d *Device) Serve(conn *net.UnixConn) error {
	s := &session{d: d, conn: conn}
	defer s.end()
	d.mu.Lock()
	closed := d.closed
	d.front = conn
	d.mu.Unlock()
	if closed {
		return net.ErrClosed
	}
	for {
		m, err := s.read()
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		reply, err := s.handle(m)
		m.closeFDs()
		if err != nil {
			return fmt.Errorf("%w: request %d: %w", errFrontEnd, m.request, err)
		}
		if reply == nil && m.flags&flagNeedReply != 0 {
			reply = make([]byte, 8)
		}
		if reply != nil {
			if err := s.reply(m.request, reply); err != nil {
				return err
			}
		}
	}
}

// session is one front end's time with the device.
type session struct {
	d    *Device
	conn *net.UnixConn
	wg   sync.WaitGroup // of the goroutines that wait for kicks
}

// message is one request. Descriptors that nobody took are closed after it.
type message struct {
	request, flags uint32
	body           []byte
	fds            []int
}

func (m *message) closeFDs() {
	for _, fd := range m.fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// takeFD gives the i-th descriptor to the caller.
func (m *message) takeFD(i int) int {
	if i >= len(m.fds) {
		return -1
	}
	fd := m.fds[i]
	m.fds[i] = -1
	return fd
}

func (s *session) read() (*message, error) {
	head := make([]byte, messageHeader)
	oob := make([]byte, unix.CmsgSpace(maxFDs*4))
	n, oobn, flags, _, err := s.conn.ReadMsgUnix(head, oob)
	m := &message{}
	if err == nil && oobn > 0 {
		m.fds, err = descriptors(oob[:oobn])
	}
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = fmt.Errorf("%w: more descriptors than %d", errFrontEnd, maxFDs)
	}
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err == nil && n < messageHeader {
		_, err = io.ReadFull(s.conn, head[n:])
	}
	if err == nil {
		size := le.Uint32(head[8:])
		m.request, m.flags = le.Uint32(head), le.Uint32(head[4:])
		if size > maxMessage {
			err = fmt.Errorf("%w: message of %d bytes", errFrontEnd, size)
		} else {
			m.body = make([]byte, size)
			_, err = io.ReadFull(s.conn, m.body)
		}
	}
	if err != nil {
		m.closeFDs()
		return nil, err
	}
	return m, nil
}

func descriptors(oob []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, m := range messages {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		fds = append(fds, got...)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds, nil
}

func (s *session) reply(request uint32, body []byte) error {
	b := make([]byte, messageHeader, messageHeader+len(body))
	le.PutUint32(b, request)
	le.PutUint32(b[4:], flagVersion|flagReply)
	le.PutUint32(b[8:], uint32(len(body)))
	_, err := s.conn.Write(append(b, body...))
	return err
}

// end lets go of everything that the front end gave.
func (s *session) end() {
	d := s.d
	d.mu.Lock()
	d.resetLocked()
	for i := range d.rings {
		d.closeRingLocked(&d.rings[i])
		d.rings[i] = ring{call: -1}
	}
	d.mem.unmap()
	d.mem, d.front = nil, nil
	d.mu.Unlock()
	s.conn.Close()
	s.wg.Wait()
}

func number(v uint64) []byte { return le.AppendUint64(nil, v) }

var errShort = errors.New("too short")

// handle does what a request asks. A nil answer is none.
func (s *session) handle(m *message) ([]byte, error) {
	d := s.d
	d.mu.Lock()
	defer d.mu.Unlock()
	b := m.body
	switch m.request {
	case reqGetFeatures:
		return number(features), nil
	case reqGetProtocolFeatures:
		return number(protocolFeatures), nil
	case reqGetQueueNum:
		return number(uint64(len(d.rings))), nil
	case reqGetConfig:
		return d.config(b)
	case reqSetFeatures:
		if len(b) < 8 {
			return nil, errShort
		}
		for i := range d.rings {
			d.rings[i].eventIdx = le.Uint64(b)&(1<<featEventIdx) != 0
		}
		return nil, nil
	case reqSetOwner, reqSetProtocolFeatures, reqSetConfig, reqSetVringErr:
		return nil, nil
	case reqResetOwner:
		d.resetLocked()
		return nil, nil
	case reqSetMemTable:
		return nil, d.setMemoryLocked(m)
	case reqSetVringNum, reqSetVringBase, reqSetVringEnable, reqGetVringBase, reqSetVringAddr:
		if len(b) < 8 {
			return nil, errShort
		}
		i := le.Uint32(b)
		if i >= uint32(len(d.rings)) {
			return nil, fmt.Errorf("no ring %d", i)
		}
		return s.ringLocked(m.request, &d.rings[i], i, b)
	case reqSetVringKick, reqSetVringCall:
		if len(b) < 8 {
			return nil, errShort
		}
		v := le.Uint64(b)
		i := v & 0xff
		if i >= uint64(len(d.rings)) {
			return nil, fmt.Errorf("no ring %d", i)
		}
		fd := -1
		if v&noDescriptor == 0 {
			fd = m.takeFD(0)
		}
		if m.request == reqSetVringCall {
			d.setCallLocked(&d.rings[i], fd)
			return nil, nil
		}
		return nil, s.setKickLocked(int(i), fd)
	}
	// A request from a feature that we did not offer; one that wants an answer gets "no".
	if m.flags&flagNeedReply != 0 {
		return number(1), nil
	}
	return nil, nil
}

// config answers GET_CONFIG: offset, size, flags, then the device's configuration, which is the guest's
// context id (virtio 1.2, 5.10.4).
func (d *Device) config(b []byte) ([]byte, error) {
	if len(b) < 12 {
		return nil, errShort
	}
	offset, size := le.Uint32(b), le.Uint32(b[4:])
	all := number(d.cid)
	if uint64(len(b)-12) < uint64(size) || uint64(offset)+uint64(size) > uint64(len(all)) {
		return nil, fmt.Errorf("no configuration at %d, %d bytes", offset, size)
	}
	out := append([]byte(nil), b...)
	copy(out[12:], all[offset:offset+size])
	return out, nil
}

func (d *Device) setMemoryLocked(m *message) error {
	b := m.body
	if len(b) < 8 {
		return errShort
	}
	n := le.Uint32(b)
	if n > maxRegions || len(b) < 8+32*int(n) || len(m.fds) < int(n) {
		return fmt.Errorf("%d regions in %d bytes with %d descriptors", n, len(b), len(m.fds))
	}
	var fresh memory
	for i := range int(n) {
		e := b[8+32*i:]
		r := region{gpa: le.Uint64(e), size: le.Uint64(e[8:]), uaddr: le.Uint64(e[16:])}
		offset := le.Uint64(e[24:])
		page := offset &^ uint64(os.Getpagesize()-1)
		if r.size == 0 || r.size > 1<<46 || offset > 1<<46 || r.gpa+r.size < r.gpa || r.uaddr+r.size < r.uaddr {
			fresh.unmap()
			return fmt.Errorf("region of %d bytes at %#x", r.size, r.gpa)
		}
		// A page that the file does not have ends the process that touches it.
		var st unix.Stat_t
		if err := unix.Fstat(m.fds[i], &st); err != nil || uint64(st.Size) < offset+r.size {
			fresh.unmap()
			return fmt.Errorf("region of %d bytes at %d of a file of %d bytes: %w", r.size, offset, st.Size, errShort)
		}
		var err error
		r.mapping, err = unix.Mmap(m.fds[i], int64(page), int(r.size+offset-page), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
		if err != nil {
			fresh.unmap()
			return fmt.Errorf("map the guest's memory: %w", err)
		}
		r.mem = r.mapping[offset-page:]
		fresh = append(fresh, r)
	}
	old := d.mem
	d.mem = fresh
	for i := range d.rings {
		if err := d.rings[i].translate(fresh); err != nil {
			d.rings[i].broken = true
		}
	}
	old.unmap()
	return nil
}

// ringLocked sets up ring i.
func (s *session) ringLocked(request uint32, r *ring, i uint32, b []byte) ([]byte, error) {
	d := s.d
	value := le.Uint32(b[4:])
	switch request {
	case reqSetVringNum:
		if value == 0 || value > maxRingSize || value&(value-1) != 0 {
			return nil, fmt.Errorf("ring of %d entries", value)
		}
		r.num = value
		// What was found for another number is too small for this one.
		r.addressed = false
		r.desc, r.avail, r.used = nil, nil, nil
	case reqSetVringBase:
		r.last = uint16(value)
	case reqSetVringAddr:
		if len(b) < 40 {
			return nil, errShort
		}
		r.descAddr, r.usedAddr, r.availAddr = le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])
		r.addressed, r.broken = true, false
		return nil, r.translate(d.mem)
	case reqSetVringEnable:
		r.enabled = value != 0
		if r.enabled {
			d.turnLocked()
		}
	case reqGetVringBase:
		// The front end stops the ring: the guest's driver goes away or begins anew.
		r.enabled, r.broken = false, false
		r.addressed = false
		r.desc, r.avail, r.used = nil, nil, nil
		d.closeRingLocked(r)
		d.resetLocked()
		return le.AppendUint32(le.AppendUint32(nil, i), uint32(r.last)), nil
	}
	return nil, nil
}

func (d *Device) setCallLocked(r *ring, fd int) {
	if r.call >= 0 {
		unix.Close(r.call)
	}
	r.call = fd
	// The driver may have waited for us to be able to tell it.
	if fd >= 0 && r.desc != nil {
		r.signalledValid = false
		r.notify()
	}
}

// setKickLocked takes the descriptor by which the guest tells of new buffers.
func (s *session) setKickLocked(i, fd int) error {
	r := &s.d.rings[i]
	if r.kick != nil {
		r.kick.Close()
		r.kick = nil
	}
	if fd < 0 {
		return nil
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	kick := os.NewFile(uintptr(fd), "kick")
	r.kick = kick
	s.wg.Go(func() {
		var b [8]byte
		for {
			// Closing the file ends this.
			if _, err := kick.Read(b[:]); err != nil {
				return
			}
			s.d.kicked()
		}
	})
	return nil
}
