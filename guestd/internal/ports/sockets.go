//go:build linux

package ports

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// cgroupRoot is where the control groups are, one tree for all.
const cgroupRoot = "/sys/fs/cgroup"

// sockets lists sockets of this network namespace by the kernel's own list (sock_diag(7)). The lister of
// lima's guest agent leaves out whose they are.
type sockets struct {
	root      *os.File          // cgroupRoot
	ephemeral [2]uint16         // ports that the kernel gives out by itself
	owners    map[uint64]string // the container of a control group; empty: not a container's
}

func openSockets() (*sockets, error) {
	s := &sockets{owners: map[uint64]string{}}
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Sscan(string(b), &s.ephemeral[0], &s.ephemeral[1]); err != nil {
		return nil, fmt.Errorf("read the range of ephemeral ports: %w", err)
	}
	s.root, err = os.Open(cgroupRoot)
	return s, err
}

func (s *sockets) close() { s.root.Close() }

// containers lists the sockets of containers that others can send to.
func (s *sockets) containers() ([]socket, error) {
	var out []socket
	owners := map[uint64]string{}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			all, err := dump(family, protocol)
			if err != nil {
				return nil, fmt.Errorf("list sockets: %w", err)
			}
			for _, one := range all {
				// A datagram socket on a port of the kernel's choice is a client's.
				if protocol == unix.IPPROTO_UDP && one.at.Port() >= s.ephemeral[0] && one.at.Port() <= s.ephemeral[1] {
					continue
				}
				id, known := s.owners[one.cgroup]
				if !known {
					id = containerOf(s.path(one.cgroup))
				}
				owners[one.cgroup] = id
				if one.container = id; id != "" {
					out = append(out, one)
				}
			}
		}
	}
	s.owners = owners
	return out, nil
}

// fileidKernfs is the kind of a file handle that is a kernfs node's id, as a control group's id is
// (FILEID_KERNFS in linux/exportfs.h).
const fileidKernfs = 0xfe

// path is a control group's folder, below the root; empty when it is gone.
func (s *sockets) path(cgroup uint64) string {
	handle := unix.NewFileHandle(fileidKernfs, binary.NativeEndian.AppendUint64(nil, cgroup))
	fd, err := unix.OpenByHandleAt(int(s.root.Fd()), handle, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return ""
	}
	below, is := strings.CutPrefix(name, cgroupRoot+"/")
	if !is {
		return ""
	}
	return below
}

// containerID is how the engine names a container's control group, in whatever parent.
var containerID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// containerOf is the container that a control group belongs to; empty for none. A container may have
// groups of its own below, containers of its own among them.
func containerOf(cgroup string) string {
	cgroup = path.Clean("/" + cgroup)
	if strings.HasPrefix(cgroup, "/cove/") {
		return ""
	}
	for _, part := range strings.Split(cgroup, "/") {
		if containerID.MatchString(part) {
			return part
		}
	}
	return ""
}

// What of linux/inet_diag.h is used.
const (
	sockDiagByFamily = 20
	stateClose       = 7  // of a datagram socket: connected to nobody
	stateListen      = 10 // of a TCP socket
	attrOnly6        = 11 // INET_DIAG_SKV6ONLY
	attrCgroup       = 21 // INET_DIAG_CGROUP_ID
	sizeofMessage    = 72 // struct inet_diag_msg
)

// question is struct inet_diag_req_v2 without a socket: all of a family and protocol in some states.
type question struct {
	family, protocol uint8
	states           uint32
}

func (question) Len() int { return 56 }

func (q question) Serialize() []byte {
	b := make([]byte, q.Len())
	b[0], b[1] = q.family, q.protocol
	binary.NativeEndian.PutUint32(b[4:], q.states)
	return b
}

// dump lists sockets that take connections, or datagrams from anybody.
func dump(family, protocol uint8) ([]socket, error) {
	q := question{family, protocol, 1 << stateListen}
	if protocol == unix.IPPROTO_UDP {
		q.states = 1 << stateClose
	}
	r := nl.NewNetlinkRequest(sockDiagByFamily, unix.NLM_F_DUMP)
	r.AddData(q)
	messages, err := r.Execute(unix.NETLINK_INET_DIAG, 0)
	if err != nil {
		return nil, err
	}
	var out []socket
	for _, m := range messages {
		s, err := parseSocket(m)
		if err != nil {
			return nil, err
		}
		if s.network = "tcp"; protocol == unix.IPPROTO_UDP {
			s.network = "udp"
		}
		out = append(out, s)
	}
	return out, nil
}

// parseSocket reads struct inet_diag_msg and the attributes behind it.
func parseSocket(b []byte) (socket, error) {
	if len(b) < sizeofMessage {
		return socket{}, errors.New("a message of the kernel's is cut off")
	}
	ip := netip.AddrFrom16([16]byte(b[8:24]))
	if b[0] == unix.AF_INET {
		ip = netip.AddrFrom4([4]byte(b[8:12]))
	}
	s := socket{at: netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[4:]))}
	attributes, err := nl.ParseRouteAttr(b[sizeofMessage:])
	if err != nil {
		return s, err
	}
	for _, a := range attributes {
		switch {
		case a.Attr.Type == attrOnly6 && len(a.Value) == 1:
			s.only6 = a.Value[0] != 0
		case a.Attr.Type == attrCgroup && len(a.Value) == 8:
			s.cgroup = binary.NativeEndian.Uint64(a.Value)
		}
	}
	return s, nil
}
