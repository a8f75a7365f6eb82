//go:build linux

// Command probe is what the tests run inside containers: it asks the engine through a mounted socket,
// and it tries what a hostile container would.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) < 2 {
		fail("usage: probe engine|engine-post SOCKET PATH | echo PORT|SOCKET | echo-udp PORT | bind PORT | ask HOST:PORT|SOCKET TEXT | ssh-agent SOCKET | record DIR LAST | files DIR | lock flock|posix FILE | try-lock flock|posix FILE | scan ADDRESS… | ask-udp HOST:PORT TEXT | resolve NAME TYPE … | connects HOST:PORT COUNT | move PORT | clock | use memory|files MIB | vsock-connect CID PORT | vsock-squat PORT")
	}
	switch os.Args[1] {
	case "engine":
		engine(http.MethodGet, os.Args[2], os.Args[3])
	case "engine-post":
		begun := time.Now()
		engine(http.MethodPost, os.Args[2], os.Args[3])
		fmt.Printf("answered after %.1f s\n", time.Since(begun).Seconds())
	case "echo":
		echo(os.Args[2])
	case "ask":
		ask(os.Args[2], os.Args[3])
	case "echo-udp":
		echoUDP(os.Args[2])
	case "bind":
		bind(os.Args[2])
	case "ssh-agent":
		sshAgent(os.Args[2])
	case "record":
		record(os.Args[2], os.Args[3])
	case "files":
		files(os.Args[2])
	case "lock", "try-lock":
		lock(os.Args[2], os.Args[3], os.Args[1] == "try-lock")
	case "scan":
		scan(os.Args[2:])
	case "ask-udp":
		askUDP(os.Args[2], os.Args[3])
	case "resolve":
		resolve(os.Args[2:])
	case "connects":
		connectTimes(os.Args[2], os.Args[3])
	case "move":
		move(os.Args[2])
	case "clock":
		clock()
	case "use":
		use(os.Args[2], number(os.Args[3]))
	case "vsock-connect":
		vsockConnect(number(os.Args[2]), number(os.Args[3]))
	case "vsock-squat":
		vsockSquat(number(os.Args[2]))
	default:
		fail("no such probe: " + os.Args[1])
	}
}

// engine prints the answer to a call without a body on the engine's socket.
func engine(method, socket, path string) {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequest(method, "http://engine"+path, nil)
	if err != nil {
		fail(err.Error())
	}
	resp, err := client.Do(req)
	if err != nil {
		fail(err.Error())
	}
	defer resp.Body.Close()
	io.Copy(os.Stdout, resp.Body)
}

// echo sends back what it gets on a TCP port or a unix socket, for ever.
func echo(at string) {
	network, address := "tcp", ":"+at
	if strings.Contains(at, "/") {
		network, address = "unix", at
	}
	l, err := net.Listen(network, address)
	if err != nil {
		fail(err.Error())
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			fail(err.Error())
		}
		go func() {
			defer conn.Close()
			io.Copy(conn, conn)
		}()
	}
}

// ask prints what comes back for a text. A server that is not up yet is asked again for a minute.
func ask(address, text string) {
	network := "tcp"
	if strings.Contains(address, "/") {
		network = "unix"
	}
	var conn net.Conn
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if conn, err = net.Dial(network, address); err == nil {
			break
		}
	}
	if err != nil {
		fail(err.Error())
	}
	fmt.Fprint(conn, text)
	conn.(interface{ CloseWrite() error }).CloseWrite()
	io.Copy(os.Stdout, conn)
	fmt.Println() // the engine logs whole lines
}

// vsockConnect prints "connected" and what the peer says first, or the error.
func vsockConnect(cid, port uint32) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err != nil {
		fmt.Println("socket:", err)
		return
	}
	tv := unix.NsecToTimeval((5 * time.Second).Nanoseconds())
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: cid, Port: port}); err != nil {
		fmt.Println("connect:", err)
		return
	}
	unix.Write(fd, []byte("COVE?\n"))
	buf := make([]byte, 64)
	n, err := unix.Read(fd, buf)
	fmt.Printf("connected, read %d bytes, %v\n", n, err)
}

// vsockSquat tries to listen where guestd does, and if that works answers every caller with garbage.
func vsockSquat(port uint32) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err != nil {
		fmt.Println("socket:", err)
		return
	}
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}); err != nil {
		fmt.Println("bind:", err)
		return
	}
	fmt.Println("bound")
}

func number(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		fail(err.Error())
	}
	return uint32(n)
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, "probe:", why)
	os.Exit(1)
}
