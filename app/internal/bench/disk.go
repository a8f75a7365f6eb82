//go:build linux

package main

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/covedesk/cove/vmhost/disk"
)

const (
	// imageSize of the image that is deleted.
	imageSize = 1 << 30
	// backPatience bounds the wait for its blocks.
	backPatience = 2 * time.Minute
	// mostOf is what has to be back for the time to count; the journal and the engine's tables stay.
	mostOf = 0.95
)

// disk deletes an image and watches the blocks of the host come back.
func (b *bench) disk(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "==> disk")
	before, err := b.settled(ctx)
	if err != nil {
		return err
	}
	if err := b.importFat(ctx, "cove/fat"); err != nil {
		return err
	}
	full, err := b.settled(ctx)
	if err != nil {
		return err
	}
	begun := time.Now()
	if _, err := b.program(ctx, "docker", "rmi", "cove/fat"); err != nil {
		return err
	}
	deleted := time.Since(begun)
	back := func() (float64, error) {
		now, err := b.allocated(ctx)
		return float64(full-now) / float64(full-before), err
	}
	share, err := back()
	for err == nil && share < mostOf && time.Since(begun) < backPatience {
		time.Sleep(100 * time.Millisecond)
		share, err = back()
	}
	if err != nil {
		return err
	}
	b.row("blocks back on the host after a 1 GiB image was deleted", fmt.Sprintf("%.0f %% after %.1f s", 100*share, time.Since(begun).Seconds()),
		fmt.Sprintf("%d MB that it took, %.1f s of it `docker rmi`", (full-before)/1e6, deleted.Seconds()), "")
	return nil
}

// settled is what the data disk takes on the host, in bytes, when the guest has written all.
func (b *bench) settled(ctx context.Context) (int64, error) {
	if _, err := b.cove(ctx, "shell", "--", "sync"); err != nil {
		return 0, err
	}
	return b.allocated(ctx)
}

func (b *bench) allocated(ctx context.Context) (int64, error) {
	s, err := b.Status(ctx)
	if err != nil {
		return 0, err
	}
	u, err := disk.UsageOf(s.Disk.Path)
	return u.Allocated, err
}

// importFat imports an image whose one file is large, has no zeros, and does not take long to compress.
func (b *bench) importFat(ctx context.Context, name string) error {
	piece := make([]byte, 16<<10) // less than gzip looks back
	rand.Read(piece)
	r, w := io.Pipe()
	go func() {
		t := tar.NewWriter(w)
		err := t.WriteHeader(&tar.Header{Name: "fat", Typeflag: tar.TypeReg, Mode: 0o644, Size: imageSize})
		for n := 0; err == nil && n < imageSize; n += len(piece) {
			_, err = t.Write(piece)
		}
		if err == nil {
			err = t.Close()
		}
		w.CloseWithError(err)
	}()
	defer r.Close()
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "docker"), "import", "-", name)
	cmd.Env = b.environ()
	cmd.Stdin = r
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("docker import: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
