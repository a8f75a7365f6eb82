//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/covedesk/cove/app/api"
)

// laterStarts is how many starts after the first are measured; the median is shown.
const laterStarts = 3

// engine is an HTTP client of docker.sock.
func (b *bench) engine() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", b.home.Docker())
	}, MaxIdleConnsPerHost: 4, WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10}}
}

// call makes a call of the engine's API and gives the size of its answer.
func call(ctx context.Context, c *http.Client, method, path string, body io.Reader) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://engine"+path, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/x-tar")
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return 0, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return io.Copy(io.Discard, resp.Body)
}

// starts measures the first start, and later ones to the first ping and to the first container's output.
func (b *bench) starts(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "==> the first start")
	begun := time.Now()
	if _, err := b.cove(ctx, "start"); err != nil {
		return err
	}
	first := time.Since(begun).Seconds()
	probe := 0.0
	s, err := b.Status(ctx)
	if err != nil {
		return err
	}
	for _, t := range s.Timeline {
		if t.Where == "host" && t.Name == "start the VM" {
			probe = t.Seconds
		}
	}
	if err := b.makeImage(ctx); err != nil {
		return err
	}
	var pings, outputs, kernels []float64
	for i := range laterStarts {
		fmt.Fprintf(os.Stderr, "==> start %d of %d\n", i+2, laterStarts+1)
		if err := b.Stop(ctx); err != nil {
			return err
		}
		ping, output, err := b.start(ctx)
		if err != nil {
			return err
		}
		if s, err = b.Status(ctx); err != nil {
			return err
		}
		pings, outputs, kernels = append(pings, ping), append(outputs, output), append(kernels, bareKernel(s))
	}
	for _, l := range [][]float64{pings, outputs, kernels} {
		slices.Sort(l)
	}
	kernel := kernels[len(kernels)/2]
	reference := fmt.Sprintf("%.1f s from QEMU's start to init", kernel)
	b.row("start to `/_ping`", fmt.Sprintf("%.1f s", pings[len(pings)/2]), reference, fmt.Sprintf("%.1f", pings[len(pings)/2]/kernel))
	b.row("start to the first container's output", fmt.Sprintf("%.1f s", outputs[len(outputs)/2]), reference, fmt.Sprintf("%.1f", outputs[len(outputs)/2]/kernel))
	b.row("first start of a new home (image installed, accelerator proven, disk formatted)", fmt.Sprintf("%.1f s", first), fmt.Sprintf("%.1f s of it choosing the accelerator and starting QEMU", probe), "")
	out, err := b.cove(ctx, "status", "--timeline")
	if err == nil {
		fmt.Fprint(os.Stderr, out)
	}
	return err
}

// bareKernel is the time from QEMU's start to the first instruction of init, in this same start.
func bareKernel(s api.Status) float64 {
	vm, init := 0.0, 0.0
	for _, t := range s.Timeline {
		switch {
		case t.Where == "host" && t.Name == "start the VM":
			vm = t.Start
		case t.Where == "guest" && t.Name == "kernel":
			init = t.Start + t.Seconds
		}
	}
	return init - vm
}

// start starts the engine and gives the seconds to the first ping and to the first container's output.
// Both wait at docker.sock, as a user's calls do.
func (b *bench) start(ctx context.Context) (ping, output float64, err error) {
	begun := time.Now()
	started := make(chan error, 1)
	go func() { started <- b.Start(ctx) }()
	for { // the first calls may come before the start: they are told that the engine is stopped
		s, err := b.Status(ctx)
		if err != nil {
			return 0, 0, err
		}
		if s.Phase != api.Stopped {
			break
		}
	}
	ran := make(chan error, 1)
	go func() {
		_, err := b.program(ctx, "docker", "run", "--rm", "cove/bench")
		output = time.Since(begun).Seconds()
		ran <- err
	}()
	_, err = call(ctx, b.engine(), "GET", "/_ping", nil)
	ping = time.Since(begun).Seconds()
	return ping, output, errors.Join(err, <-started, <-ran)
}

// makeImage imports an image with one static program in it.
func (b *bench) makeImage(ctx context.Context) error {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(b.work, "hello"), "./packaging/hello")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build hello: %w: %s", err, out)
	}
	tar := exec.CommandContext(ctx, "tar", "-C", b.work, "-cf", filepath.Join(b.work, "hello.tar"), "hello")
	if out, err := tar.CombinedOutput(); err != nil {
		return fmt.Errorf("pack hello: %w: %s", err, out)
	}
	_, err := b.program(ctx, "docker", "import", "--change", `ENTRYPOINT ["/hello"]`, filepath.Join(b.work, "hello.tar"), "cove/bench")
	return err
}
