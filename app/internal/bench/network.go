//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/covedesk/cove/vmhost/netstack"
)

// Counts of the rows about the way out.
const (
	outMeasures = 3
	outConnects = 100
	outBytes    = 64 << 20
)

// network measures the way out of the VM: from a container through Cove's network to a server on the
// host's loopback, and from the reference guest through QEMU's own to the same server.
func (b *bench) network(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "==> the way out")
	if err := b.makeProbe(ctx); err != nil {
		return err
	}
	if _, err := b.program(ctx, "docker", "run", "-d", "--name", "mover", "-p", "8/tcp", "cove/probe", "move", "8"); err != nil {
		return err
	}
	if _, err := b.program(ctx, "docker", "run", "-d", "--name", "echoer", "-p", "7/tcp", "cove/probe", "echo", "7"); err != nil {
		return err
	}
	defer b.program(context.Background(), "docker", "rm", "-f", "mover", "echoer")
	echoer, err := b.publishedAt(ctx, "echoer", "tcp")
	if err != nil {
		return err
	}
	mover, err := b.publishedPort(ctx, "mover")
	if err != nil {
		return err
	}
	r, err := b.startReference(ctx, accelerator(ctx, b))
	if err != nil {
		return err
	}
	defer r.stop()
	servers := map[string]func(net.Conn){
		"up":   func(c net.Conn) { io.Copy(io.Discard, c) },
		"down": func(c net.Conn) { io.CopyN(c, zeroes{}, outBytes) },
		"echo": func(c net.Conn) { io.Copy(c, c) },
	}
	ports := map[string]string{}
	for name, serve := range servers {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { defer c.Close(); serve(c) }()
			}
		}()
		_, ports[name], _ = net.SplitHostPort(l.Addr().String())
	}
	ways := map[string]struct{ mover, echo, host string }{
		"ours": {mover, echoer.Address, netstack.Host.String()}, "slirp": {r.mover, r.stream, "10.0.2.2"},
	}
	rates, opens := map[string][]float64{}, map[string][]float64{}
	for range outMeasures { // by turns, so that both meet the same neighbours
		for name, w := range ways {
			for way, send := range map[string]int64{"up": outBytes, "down": 0} {
				took, n, err := moved(w.mover, net.JoinHostPort(w.host, ports[way]), send)
				if err != nil {
					return fmt.Errorf("%s %s: %w", name, way, err)
				}
				if way == "down" && n != outBytes {
					return fmt.Errorf("%s: %d of %d bytes came", name, n, outBytes)
				}
				rates[name+way] = append(rates[name+way], outBytes/took)
			}
			// What it takes to ask for it is taken off.
			asked, err := echoTimes("tcp", w.echo, outConnects)
			if err != nil {
				return err
			}
			var all []float64
			for range outConnects {
				took, _, err := moved(w.mover, net.JoinHostPort(w.host, ports["echo"]), 1)
				if err != nil {
					return err
				}
				all = append(all, took)
			}
			slices.Sort(all)
			opens[name] = append(opens[name], quantile(all, 0.5)-quantile(asked, 0.5))
		}
	}
	median := func(v []float64) float64 { slices.Sort(v); return quantile(v, 0.5) }
	for _, way := range []string{"up", "down"} {
		ours, theirs := median(rates["ours"+way]), median(rates["slirp"+way])
		b.row("a container's stream to the host, "+way, fmt.Sprintf("%.0f MB/s", ours/1e6), fmt.Sprintf("%.0f MB/s by QEMU's user network, without a container", theirs/1e6), fmt.Sprintf("%.1f", ours/theirs))
	}
	ours, theirs := median(opens["ours"]), median(opens["slirp"])
	b.row("a connection out, a byte there and back, p50", ms(ours), ms(theirs)+" by QEMU's user network", fmt.Sprintf("%.1f", ours/theirs))
	return nil
}

// publishedPort is where a container's only port is published.
func (b *bench) publishedPort(ctx context.Context, name string) (string, error) {
	out, err := b.program(ctx, "docker", "port", name)
	if err != nil {
		return "", err
	}
	var port, address string
	if _, err := fmt.Sscanf(out, "%s -> %s", &port, &address); err != nil {
		return "", fmt.Errorf("docker port says %q: %w", out, err)
	}
	return address, nil
}

// moved lets a guest connect to an address, send bytes, and read to the end. It gives how long that took,
// and how much came.
func moved(mover, address string, send int64) (float64, int64, error) {
	c, err := net.DialTimeout("tcp", mover, time.Minute)
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	begun := time.Now()
	ask := append(binary.BigEndian.AppendUint64(nil, uint64(send)), byte(len(address)))
	if _, err := c.Write(append(ask, address...)); err != nil {
		return 0, 0, err
	}
	var n [8]byte
	if _, err := io.ReadFull(c, n[:]); err != nil {
		return 0, 0, err
	}
	return time.Since(begun).Seconds(), int64(binary.BigEndian.Uint64(n[:])), nil
}

type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) { clear(b); return len(b), nil }
