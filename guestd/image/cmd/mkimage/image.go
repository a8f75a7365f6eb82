package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/covedesk/cove/vmhost/guestimage"
	"github.com/klauspost/compress/zstd"
)

// rootUUID and epoch take the place of what would differ from build to build.
const (
	rootUUID = "c07e0000-0000-4000-8000-000000000001"
	epoch    = "1767225600" // 2026-01-01, in seconds
)

// makeImage gives bin/image, made again only where an input has changed. The root and the initial
// file system are kept apart: a change in guestd touches the latter alone.
func makeImage(ctx context.Context, o options) error {
	dir, err := image(ctx, o)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := place(filepath.Join(dir, e.Name()), filepath.Join(o.bin, "image", e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// image makes the image, or finds it in the cache, and returns its folder there.
func image(ctx context.Context, o options) (string, error) {
	root, err := makeRoot(ctx, o)
	if err != nil {
		return "", err
	}
	guestd, key, err := buildGuestd(ctx, o)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(o.cache, "images", hash(filepath.Base(root), key)[:16])
	if _, err := os.Stat(filepath.Join(dir, guestimage.ManifestFile)); err == nil && !o.force {
		return dir, nil
	}
	defer stage("assemble the image")()
	part, err := freshFolder(dir + ".part")
	if err != nil {
		return "", err
	}
	release, err := os.ReadFile(filepath.Join(root, "release"))
	if err != nil {
		return "", err
	}
	for _, name := range []string{guestimage.KernelFile, guestimage.RootFile, "sbom.spdx.json"} {
		if err := place(filepath.Join(root, name), filepath.Join(part, name)); err != nil {
			return "", err
		}
	}
	if err := writeInitrd(filepath.Join(part, guestimage.InitrdFile), guestd, filepath.Join(root, "early"), string(release)); err != nil {
		return "", err
	}
	if err := finish(o, root, part, string(release)); err != nil {
		return "", err
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.Rename(part, dir)
}

// makeRoot makes what does not depend on guestd: the root, the kernel, the early modules, the SBOM.
func makeRoot(ctx context.Context, o options) (string, error) {
	var programs []built
	for _, p := range guestPrograms {
		b, err := buildProgram(ctx, o, p, "linux", o.arch)
		if err != nil {
			return "", err
		}
		programs = append(programs, b)
	}
	debs, err := fetchPackages(ctx, o)
	if err != nil {
		return "", err
	}
	key, err := rootKey(o, debs, programs)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(o.cache, "roots", key[:16])
	if _, err := os.Stat(filepath.Join(dir, "release")); err == nil && !o.force {
		return dir, nil
	}
	part, err := freshFolder(dir + ".part")
	if err != nil {
		return "", err
	}
	tree := filepath.Join(part, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return "", err
	}
	if err := unpackTree(ctx, o, debs, tree); err != nil {
		return "", err
	}
	release, err := kernelFiles(ctx, tree, part)
	if err != nil {
		return "", err
	}
	if err := keepEarly(tree, filepath.Join(part, "early"), release); err != nil {
		return "", err
	}
	for _, p := range programs {
		if err := place(p.path, filepath.Join(tree, "usr/bin", p.name)); err != nil {
			return "", err
		}
	}
	if err := writeSBOM(filepath.Join(part, "sbom.spdx.json"), o.arch, debs, programs); err != nil {
		return "", err
	}
	if err := writeComponents(filepath.Join(part, "components.json"), debs, programs); err != nil {
		return "", err
	}
	if err := erofs(ctx, tree, filepath.Join(part, guestimage.RootFile)); err != nil {
		return "", err
	}
	for _, p := range []string{tree, tree + ".boot"} {
		if err := removeTree(p); err != nil {
			return "", err
		}
	}
	// The last file written: a root without it is not whole.
	if err := os.WriteFile(filepath.Join(part, "release"), []byte(release), 0o644); err != nil {
		return "", err
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.Rename(part, dir)
}

// rootKey is the hash of all that the root is made from; the recipe is this program's own source.
func rootKey(o options, debs []deb, programs []built) (string, error) {
	sources, err := filepath.Glob(filepath.Join(o.root, "guestd/image/cmd/mkimage/*.go"))
	if err != nil {
		return "", err
	}
	recipe, err := hashFiles(o.root, sources...)
	if err != nil {
		return "", err
	}
	parts := []string{recipe, o.arch}
	for _, d := range debs {
		parts = append(parts, d.SHA256)
	}
	for _, p := range programs {
		parts = append(parts, p.key)
	}
	return hash(parts...), nil
}

// keepEarly keeps what the initial file system takes from the tree.
func keepEarly(tree, early, release string) error {
	order, err := loadOrder(tree, release)
	if err != nil {
		return err
	}
	for _, file := range append(order, "modules.dep") {
		rel := filepath.Join("usr/lib/modules", release, file)
		if err := place(filepath.Join(tree, rel), filepath.Join(early, rel)); err != nil {
			return err
		}
	}
	return nil
}

// erofs writes the root. Its times, owners and identity are fixed, so that the same tree gives the
// same bytes.
func erofs(ctx context.Context, tree, out string) error {
	defer stage("root file system")()
	cmd := exec.CommandContext(ctx, "mkfs.erofs", "--quiet", "-T", epoch, "-U", rootUUID, "--all-root", "-x-1", out, tree)
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.erofs: %w: %s", err, msg)
	}
	return nil
}

// buildGuestd builds our own part of the image and returns its path and the hash of its bytes.
func buildGuestd(ctx context.Context, o options) (string, string, error) {
	out := filepath.Join(o.cache, "guestd-"+o.arch)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", out+".part", ".")
	cmd.Dir = o.guestd
	if !filepath.IsAbs(o.guestd) {
		cmd.Dir = filepath.Join(o.root, o.guestd)
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+o.arch)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", "", fmt.Errorf("build guestd: %w", err)
	}
	sum, err := sha256File(out + ".part")
	if err != nil {
		return "", "", err
	}
	// By its digest, so that two builds at once do not meet.
	final := out + "-" + sum[:16]
	return final, sum, os.Rename(out+".part", final)
}

// finish writes the compressed form and the manifest.
func finish(o options, root, part, release string) error {
	info := guestimage.Info{Schema: guestimage.Schema, Arch: o.arch, Kernel: release}
	for _, name := range []string{guestimage.KernelFile, guestimage.InitrdFile, guestimage.RootFile, "sbom.spdx.json"} {
		path := filepath.Join(part, name)
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		sum, err := sha256File(path)
		if err != nil {
			return err
		}
		info.Files = append(info.Files, guestimage.File{Name: name, Size: st.Size(), SHA256: sum})
	}
	info.Digest = guestimage.DigestOf(info.Files)
	b, err := os.ReadFile(filepath.Join(root, "components.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &info.Components); err != nil {
		return err
	}
	info.Components = append([]guestimage.Component{{Name: "linux", Version: release, Source: "linux-image-cloud"}}, info.Components...)
	var sbom struct{ Packages []struct{ SPDXID string } }
	if b, err = os.ReadFile(filepath.Join(part, "sbom.spdx.json")); err != nil {
		return err
	}
	if err := json.Unmarshal(b, &sbom); err != nil {
		return err
	}
	for _, p := range sbom.Packages {
		if strings.HasPrefix(p.SPDXID, "SPDXRef-deb-") {
			info.Packages++
		}
	}
	if info.Compressed, err = compressedSize(part, info.Files); err != nil {
		return err
	}
	if b, err = json.MarshalIndent(info, "", "  "); err != nil {
		return err
	}
	fmt.Printf("    %s: %d MB, compressed %d MB\n", info.Digest, info.Size()/1e6, info.Compressed/1e6)
	return os.WriteFile(filepath.Join(part, guestimage.ManifestFile), append(b, '\n'), 0o644)
}

// compressedSize is what the image takes when it is packed for distribution, in bytes.
func compressedSize(dir string, files []guestimage.File) (int64, error) {
	var n counter
	z, err := zstd.NewWriter(&n, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(runtime.NumCPU()))
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		in, err := os.Open(filepath.Join(dir, f.Name))
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(z, in)
		in.Close()
		if err != nil {
			return 0, err
		}
	}
	return int64(n), z.Close()
}

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

// reproduce makes the image twice, all but the programs' builds, and compares the digests.
func reproduce(ctx context.Context, o options) error {
	o.force = true
	var digests []string
	for range 2 {
		dir, err := image(ctx, o)
		if err != nil {
			return err
		}
		img, err := guestimage.Open(ctx, dir)
		if err != nil {
			return err
		}
		digests = append(digests, img.Info.Digest)
	}
	if digests[0] != digests[1] {
		return fmt.Errorf("the same inputs gave %s and then %s", digests[0], digests[1])
	}
	fmt.Printf("built twice: %s\n", digests[0])
	return nil
}

// freshFolder gives an empty folder in place of what an interrupted run left.
func freshFolder(dir string) (string, error) {
	if err := removeTree(dir); err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// removeTree removes folders that are not writable, too.
func removeTree(dir string) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(dir)
}

// writeComponents lists the programs whose versions people ask for.
func writeComponents(path string, debs []deb, programs []built) error {
	var all []guestimage.Component
	for _, p := range programs {
		all = append(all, guestimage.Component{Name: p.name, Version: p.version, Source: p.module, Stands: p.stands})
	}
	asked := []string{"nftables", "git", "e2fsprogs", "openssh-client", "busybox-static", "tini", "libc6"}
	for _, d := range debs {
		if slices.Contains(asked, d.Name) {
			all = append(all, guestimage.Component{Name: d.Name, Version: d.Version, Source: "debian " + suite})
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}
