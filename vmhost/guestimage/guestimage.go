// Package guestimage finds the guest image and promises that what is booted is what its digest says:
// every file is read whole and compared before its first boot, and again whenever it has changed since.
package guestimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/lima-vm/lima/v2/pkg/lockutil"
)

// ErrMissing says that there is no image in a folder.
var ErrMissing = errors.New("no guest image")

// DigestError says that a file is not the one that the image's manifest names.
type DigestError struct {
	File      string
	Want, Got string // SHA-256 in hex, or a size in bytes
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("%s is damaged: its digest is %.12s…, the image's manifest says %.12s…", e.File, e.Got, e.Want)
}

// Image is a verified image in a folder.
type Image struct {
	Dir  string
	Info Info
}

// Kernel, Initrd and Root are the paths of the image's files.
func (i *Image) Kernel() string { return filepath.Join(i.Dir, KernelFile) }
func (i *Image) Initrd() string { return filepath.Join(i.Dir, InitrdFile) }
func (i *Image) Root() string   { return filepath.Join(i.Dir, RootFile) }

// Open reads the manifest in dir and verifies every file. Without a manifest the error is ErrMissing;
// a file that differs is a *DigestError.
func Open(ctx context.Context, dir string) (*Image, error) {
	info, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	known := readStamp(dir)
	for _, f := range info.Files {
		if err := verify(ctx, dir, f, known); err != nil {
			return nil, err
		}
	}
	return &Image{Dir: dir, Info: info}, nil
}

func readManifest(dir string) (Info, error) {
	b, err := os.ReadFile(filepath.Join(dir, ManifestFile))
	if errors.Is(err, os.ErrNotExist) {
		return Info{}, fmt.Errorf("%s: %w", dir, ErrMissing)
	}
	if err != nil {
		return Info{}, fmt.Errorf("read image manifest: %w", err)
	}
	var info Info
	if err := json.Unmarshal(b, &info); err != nil {
		return Info{}, fmt.Errorf("read image manifest %s: %w", filepath.Join(dir, ManifestFile), err)
	}
	if info.Schema != Schema {
		return Info{}, fmt.Errorf("image manifest in %s has the form %q; this version of Cove reads %q", dir, info.Schema, Schema)
	}
	have := map[string]bool{}
	for _, f := range info.Files {
		if f.Name != filepath.Base(f.Name) || strings.HasPrefix(f.Name, ".") {
			return Info{}, fmt.Errorf("image manifest in %s names the file %q, which is not a plain name", dir, f.Name)
		}
		have[f.Name] = true
	}
	for _, name := range []string{KernelFile, InitrdFile, RootFile} {
		if !have[name] {
			return Info{}, fmt.Errorf("image manifest in %s does not name %s", dir, name)
		}
	}
	if got := DigestOf(info.Files); got != info.Digest {
		return Info{}, &DigestError{File: ManifestFile, Want: info.Digest, Got: got}
	}
	return info, nil
}

// verify reads a file whole unless the stamp says that this very file was read before.
func verify(ctx context.Context, dir string, f File, known stamp) error {
	path := filepath.Join(dir, f.Name)
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %s is missing: %w", dir, f.Name, ErrMissing)
	}
	if err != nil {
		return err
	}
	if st.Size() != f.Size {
		return &DigestError{File: path, Want: fmt.Sprint(f.Size, " bytes"), Got: fmt.Sprint(st.Size(), " bytes")}
	}
	if known[f.Name] == identity(st)+f.SHA256 {
		return nil
	}
	sum, err := digest(ctx, path)
	if err != nil {
		return err
	}
	if sum != f.SHA256 {
		return &DigestError{File: path, Want: f.SHA256, Got: sum}
	}
	return nil
}

// Install verifies the image in src and places it in dir/<digest>, whole or not at all; an image that
// is there already is verified and used.
func Install(ctx context.Context, src, dir string) (*Image, error) {
	info, err := readManifest(src)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("install image: %w", err)
	}
	var img *Image
	// Or one process takes away what another has just put there.
	err = lockutil.WithDirLock(dir, func() error {
		img, err = install(ctx, src, dir, info)
		return err
	})
	return img, err
}

func install(ctx context.Context, src, dir string, info Info) (*Image, error) {
	dst := filepath.Join(dir, strings.TrimPrefix(info.Digest, "sha256:")[:16])
	if img, err := Open(ctx, dst); err == nil && img.Info.Digest == info.Digest {
		return img, nil
	}
	part, err := os.MkdirTemp(dir, ".part-")
	if err != nil {
		return nil, fmt.Errorf("install image: %w", err)
	}
	defer os.RemoveAll(part)
	for _, f := range info.Files {
		if err := copyFile(ctx, filepath.Join(part, f.Name), filepath.Join(src, f.Name), f); err != nil {
			return nil, err
		}
	}
	manifest, err := os.ReadFile(filepath.Join(src, ManifestFile))
	if err != nil {
		return nil, fmt.Errorf("install image: %w", err)
	}
	if err := os.WriteFile(filepath.Join(part, ManifestFile), manifest, 0o600); err != nil {
		return nil, fmt.Errorf("install image: %w", err)
	}
	if err := writeStamp(part, info.Files); err != nil {
		return nil, err
	}
	// What stands in the way failed its verification above.
	if err := os.RemoveAll(dst); err != nil {
		return nil, fmt.Errorf("install image: %w", err)
	}
	if err := os.Rename(part, dst); err != nil {
		return nil, fmt.Errorf("install image: %w", err)
	}
	return Open(ctx, dst)
}

// copyFile copies and verifies in one pass, so that what is kept is what was read.
func copyFile(ctx context.Context, dst, src string, want File) error {
	in, err := os.Open(src)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is missing: %w", src, ErrMissing)
	}
	if err != nil {
		return fmt.Errorf("install image: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("install image: %w", err)
	}
	defer out.Close()
	h := sha256.New()
	if _, err := io.Copy(out, io.TeeReader(reader{ctx, in}, h)); err != nil {
		return fmt.Errorf("install image: copy %s: %w", want.Name, err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != want.SHA256 {
		return &DigestError{File: src, Want: want.SHA256, Got: sum}
	}
	if err := out.Sync(); err != nil {
		return fmt.Errorf("install image: %w", err)
	}
	return out.Close()
}

func digest(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("verify image: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, reader{ctx, f}); err != nil {
		return "", fmt.Errorf("verify image: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// reader stops when its context does.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}
