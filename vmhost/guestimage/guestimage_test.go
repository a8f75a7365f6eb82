package guestimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func sample(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	info := Info{Schema: Schema, Arch: "amd64"}
	for _, name := range []string{KernelFile, InitrdFile, RootFile} {
		b := []byte("content of " + name)
		sum := sha256.Sum256(b)
		info.Files = append(info.Files, File{Name: name, Size: int64(len(b)), SHA256: hex.EncodeToString(sum[:])})
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	info.Digest = DigestOf(info.Files)
	b, _ := json.Marshal(info)
	if err := os.WriteFile(filepath.Join(dir, ManifestFile), b, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestDamage(t *testing.T) {
	isDigest := func(err error) bool { var d *DigestError; return errors.As(err, &d) }
	isMissing := func(err error) bool { return errors.Is(err, ErrMissing) }
	for _, tt := range []struct {
		what   string
		damage func(dir string) error
		want   func(error) bool
	}{
		{"a changed byte is found", func(d string) error {
			return os.WriteFile(filepath.Join(d, RootFile), []byte("c0ntent of root.erofs"), 0o600)
		}, isDigest},
		{"a truncated file is found", func(d string) error { return os.Truncate(filepath.Join(d, KernelFile), 3) }, isDigest},
		{"a missing file is found", func(d string) error { return os.Remove(filepath.Join(d, InitrdFile)) }, isMissing},
		{"a missing manifest is found", func(d string) error { return os.Remove(filepath.Join(d, ManifestFile)) }, isMissing},
		{"a manifest that is not JSON is refused", func(d string) error { return os.WriteFile(filepath.Join(d, ManifestFile), []byte("{"), 0o600) }, func(err error) bool { return err != nil }},
		{"a manifest that names a path elsewhere is refused", func(d string) error {
			return os.WriteFile(filepath.Join(d, ManifestFile), []byte(`{"schema":"cove.image/1","files":[{"name":"../x"}]}`), 0o600)
		}, func(err error) bool { return err != nil }},
	} {
		dir := sample(t)
		installed, err := Install(t.Context(), dir, filepath.Join(t.TempDir(), "images"))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range []string{dir, installed.Dir} {
			if err := tt.damage(d); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(t.Context(), d); !tt.want(err) {
				t.Errorf("%s: Open = %v", tt.what, err)
			}
		}
		if _, err := Install(t.Context(), dir, filepath.Join(t.TempDir(), "images")); !tt.want(err) {
			t.Errorf("%s: Install = %v", tt.what, err)
		}
	}
}

func TestInstallMendsADamagedCopy(t *testing.T) {
	src, images := sample(t), filepath.Join(t.TempDir(), "images")
	img, err := Install(t.Context(), src, images)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(img.Root(), []byte("C0ntent of root.erofs"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Chtimes(img.Root(), time.Now(), time.Now().Add(time.Hour))
	if img, err = Install(t.Context(), src, images); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(img.Root()); string(b) != "content of root.erofs" {
		t.Errorf("after a second Install the file is %q", b)
	}
}

func TestManyInstallAtOnce(t *testing.T) {
	src, images := sample(t), filepath.Join(t.TempDir(), "images")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := Install(context.Background(), src, images); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	left, _ := filepath.Glob(filepath.Join(images, ".part-*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
