package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// program is one third-party program, built from its module with its upstream's versions.
type program struct {
	name    string // of the binary
	dir     string // of the module in our tree
	pkg     string // what is built
	module  string // whose version it has
	version string // the module's version as required in dir/go.mod is checked against this
	stands  string // the release that the version stands for, where it is not itself one
	cgo     bool
	libs    []string // C libraries that are linked in, by their pkg-config names
	flags   []string // of go build
	stamp   string   // of the linker: %[1]s is the version to show
	shows   string   // the version to show; empty: version
}

// dockerRelease: the tag v2.0.0-beta.24 of moby holds releases/versions.yaml, which says that 29.8.0
// was the last engine release and 29.8.1 is the next. So it is shown as a pre-release of 29.8.1.
const dockerRelease = "29.8.1-moby.v2.0.0-beta.24"

// cliLanguage: docker/cli has no go.mod and so would be compiled as Go 1.16 code.
const cliLanguage = "-gcflags=github.com/docker/cli/...=-lang=go1.25"

// guestPrograms go into the image.
var guestPrograms = []program{
	{
		name: "dockerd", dir: "guestd/image/dockerd", pkg: "github.com/moby/moby/v2/cmd/dockerd",
		module: "github.com/moby/moby/v2", version: "v2.0.0-beta.24", stands: "between Docker Engine 29.8.0 and 29.8.1", shows: dockerRelease,
		stamp: "-X github.com/moby/moby/v2/dockerversion.Version=%[1]s -X github.com/moby/moby/v2/dockerversion.GitCommit=v2.0.0-beta.24 -X github.com/moby/moby/v2/dockerversion.BuildTime= -X github.com/moby/moby/v2/dockerversion.PlatformName=Cove",
	},
	{
		name: "containerd", dir: "guestd/image/containerd", pkg: "github.com/containerd/containerd/v2/cmd/containerd",
		module: "github.com/containerd/containerd/v2", version: "v2.4.2",
		stamp: "-X github.com/containerd/containerd/v2/version.Version=%[1]s -X github.com/containerd/containerd/v2/version.Revision=%[1]s",
	},
	{
		name: "containerd-shim-runc-v2", dir: "guestd/image/containerd", pkg: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
		module: "github.com/containerd/containerd/v2", version: "v2.4.2",
		stamp: "-X github.com/containerd/containerd/v2/version.Version=%[1]s -X github.com/containerd/containerd/v2/version.Revision=%[1]s",
	},
	{
		name: "runc", dir: "guestd/image/runc", pkg: "github.com/opencontainers/runc",
		module: "github.com/opencontainers/runc", version: "v1.5.2", shows: "1.5.2", cgo: true,
		flags: []string{"-tags", "netgo osusergo seccomp"}, libs: []string{"libseccomp"}, stamp: "-X main.version=%[1]s -X main.gitCommit=v%[1]s -extldflags -static",
	},
}

// hostTools ship beside cove: the clients.
var hostTools = []program{
	{
		name: "docker", dir: "packaging/tools/docker", pkg: "github.com/docker/cli/cmd/docker",
		module: "github.com/docker/cli", version: "v29.9.3+incompatible", shows: "29.9.3", flags: []string{cliLanguage},
		stamp: "-X github.com/docker/cli/cli/version.Version=%[1]s -X github.com/docker/cli/cli/version.GitCommit=v%[1]s",
	},
	{
		name: "docker-buildx", dir: "packaging/tools/buildx", pkg: "github.com/docker/buildx/cmd/buildx",
		module: "github.com/docker/buildx", version: "v0.38.2", flags: []string{cliLanguage},
		stamp: "-X github.com/docker/buildx/version.Version=%[1]s -X github.com/docker/buildx/version.Revision=%[1]s -X github.com/docker/buildx/version.Package=github.com/docker/buildx",
	},
	{
		name: "docker-compose", dir: "packaging/tools/compose", pkg: "github.com/docker/compose/v5/cmd",
		module: "github.com/docker/compose/v5", version: "v5.6.0", flags: []string{cliLanguage},
		stamp: "-X github.com/docker/compose/v5/internal.Version=%[1]s",
	},
}

// built is a program that lies in the cache.
type built struct {
	program
	path string
	key  string
}

// buildProgram gives the program from the cache, or builds it for goos/goarch and puts it there.
func buildProgram(ctx context.Context, o options, p program, goos, goarch string) (built, error) {
	mod, err := os.ReadFile(filepath.Join(o.root, p.dir, "go.mod"))
	if err != nil {
		return built{}, err
	}
	if !strings.Contains(string(mod), p.module+" "+p.version) {
		return built{}, fmt.Errorf("%s/go.mod does not require %s %s, which the recipe names", p.dir, p.module, p.version)
	}
	sum, err := os.ReadFile(filepath.Join(o.root, p.dir, "go.sum"))
	if err != nil {
		return built{}, err
	}
	shows := p.shows
	if shows == "" {
		shows = p.version
	}
	ldflags := "-s -w " + fmt.Sprintf(p.stamp, shows)
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", ldflags}, p.flags...)
	libs, err := libraries(ctx, p.libs)
	if err != nil {
		return built{}, err
	}
	key := hash(libs, string(mod), string(sum), runtime.Version(), goos, goarch, fmt.Sprint(p.cgo), p.pkg, strings.Join(args, "\x00"))
	b := built{program: p, key: key, path: filepath.Join(o.cache, "programs", key[:16], p.name+exe(goos))}
	if _, err := os.Stat(b.path); err == nil {
		return b, nil
	}
	defer stage("build %s %s for %s/%s", p.name, p.version, goos, goarch)()
	if err := os.MkdirAll(filepath.Dir(b.path), 0o755); err != nil {
		return built{}, err
	}
	part := b.path + ".part"
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", part, p.pkg)...)
	cmd.Dir = filepath.Join(o.root, p.dir)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if p.cgo {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
		if goarch != runtime.GOARCH {
			cmd.Env = append(cmd.Env, "CC="+crossCompiler(goarch))
		}
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return built{}, fmt.Errorf("build %s: %w", p.name, err)
	}
	return b, os.Rename(part, b.path)
}

// libraries are the versions of C libraries on this machine, for the key of what links them in.
func libraries(ctx context.Context, names []string) (string, error) {
	if len(names) == 0 {
		return "", nil
	}
	out, err := exec.CommandContext(ctx, "pkg-config", append([]string{"--modversion"}, names...)...).Output()
	if err != nil {
		return "", fmt.Errorf("find the C libraries %v: %w; run `make deps`", names, err)
	}
	return string(out), nil
}

// crossCompiler is Debian's name for the C compiler of an architecture.
func crossCompiler(goarch string) string {
	return map[string]string{"arm64": "aarch64-linux-gnu-gcc", "amd64": "x86_64-linux-gnu-gcc"}[goarch]
}

func exe(goos string) string {
	if goos == "windows" {
		return ".exe"
	}
	return ""
}

func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// hashFiles is the hash of files with their names, in order of names.
func hashFiles(root string, paths ...string) (string, error) {
	slices.Sort(paths)
	h := sha256.New()
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			return "", err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "\x00%s\x00", rel)
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// makeTools builds the clients for this host and links them into bin.
func makeTools(ctx context.Context, o options) error {
	for _, p := range hostTools {
		b, err := buildProgram(ctx, o, p, runtime.GOOS, runtime.GOARCH)
		if err != nil {
			return err
		}
		if err := place(b.path, filepath.Join(o.bin, filepath.Base(b.path))); err != nil {
			return err
		}
	}
	return nil
}

// place copies a file beside its target and renames it, unless the target is the same already.
func place(src, dst string) error {
	s, err := os.Stat(src)
	if err != nil {
		return err
	}
	if d, err := os.Stat(dst); err == nil && d.Size() == s.Size() && d.ModTime().Equal(s.ModTime()) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	part := dst + ".part"
	if out, err := exec.Command("cp", "--reflink=auto", "--preserve=mode,timestamps", src, part).CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s: %w: %s", src, err, out)
	}
	return os.Rename(part, dst)
}
