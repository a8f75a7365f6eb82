package vhostuser

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
	reqSetLogBase          = 6
	reqSetLogFD            = 7
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
	reqSetDeviceStateFD    = 42
	reqCheckDeviceState    = 43
)

const (
	messageHeader = 12
	maxMessage    = 4 << 10 // the largest, a memory table of 32 regions, is 1,032 bytes
	maxFDs        = maxRegions

	flagVersion   = 1
	flagReply     = 1 << 2
	flagNeedReply = 1 << 3

	noDescriptor = 1 << 8 // SET_VRING_KICK, CALL and ERR: the message carries none

	// VERSION_1, PROTOCOL_FEATURES, EVENT_IDX, INDIRECT_DESC
	features         = 1<<32 | 1<<30 | 1<<featEventIdx | 1<<featIndirect
	protocolMQ       = 1 << 0
	protocolReplyAck = 1 << 3
	protocolConfig   = 1 << 9

	// What QEMU wants of a device before it saves a machine that has it.
	featuresSaved = 1 << featLogAll
	protocolSaved = 1<<1 | 1<<19 // LOG_SHMFD, DEVICE_STATE
)

// Handler is a device as its rings see it. All are called with the device's lock held.
type Handler interface {
	// TurnLocked is called when the guest may have given buffers to a ring.
	TurnLocked(ring int)
	// StopLocked is called before a ring stops: the machine is paused, or the guest's driver goes away. It may
	// let go of the lock while it waits for what is under way.
	StopLocked()
	// ResetLocked is called when the guest's driver begins anew, or is gone with its front end: what it had of
	// the device is void. It may let go of the lock likewise.
	ResetLocked()
}

// Device is the half of a virtio device that every one has. It serves one front end at a time.
type Device struct {
	lock    sync.Locker
	handler Handler
	config  []byte // the device's configuration space; nil where the front end has its own

	// State, for one that can be saved with its machine; set before Serve.
	State State

	Mem   *Memory // guarded by the lock, like all below; nil without a front end
	Rings []Ring

	log    *dirtyLog     // nil before the front end gave one
	logs   bool          // what is written into the guest's memory is to be noted there
	front  *net.UnixConn // the front end that is served
	closed bool
}

// New returns a device with so many rings, whose buffers have at most limit bytes each way.
func New(lock sync.Locker, handler Handler, rings, limit int, config []byte) *Device {
	d := &Device{lock: lock, handler: handler, config: config, Rings: make([]Ring, rings)}
	for i := range d.Rings {
		d.Rings[i] = Ring{call: -1, limit: limit}
	}
	return d
}

// CloseLocked ends the serving of the front end for good.
func (d *Device) CloseLocked() {
	d.closed = true
	if d.front != nil {
		d.front.Close()
	}
}

// Serve talks to a front end until it goes away or the device is closed; then what it gave is let go, and
// the device can serve another one. A front end that breaks the protocol is an error.
func (d *Device) Serve(conn *net.UnixConn) error {
	s := &session{d: d, conn: conn}
	defer s.end()
	d.lock.Lock()
	closed := d.closed
	d.front = conn
	d.lock.Unlock()
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
	wg   sync.WaitGroup // of the goroutines that wait for kicks, or move the state
	move *move          // of the state; nil before the first
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
	d.lock.Lock()
	d.handler.ResetLocked()
	for i := range d.Rings {
		r := &d.Rings[i]
		r.closeFiles()
		*r = Ring{call: -1, limit: r.limit, life: r.life + 1}
	}
	d.setMemoryLocked(nil)
	d.setLogLocked(nil)
	d.logs, d.front = false, nil
	d.lock.Unlock()
	s.conn.Close()
	s.move.stop()
	s.wg.Wait()
}

// errFrontEnd says that QEMU said something that makes no sense.
var errFrontEnd = errors.New("vhost-user front end")

func number(v uint64) []byte { return le.AppendUint64(nil, v) }

var errShort = errors.New("too short")

// handle does what a request asks. A nil answer is none.
func (s *session) handle(m *message) ([]byte, error) {
	d := s.d
	if d.State != nil && m.request == reqCheckDeviceState {
		return number(s.move.result()), nil // without the lock: the device may be needed meanwhile
	}
	d.lock.Lock()
	defer d.lock.Unlock()
	b := m.body
	switch m.request {
	case reqGetFeatures:
		if d.State != nil {
			return number(features | featuresSaved), nil
		}
		return number(features), nil
	case reqGetProtocolFeatures:
		return number(d.protocolFeatures()), nil
	case reqGetQueueNum:
		return number(uint64(len(d.Rings))), nil
	case reqGetConfig:
		return d.readConfig(b)
	case reqSetFeatures:
		if len(b) < 8 {
			return nil, errShort
		}
		for i := range d.Rings {
			d.Rings[i].eventIdx = le.Uint64(b)&(1<<featEventIdx) != 0
			d.Rings[i].indirect = le.Uint64(b)&(1<<featIndirect) != 0
		}
		d.logs = le.Uint64(b)&(1<<featLogAll) != 0
		return nil, nil
	case reqSetOwner, reqSetProtocolFeatures, reqSetConfig, reqSetVringErr:
		return nil, nil
	case reqResetOwner:
		d.handler.ResetLocked()
		return nil, nil
	case reqSetMemTable:
		return nil, d.takeMemoryLocked(m)
	case reqSetVringNum, reqSetVringBase, reqSetVringEnable, reqGetVringBase, reqSetVringAddr:
		if len(b) < 8 {
			return nil, errShort
		}
		i := le.Uint32(b)
		if i >= uint32(len(d.Rings)) {
			return nil, fmt.Errorf("no ring %d", i)
		}
		return s.ringLocked(m.request, &d.Rings[i], i, b)
	case reqSetLogBase:
		return number(0), d.takeLogLocked(m)
	case reqSetLogFD:
		return nil, nil // who made the log looks at it when it wants to
	case reqSetDeviceStateFD:
		if d.State != nil {
			return s.moveLocked(m)
		}
	case reqSetVringKick, reqSetVringCall:
		if len(b) < 8 {
			return nil, errShort
		}
		v := le.Uint64(b)
		i := v & 0xff
		if i >= uint64(len(d.Rings)) {
			return nil, fmt.Errorf("no ring %d", i)
		}
		fd := -1
		if v&noDescriptor == 0 {
			fd = m.takeFD(0)
		}
		if m.request == reqSetVringCall {
			d.setCallLocked(&d.Rings[i], fd)
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

func (d *Device) protocolFeatures() uint64 {
	p := uint64(protocolMQ | protocolReplyAck)
	if d.config != nil {
		p |= protocolConfig
	}
	if d.State != nil {
		p |= protocolSaved
	}
	return p
}

// readConfig answers GET_CONFIG: offset, size, flags, then the device's configuration.
func (d *Device) readConfig(b []byte) ([]byte, error) {
	if len(b) < 12 {
		return nil, errShort
	}
	offset, size := le.Uint32(b), le.Uint32(b[4:])
	if uint64(len(b)-12) < uint64(size) || uint64(offset)+uint64(size) > uint64(len(d.config)) {
		return nil, fmt.Errorf("no configuration at %d, %d bytes", offset, size)
	}
	out := append([]byte(nil), b...)
	copy(out[12:], d.config[offset:offset+size])
	return out, nil
}

// setMemoryLocked replaces the guest's memory; the rings are found anew in it.
func (d *Device) setMemoryLocked(fresh *Memory) {
	old := d.Mem
	d.Mem = fresh
	for i := range d.Rings {
		if err := d.Rings[i].translate(fresh); err != nil {
			d.Rings[i].broken = true
		}
	}
	if old != nil {
		old.Release()
	}
}

// ringLocked sets up ring i.
func (s *session) ringLocked(request uint32, r *Ring, i uint32, b []byte) ([]byte, error) {
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
		r.logged, r.logAddr = value&ringLog != 0, le.Uint64(b[32:])
		r.addressed, r.broken = true, false
		return nil, r.translate(d.Mem)
	case reqSetVringEnable:
		if r.anew(value != 0) {
			d.handler.ResetLocked()
		}
		r.enabled = value != 0
		if r.enabled {
			d.handler.TurnLocked(int(i))
		}
	case reqGetVringBase:
		// The front end stops the ring: the guest's driver goes away or begins anew, or the machine is paused.
		r.enabled = false
		d.handler.StopLocked()
		r.stop()
		r.closeFiles()
		return le.AppendUint32(le.AppendUint32(nil, i), uint32(r.last)), nil
	}
	return nil, nil
}

func (d *Device) setCallLocked(r *Ring, fd int) {
	if r.call >= 0 {
		unix.Close(r.call)
	}
	r.call = fd
	// The driver may have waited for us to be able to tell it.
	if fd >= 0 && r.desc != nil {
		r.signalledValid = false
		r.Notify()
	}
}

// setKickLocked takes the descriptor by which the guest tells of new buffers.
func (s *session) setKickLocked(i, fd int) error {
	r := &s.d.Rings[i]
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
			s.d.Kicked(i)
		}
	})
	return nil
}

// Kicked is what the guest's notification of a ring does.
func (d *Device) Kicked(ring int) {
	d.lock.Lock()
	defer d.lock.Unlock()
	d.handler.TurnLocked(ring)
}
