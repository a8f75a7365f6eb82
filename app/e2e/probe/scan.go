//go:build linux

package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// scan tries every TCP port (with "/N" behind the address, those to N) and a list of UDP ports of addresses, and vsock ports of context ids, and
// prints what answered, a line each. An address that cannot be reached at all has nothing.
func scan(addresses []string) {
	var mu sync.Mutex
	var found []string
	tell := func(kind, address string, port int) {
		mu.Lock()
		defer mu.Unlock()
		found = append(found, fmt.Sprintf("%s %s %d", kind, address, port))
	}
	var wg sync.WaitGroup
	for _, cid := range []uint32{0, 1, 2, 3, 4} {
		for _, port := range vsockPorts {
			wg.Go(func() {
				if answersVsock(cid, port) {
					tell("vsock", fmt.Sprint(cid), int(port))
				}
			})
		}
	}
	for _, address := range addresses {
		address, limit, limited := strings.Cut(address, "/")
		last := 65535
		if limited {
			last = int(number(limit))
		}
		for _, port := range udpPorts {
			wg.Go(func() {
				if answersUDP(address, port) {
					tell("udp", address, port)
				}
			})
		}
		scanTCP(netip.MustParseAddr(address), last, func(port int) { tell("tcp", address, port) })
	}
	wg.Wait()
	slices.Sort(found)
	for _, f := range found {
		fmt.Println(f)
	}
	fmt.Println("scanned")
}

// udpPorts are those of services that machines of this kind have had, and some more; vsockPorts too.
var (
	udpPorts   = []int{7, 53, 67, 69, 111, 123, 137, 161, 443, 500, 514, 1900, 2375, 2377, 4500, 4789, 5353, 5355, 7777, 7946, 8472, 51820}
	vsockPorts = []uint32{1, 22, 53, 80, 111, 1022, 1023, 1024, 1025, 1026, 2222, 2375, 2376, 3049, 4097, 5000, 5163, 6655, 6656, 9999, 62373, 0x10000000}
)

// attempt is a socket and the port that it tries. A refused socket can be used again, which spares most of what
// a port costs.
type attempt struct {
	fd, port int
	tries    int
	since    time.Time
}

const (
	attempts  = 256              // at once
	mostTries = 3                // of a port that says nothing
	silence   = 10 * time.Second // before a port counts as saying nothing
)

// scanTCP tells which ports from 1 to last accept a connection. One that neither accepts nor refuses is tried
// again, and in the end printed.
func scanTCP(address netip.Addr, last int, tell func(port int)) {
	var idle, open []*attempt
	for range attempts {
		idle = append(idle, &attempt{fd: -1})
	}
	next := 1
	// step connects, or asks what became of it: connect(2) on a socket that does so already.
	var step func(a *attempt) (waits bool)
	step = func(a *attempt) (waits bool) {
		if a.fd < 0 {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				fail(err.Error())
			}
			a.fd = fd
		}
		switch err := unix.Connect(a.fd, &unix.SockaddrInet4{Addr: address.As4(), Port: a.port}); err {
		case unix.EINPROGRESS, unix.EALREADY:
			return true
		case nil, unix.EISCONN:
			own := toItself(a.fd)
			unix.Close(a.fd)
			if a.fd = -1; own {
				return step(a)
			}
			tell(a.port)
		case unix.ECONNREFUSED, unix.ECONNRESET, unix.ENETUNREACH, unix.EHOSTUNREACH:
		default:
			fail(fmt.Sprintf("tcp %s %d: %v", address, a.port, err))
		}
		return false
	}
	for next <= last || len(open) > 0 {
		for len(idle) > 0 && next <= last {
			a := idle[len(idle)-1]
			a.port, a.tries, a.since = next, 1, time.Now()
			if next++; step(a) {
				idle, open = idle[:len(idle)-1], append(open, a)
			}
		}
		poll := make([]unix.PollFd, len(open))
		for i, a := range open {
			poll[i] = unix.PollFd{Fd: int32(a.fd), Events: unix.POLLOUT}
		}
		if _, err := unix.Poll(poll, 1000); err != nil && err != unix.EINTR {
			fail(err.Error())
		}
		var still []*attempt
		for i, a := range open {
			waits := true
			switch {
			case poll[i].Revents != 0:
				waits = step(a)
			case time.Since(a.since) > silence:
				unix.Close(a.fd)
				a.fd, a.since = -1, time.Now()
				if a.tries++; a.tries <= mostTries {
					waits = step(a)
				} else {
					waits = false
					fmt.Printf("tcp %s %d did not answer at all\n", address, a.port)
				}
			}
			if waits {
				still = append(still, a)
			} else {
				idle = append(idle, a)
			}
		}
		open = still
	}
	for _, a := range idle {
		unix.Close(a.fd)
	}
}

// toItself says whether a socket is connected to itself, as happens when an address of one's own is tried by the port
// that the kernel has just given.
func toItself(fd int) bool {
	own, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return false
	}
	a, b := own.(*unix.SockaddrInet4), peer.(*unix.SockaddrInet4)
	return a.Port == b.Port && a.Addr == b.Addr
}

// answersUDP says whether anything comes back, to a DNS question or to noise.
func answersUDP(address string, port int) bool {
	question, err := new(dns.Msg).SetQuestion("gateway.docker.internal.", dns.TypeA).Pack()
	if err != nil {
		fail(err.Error())
	}
	c, err := net.Dial("udp4", net.JoinHostPort(address, fmt.Sprint(port)))
	if err != nil {
		return false
	}
	defer c.Close()
	for range 3 {
		c.Write(question)
		c.Write([]byte("\x00noise"))
		c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(make([]byte, 2048)); err == nil {
			return true
		}
	}
	return false
}

// answersVsock says whether a vsock connection stays open for a word to be read, or for a second.
func answersVsock(cid, port uint32) bool {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(time.Second.Nanoseconds())
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	if unix.Connect(fd, &unix.SockaddrVM{CID: cid, Port: port}) != nil {
		return false
	}
	unix.Write(fd, []byte("COVE?\n"))
	n, err := unix.Read(fd, make([]byte, 64))
	return n > 0 || err == unix.EAGAIN
}
