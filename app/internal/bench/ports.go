//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/covedesk/cove/app/api"
)

// Counts of the rows about ports. A port is published and let go of as often as the ranges times rounds.
const (
	connects    = 300
	datagrams   = 1000
	portsAtOnce = 50
	portRounds  = 20
	// portMeasures is how often each way is measured.
	portMeasures = 3
)

// ports measures published ports: what goes through, how soon, and whether they come and go in step.
func (b *bench) ports(ctx context.Context, size int64) error {
	fmt.Fprintln(os.Stderr, "==> published ports")
	if err := b.makeProbe(ctx); err != nil {
		return err
	}
	for _, name := range []string{"echo", "echo-udp"} {
		if _, err := b.program(ctx, "docker", "run", "-d", "--name", name, "-p", "7/tcp", "-p", "7/udp", "cove/probe", name, "7"); err != nil {
			return err
		}
	}
	defer b.program(context.Background(), "docker", "rm", "-f", "echo", "echo-udp")
	stream, err := b.publishedAt(ctx, "echo", "tcp")
	if err != nil {
		return err
	}
	flow, err := b.publishedAt(ctx, "echo-udp", "udp")
	if err != nil {
		return err
	}
	r, err := b.startReference(ctx, accelerator(ctx, b))
	if err != nil {
		return err
	}
	defer r.stop()
	ways := map[string]string{"ours": stream.Address, "hostfwd": r.stream, "ssh": r.throughSSH}
	rates, opens := map[string][]float64{}, map[string][]float64{}
	for range portMeasures { // by turns, so that all meet the same neighbours
		for name, address := range ways {
			rate, err := echoRate(address, size)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			times, err := echoTimes("tcp", address, connects)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			rates[name], opens[name] = append(rates[name], rate), append(opens[name], quantile(times, 0.5))
		}
	}
	rate := func(name string) float64 { slices.Sort(rates[name]); return quantile(rates[name], 0.5) }
	open := func(name string) float64 { slices.Sort(opens[name]); return quantile(opens[name], 0.5) }
	b.row("a stream through a published port and back", fmt.Sprintf("%.1f MB/s", rate("ours")/1e6),
		fmt.Sprintf("%.1f MB/s by ssh -L, %.1f by QEMU's hostfwd, both to a guest without a container", rate("ssh")/1e6, rate("hostfwd")/1e6),
		fmt.Sprintf("%.1f of ssh's, %.1f of hostfwd's", rate("ours")/rate("ssh"), rate("ours")/rate("hostfwd")))
	b.row("connect to a published port, a byte there and back, p50", ms(open("ours")),
		fmt.Sprintf("%s by ssh -L, %s by hostfwd", ms(open("ssh")), ms(open("hostfwd"))), fmt.Sprintf("%.1f of ssh's, %.1f of hostfwd's", open("ours")/open("ssh"), open("ours")/open("hostfwd")))
	ours, err := echoTimes("udp", flow.Address, datagrams)
	if err != nil {
		return err
	}
	theirs, err := echoTimes("udp", r.flow, datagrams)
	if err != nil {
		return err
	}
	b.row(fmt.Sprintf("a datagram there and back, p50 of %d", datagrams), ms(quantile(ours, 0.5)), ms(quantile(theirs, 0.5))+" by hostfwd", fmt.Sprintf("%.1f", quantile(ours, 0.5)/quantile(theirs, 0.5)))
	r.stop()
	return b.inStep(ctx)
}

// inStep publishes many ports again and again and counts those that were not there after docker start,
// and those that were not free after docker stop.
func (b *bench) inStep(ctx context.Context) error {
	const first = 28000
	ports := fmt.Sprintf("%d-%d", first, first+portsAtOnce-1)
	if _, err := b.program(ctx, "docker", "create", "--name", "many", "--stop-timeout", "0", "-p", ports+":"+ports, "cove/probe", "echo", fmt.Sprint(first)); err != nil {
		return err
	}
	defer b.program(context.Background(), "docker", "rm", "-f", "many")
	missing, held := 0, 0
	var starts []float64
	for range portRounds {
		begun := time.Now()
		if _, err := b.program(ctx, "docker", "start", "many"); err != nil {
			return err
		}
		starts = append(starts, time.Since(begun).Seconds())
		for i := range portsAtOnce {
			c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", first+i), time.Minute)
			if err == nil {
				c.Close()
			} else if !errors.Is(err, syscall.ECONNRESET) { // it was there: in the container nobody listens on most
				missing++
			}
		}
		if _, err := b.program(ctx, "docker", "stop", "many"); err != nil {
			return err
		}
		for i := range portsAtOnce {
			l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", first+i))
			if err != nil {
				held++
				continue
			}
			l.Close()
		}
	}
	slices.Sort(starts)
	n := portsAtOnce * portRounds
	b.row(fmt.Sprintf("%d ports published, %d at a time", n, portsAtOnce), fmt.Sprintf("%d not there after `docker start`, %d not free after `docker stop`", missing, held),
		fmt.Sprintf("%.1f s for a start with %d ports", quantile(starts, 0.5), portsAtOnce), "")
	return nil
}

// accelerator is QEMU's argument for the one that Cove runs on.
func accelerator(ctx context.Context, b *bench) string {
	if s, err := b.Status(ctx); err == nil && s.Machine != nil && s.Machine.Accelerator != "tcg" {
		return s.Machine.Accelerator
	}
	return "tcg,thread=multi"
}

// makeProbe imports an image with the tests' probe in it.
func (b *bench) makeProbe(ctx context.Context) error {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(b.work, "probe"), "./app/e2e/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the probe: %w: %s", err, out)
	}
	tar := exec.CommandContext(ctx, "tar", "-C", b.work, "-cf", filepath.Join(b.work, "probe.tar"), "probe")
	if out, err := tar.CombinedOutput(); err != nil {
		return fmt.Errorf("pack the probe: %w: %s", err, out)
	}
	_, err := b.program(ctx, "docker", "import", "--change", `ENTRYPOINT ["/probe"]`, filepath.Join(b.work, "probe.tar"), "cove/probe")
	return err
}

// publishedAt is a container's port, once its program answers.
func (b *bench) publishedAt(ctx context.Context, name, proto string) (api.Port, error) {
	out, err := b.cove(ctx, "ports", "--json")
	if err != nil {
		return api.Port{}, err
	}
	var all []api.Port
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return api.Port{}, err
	}
	for _, p := range all {
		if p.Container == nil || p.Container.Name != name || p.Protocol != proto {
			continue
		}
		for end := time.Now().Add(time.Minute); ; {
			if _, err = echoTimes(proto, p.Address, 1); err == nil || time.Now().After(end) {
				return p, err
			}
		}
	}
	return api.Port{}, fmt.Errorf("no port of %s in %s", name, strings.TrimSpace(out))
}

// echoRate is bytes a second, there and back.
func echoRate(address string, size int64) (float64, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	data := make([]byte, size)
	rand.Read(data)
	begun := time.Now()
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		sent <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
	}()
	n, err := io.Copy(io.Discard, c)
	if err := errors.Join(err, <-sent); err != nil {
		return 0, err
	}
	if n != size {
		return 0, fmt.Errorf("%d of %d bytes came back", n, size)
	}
	return float64(size) / time.Since(begun).Seconds(), nil
}

// echoTimes are the sorted seconds of exchanges of one byte: over TCP each on a connection of its own.
func echoTimes(network, address string, count int) ([]float64, error) {
	var out []float64
	var c net.Conn
	var err error
	for range count {
		begun := time.Now()
		if network == "tcp" || c == nil {
			if c, err = net.Dial(network, address); err != nil {
				return nil, err
			}
			defer c.Close()
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write([]byte{1}); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			return nil, err
		}
		out = append(out, time.Since(begun).Seconds())
		if network == "tcp" {
			c.Close()
		}
	}
	slices.Sort(out)
	return out, nil
}
