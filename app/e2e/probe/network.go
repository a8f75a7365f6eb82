//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// scanners is how many ports are tried at once.
const scanners = 200

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
	for _, address := range addresses {
		address, limit, limited := strings.Cut(address, "/")
		last := 65535
		if limited {
			last = int(number(limit))
		}
		next := make(chan int)
		for range scanners {
			wg.Go(func() {
				for port := range next {
					if answersTCP(address, port) {
						tell("tcp", address, port)
					}
				}
			})
		}
		for port := 1; port <= last; port++ {
			next <- port
		}
		close(next)
		wg.Wait()
		for _, port := range udpPorts {
			wg.Go(func() {
				if answersUDP(address, port) {
					tell("udp", address, port)
				}
			})
		}
		wg.Wait()
	}
	for _, cid := range []uint32{0, 1, 2, 3, 4} {
		for _, port := range vsockPorts {
			if answersVsock(cid, port) {
				tell("vsock", fmt.Sprint(cid), int(port))
			}
		}
	}
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

// answersTCP says whether a connection opens. Whatever is neither refused nor unreachable is asked again.
func answersTCP(address string, port int) bool {
	for range 3 {
		c, err := net.DialTimeout("tcp4", net.JoinHostPort(address, fmt.Sprint(port)), 10*time.Second)
		if err == nil {
			c.Close()
			return true
		}
		if e, is := err.(net.Error); !is || !e.Timeout() {
			return false
		}
	}
	fmt.Printf("tcp %s %d did not answer at all\n", address, port)
	return false
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

// askUDP prints what comes back for a datagram. One that is lost is sent again.
func askUDP(address, text string) {
	c, err := net.Dial("udp", address)
	if err != nil {
		fail(err.Error())
	}
	b := make([]byte, 65535)
	for range 30 {
		c.Write([]byte(text))
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, err := c.Read(b)
		if err == nil {
			fmt.Printf("%s\n", b[:n])
			return
		}
	}
	fail("no answer from " + address)
}

// resolve asks the nameserver of resolv.conf for pairs of a name and a kind, and prints on a line each the
// code and the records of the answer.
func resolve(pairs []string) {
	conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		fail(err.Error())
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		fmt.Println(resolveOne(conf.Servers[0], pairs[i], pairs[i+1]))
	}
}

func resolveOne(server, name, kind string) string {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.StringToType[kind])
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		a, _, err := new(dns.Client).ExchangeContext(ctx, m, net.JoinHostPort(server, "53"))
		if err != nil && ctx.Err() == nil {
			continue
		}
		if err != nil {
			fail(err.Error())
		}
		said := dns.RcodeToString[a.Rcode]
		for _, r := range a.Answer {
			said += " " + strings.Join(strings.Fields(r.String())[3:], " ")
		}
		return said
	}
}

// connectTimes opens connections one after the other, with a byte there and back on each, and prints the
// seconds of each. The server echoes.
func connectTimes(address, count string) {
	for range number(count) {
		begun := time.Now()
		c, err := net.Dial("tcp", address)
		if err != nil {
			fail(err.Error())
		}
		c.Write([]byte{1})
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			fail(err.Error())
		}
		fmt.Println(time.Since(begun).Seconds())
		c.Close()
	}
}

// move does what the reference guest of `make bench` does on its port 8: it reads how many bytes to send
// (8 bytes, big-endian) and the length and text of an address, connects to it, sends them, ends its side,
// reads to the end, and answers with the count of what came.
func move(port string) {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		fail(err.Error())
	}
	for {
		c, err := l.Accept()
		if err != nil {
			fail(err.Error())
		}
		go func() {
			defer c.Close()
			if err := moveOnce(c); err != nil {
				fmt.Fprintln(os.Stderr, "move:", err)
			}
		}()
	}
}

func moveOnce(c net.Conn) error {
	var head [9]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	address := make([]byte, head[8])
	if _, err := io.ReadFull(c, address); err != nil {
		return err
	}
	to, err := net.Dial("tcp", string(address))
	if err != nil {
		return err
	}
	defer to.Close()
	go func() {
		block := make([]byte, 256<<10)
		for left := int(binary.BigEndian.Uint64(head[:8])); left > 0; {
			n, err := to.Write(block[:min(left, len(block))])
			if left -= n; err != nil {
				return
			}
		}
		to.(*net.TCPConn).CloseWrite()
	}()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{to}, make([]byte, 256<<10))
	if err != nil {
		return err
	}
	_, err = io.Copy(c, bytes.NewReader(binary.BigEndian.AppendUint64(nil, uint64(n))))
	return err
}
