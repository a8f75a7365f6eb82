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
	"strings"
	"time"

	"github.com/miekg/dns"
)

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
