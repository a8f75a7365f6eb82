//go:build linux

package ports

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/ports"
	"golang.org/x/sys/unix"
)

// UserlandName is the name by which guestd is the engine's userland proxy, and UserlandPath where the
// engine finds it.
const (
	UserlandName = "docker-proxy"
	UserlandPath = "/run/cove/" + UserlandName
)

// Descriptors that the engine hands its proxy (moby, cmd/docker-proxy/main_linux.go).
const (
	statusFd = 3 // takes "0\n", or "1\n" and an error
	listenFd = 4 // bound and listening
)

// Userland is the engine's userland proxy: it takes the same arguments as moby's own. The host serves who
// comes from outside; this process serves who comes from within the guest, such as a container on the
// host network. It runs until the engine ends it, and returns the exit status.
func Userland(args []string) int {
	unix.CloseOnExec(statusFd)
	unix.CloseOnExec(listenFd)
	status := os.NewFile(statusFd, "status")
	stop := make(chan os.Signal, 4)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM)
	u, err := newUserland(args)
	if err == nil {
		err = u.claim()
	}
	if err != nil {
		fmt.Fprintf(status, "1\n%v", err)
		status.Close()
		return 1
	}
	served := u.serve()
	io.WriteString(status, "0\n")
	status.Close()
	select {
	case <-stop:
	case <-u.gone:
		return 1 // the first process has ended, and so will all
	}
	u.release()
	u.end()
	select {
	case <-served:
	case <-stop:
	}
	return 0
}

type userland struct {
	bind protocol.Bind
	desk net.Conn
	gone chan struct{} // closed when the desk is
	told chan struct{} // closed when it said that the host let go
	end  context.CancelFunc
}

func newUserland(args []string) (*userland, error) {
	var proto string
	var hostIP, containerIP netip.Addr
	var hostPort, containerPort uint
	var useListenFd bool
	f := flag.NewFlagSet(UserlandName, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&proto, "proto", "tcp", "")
	f.TextVar(&hostIP, "host-ip", netip.IPv4Unspecified(), "")
	f.UintVar(&hostPort, "host-port", 0, "")
	f.TextVar(&containerIP, "container-ip", netip.IPv4Unspecified(), "")
	f.UintVar(&containerPort, "container-port", 0, "")
	f.BoolVar(&useListenFd, "use-listen-fd", false, "")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if proto != "tcp" && proto != "udp" {
		return nil, fmt.Errorf("Cove does not publish %s ports, only TCP and UDP. Containers in one network reach each other by any protocol", proto)
	}
	if !useListenFd {
		return nil, errors.New("the engine is too old for Cove's userland proxy: it hands it no socket")
	}
	at := netip.AddrPortFrom(hostIP.Unmap(), uint16(hostPort))
	to := netip.AddrPortFrom(containerIP.Unmap(), uint16(containerPort))
	return &userland{bind: protocol.Bind{Protocol: proto, Address: at.String(), Target: to.String()}, gone: make(chan struct{}), told: make(chan struct{})}, nil
}

// claim tells the first process where the port leads.
func (u *userland) claim() error {
	c, err := net.Dial("unix", Socket)
	if err != nil {
		return fmt.Errorf("reach guestd: %w", err)
	}
	line, err := json.Marshal(request{Claim: &u.bind})
	if err != nil {
		return err
	}
	if _, err := c.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("reach guestd: %w", err)
	}
	if err := readAnswer(c); err != nil {
		return err
	}
	u.desk = c
	go func() {
		if readAnswer(c) == nil {
			close(u.told)
			return
		}
		close(u.gone)
	}()
	return nil
}

// serve serves those who come from within the guest, and says when it has ended.
func (u *userland) serve() <-chan struct{} {
	var ctx context.Context
	ctx, u.end = context.WithCancel(context.Background())
	done := make(chan struct{})
	socket := os.NewFile(listenFd, "listener")
	go func() {
		defer close(done)
		defer socket.Close()
		if u.bind.Protocol == "tcp" {
			u.streams(ctx, socket)
		} else {
			u.datagrams(ctx, socket)
		}
	}()
	return done
}

func (u *userland) streams(ctx context.Context, socket *os.File) {
	l, err := net.FileListener(socket)
	if err != nil {
		return // the host serves all the same
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	ports.ServeTCP(ctx, l.(*net.TCPListener), func(client *net.TCPConn) {
		to, err := net.DialTimeout("tcp", u.bind.Target, connectPatience)
		if err != nil {
			client.SetLinger(0)
			client.Close()
			return
		}
		stop := context.AfterFunc(ctx, func() { client.Close(); to.Close() })
		defer stop()
		proxy.Join(client, to.(*net.TCPConn), nil)
	})
}

func (u *userland) datagrams(ctx context.Context, socket *os.File) {
	c, err := net.FilePacketConn(socket)
	if err != nil {
		return
	}
	ports.ServeUDP(ctx, c.(*net.UDPConn), ports.UDP{Dial: func(context.Context, netip.AddrPort) (net.Conn, error) {
		return net.Dial("udp", u.bind.Target)
	}})
}

// release lets go of the host's port and waits for it, but not for ever: the engine waits for this
// process, and the user for the engine.
func (u *userland) release() {
	io.WriteString(u.desk, releaseLine)
	select {
	case <-u.told:
	case <-u.gone:
	case <-time.After(releasePatience + time.Second):
	}
}
