//go:build linux

// Command refguest is the first process of the guest that `make bench` compares Cove's with: QEMU's own
// user-mode network, and OpenSSH's server, as others use them. It answers on port 7 what it gets, by TCP
// and UDP, runs sshd, and on port 8 moves bytes with an address of the host.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("reference failed:", err)
	}
	select {}
}

func run() error {
	os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
	for _, m := range [][3]string{{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"devtmpfs", "/dev", "devtmpfs"}, {"tmpfs", "/run", "tmpfs"}} {
		os.MkdirAll(m[1], 0o755)
		if err := unix.Mount(m[0], m[1], m[2], 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	os.MkdirAll("/run/sshd", 0o755)
	modules, _ := filepath.Glob("/modules/*.ko")
	slices.Sort(modules)
	for _, name := range modules {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		unix.FinitModule(int(f.Fd()), "", 0) // some are for what this machine has not
		f.Close()
	}
	if err := network(); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if err := serve(); err != nil {
		return err
	}
	sshd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/sshd_config")
	sshd.Stdout, sshd.Stderr = os.Stdout, os.Stdout
	if err := sshd.Start(); err != nil {
		return fmt.Errorf("sshd: %w", err)
	}
	fmt.Println("reference ready")
	return fmt.Errorf("sshd: %w", sshd.Wait())
}

// network sets what QEMU's user network expects of a guest that does not ask by DHCP.
func network() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	card, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(card); err != nil {
		return err
	}
	address := &net.IPNet{IP: net.IPv4(10, 0, 2, 15), Mask: net.CIDRMask(24, 32)}
	if err := netlink.AddrReplace(card, &netlink.Addr{IPNet: address}); err != nil {
		return err
	}
	return netlink.RouteReplace(&netlink.Route{LinkIndex: card.Attrs().Index, Gw: net.IPv4(10, 0, 2, 2)})
}

func serve() error {
	stream, err := net.Listen("tcp", ":7")
	if err != nil {
		return err
	}
	go each(stream, func(c net.Conn) { io.Copy(c, c) })
	mover, err := net.Listen("tcp", ":8")
	if err != nil {
		return err
	}
	go each(mover, move)
	flow, err := net.ListenPacket("udp", ":7")
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 65535)
		for {
			n, from, err := flow.ReadFrom(buf)
			if err != nil {
				return
			}
			flow.WriteTo(buf[:n], from)
		}
	}()
	return nil
}

func each(l net.Listener, handle func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			handle(c)
		}()
	}
}

// move reads how many bytes to send (8 bytes, big-endian) and the length and text of an address, connects
// to it, sends them, ends its side, reads to the end, and answers with the count of what came.
func move(c net.Conn) {
	var head [9]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return
	}
	address := make([]byte, head[8])
	if _, err := io.ReadFull(c, address); err != nil {
		return
	}
	to, err := net.Dial("tcp", string(address))
	if err != nil {
		fmt.Println("reference:", err)
		return
	}
	defer to.Close()
	go func() {
		io.CopyBuffer(to, io.LimitReader(zeros{}, int64(binary.BigEndian.Uint64(head[:8]))), make([]byte, 256<<10))
		to.(*net.TCPConn).CloseWrite()
	}()
	n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, to, make([]byte, 256<<10))
	c.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }
