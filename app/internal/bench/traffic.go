//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// pingCount is how many pings are timed.
const pingCount = 500

func (b *bench) pings(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "==> pings")
	c := b.engine()
	var host []float64
	for range pingCount {
		begun := time.Now()
		if _, err := call(ctx, c, "GET", "/_ping", nil); err != nil {
			return err
		}
		host = append(host, time.Since(begun).Seconds())
	}
	slices.Sort(host)
	guest, err := b.inGuest(ctx, "GET", "/_ping", strconv.Itoa(pingCount))
	if err != nil {
		return err
	}
	m, err := b.Measure(ctx, 1<<20)
	if err != nil {
		return err
	}
	for _, q := range []struct {
		name string
		at   float64
		raw  float64
	}{{"p50", 0.5, m.RTTp50}, {"p99", 0.99, m.RTTp99}} {
		h, g := quantile(host, q.at), quantile(guest, q.at)
		b.row("`/_ping` "+q.name+" through docker.sock", ms(h), ms(g)+" inside the guest", fmt.Sprintf("%.1f", h/g))
		b.row("of that, the way: "+q.name, ms(h-g), ms(q.raw)+" raw "+m.Link+" round trip", fmt.Sprintf("%+.2f ms", (h-g-q.raw)*1e3))
	}
	b.row("a new transport connection, handshake included", ms(m.DialP50), ms(m.RTTp50)+" raw round trip", fmt.Sprintf("%.1f", m.DialP50/m.RTTp50))
	return nil
}

// throughput moves bytes that do not compress through the engine's calls, from the host and from inside
// the guest, beside the transport alone.
func (b *bench) throughput(ctx context.Context, size int64) error {
	fmt.Fprintln(os.Stderr, "==> throughput")
	m, err := b.Measure(ctx, size)
	if err != nil {
		return err
	}
	data := make([]byte, size)
	rand.Read(data)
	archive := filepath.Join(b.work, "data.tar")
	if err := writeTar(archive, data); err != nil {
		return err
	}
	if _, err := b.program(ctx, "docker", "import", archive, "cove/big"); err != nil {
		return err
	}
	image := filepath.Join(b.work, "image.tar")
	if _, err := b.program(ctx, "docker", "save", "-o", image, "cove/big"); err != nil {
		return err
	}
	if _, err := b.program(ctx, "docker", "create", "--name", "box", "cove/bench"); err != nil {
		return err
	}
	for host, guest := range map[string]string{image: "/var/tmp/image.tar", archive: "/var/tmp/data.tar"} {
		if err := b.upload(ctx, host, guest); err != nil {
			return err
		}
	}
	c := b.engine()
	for _, w := range []struct {
		what, method, path, file, there string
		raw                             float64
	}{
		{"`docker load`", "POST", "/images/load?quiet=1", image, "/var/tmp/image.tar", m.ToGuest},
		{"`docker save`", "GET", "/images/get?names=cove/big", "", "", m.FromGuest},
		{"`docker cp` into a container", "PUT", "/containers/box/archive?path=/", archive, "/var/tmp/data.tar", m.ToGuest},
		{"`docker cp` out of one", "GET", "/containers/box/archive?path=/data", "", "", m.FromGuest},
	} {
		args := []string{w.method, w.path, "3"}
		if w.there != "" {
			args = append(args, w.there)
		}
		var host []float64
		for range 3 {
			var body io.Reader
			if w.file != "" {
				f, err := os.Open(w.file)
				if err != nil {
					return err
				}
				defer f.Close()
				body = f
			}
			begun := time.Now()
			if _, err := call(ctx, c, w.method, w.path, body); err != nil {
				return err
			}
			host = append(host, time.Since(begun).Seconds())
		}
		slices.Sort(host)
		guest, err := b.inGuest(ctx, args...)
		if err != nil {
			return err
		}
		h, g := float64(size)/host[1]/1e6, float64(size)/guest[1]/1e6
		b.row(w.what, fmt.Sprintf("%.0f MB/s", h), fmt.Sprintf("%.0f MB/s inside the guest, %.0f MB/s raw %s", g, w.raw/1e6, m.Link), fmt.Sprintf("%.2f of the guest's, %.2f of raw", h/g, h/(w.raw/1e6)))
	}
	return nil
}

// upload puts a file into the guest.
func (b *bench) upload(ctx context.Context, host, guest string) error {
	f, err := os.Open(host)
	if err != nil {
		return err
	}
	defer f.Close()
	return b.shellInput(ctx, f, "cat > "+guest)
}

func writeTar(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	err = w.WriteHeader(&tar.Header{Name: "data", Mode: 0o644, Size: int64(len(data))})
	if err == nil {
		_, err = io.Copy(w, bytes.NewReader(data))
	}
	return errors.Join(err, w.Close(), f.Close())
}

// crowd is how many connections are open at once.
const crowd = 1000

// connections opens many at once, holds them, and counts what did not answer.
func (b *bench) connections(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "==> connections")
	before, err := b.memory(ctx)
	if err != nil {
		return err
	}
	conns := make([]net.Conn, crowd)
	var mu sync.Mutex
	var wg sync.WaitGroup
	hung, refused := 0, 0
	begun := time.Now()
	for i := range conns {
		wg.Go(func() {
			c, err := net.Dial("unix", b.home.Docker())
			if err == nil {
				c.SetDeadline(time.Now().Add(time.Minute))
				fmt.Fprint(c, "GET /_ping HTTP/1.1\r\nHost: engine\r\n\r\n")
				head := make([]byte, 15)
				if _, err = io.ReadFull(c, head); err == nil && string(head) != "HTTP/1.1 200 OK" {
					err = errors.New(string(head))
				}
			}
			conns[i] = c
			mu.Lock()
			defer mu.Unlock()
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				hung++
			} else if err != nil {
				refused++
			}
		})
	}
	wg.Wait()
	took := time.Since(begun).Seconds()
	after, err := b.memory(ctx)
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
	if err != nil {
		return err
	}
	b.row(fmt.Sprintf("%d connections at once", crowd), fmt.Sprintf("%d hung, %d refused, all answered after %.1f s", hung, refused, took), "", "")
	b.row("coved's memory for each of them", fmt.Sprintf("%.0f KiB", float64(after-before)/crowd/1024), "anonymous memory before and while they are open", "")
	return nil
}

// memory is coved's own memory in bytes: anonymous and file, not the guest's that it maps.
func (b *bench) memory(ctx context.Context) (int64, error) {
	s, err := b.Status(ctx)
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Daemon.PID))
	if err != nil {
		return 0, err
	}
	var total int64
	for line := range strings.Lines(string(text)) {
		var n int64
		for _, name := range []string{"RssAnon", "RssFile"} {
			if k, _ := fmt.Sscanf(line, name+": %d kB", &n); k == 1 {
				total += n << 10
			}
		}
	}
	return total, nil
}
