package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// suite is the release of Debian that the guest is made from.
const suite = "trixie"

// wanted are the packages that the guest asks for; what they depend on comes with them.
func wanted(arch string) []string {
	return []string{
		"base-files", "base-passwd", "bash", "busybox-static", "ca-certificates",
		"e2fsprogs", "git", "iproute2", "iptables", "kmod", "mount", "netbase", "nftables", "openssh-client",
		"tini", "util-linux", "xz-utils", "linux-image-cloud-" + arch,
	}
}

// unwanted count as installed although they are not: what only maintainer scripts need (none is run),
// what makes an initial file system of its own, and the manuals and scripts of git.
var unwanted = []string{
	"perl", "perl-base", "liberror-perl", "initramfs-tools", "linux-initramfs-tool", "dracut", "linux-base", "debconf", "debconf-2.0",
	"adduser", "passwd", "openssl", "dpkg", "tar", "login", "login.defs", "sysvinit-utils", "mawk", "awk", "libpam-modules", "libpam-runtime", "libpam-modules-bin", "systemd", "udev", "libudev1",
	"coreutils", "debianutils", "libsystemd0", "libcap2-bin", "logsave", "init-system-helpers", "sensible-utils", "libc-bin", "libdb5.3t64", "readline-common",
}

// deb is one package of the lock.
type deb struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"`
	File    string `json:"file"` // below the archive's root
	Size    int64  `json:"size"` // bytes
	SHA256  string `json:"sha256"`
}

func lockPath(o options) string {
	return filepath.Join(o.root, "guestd/image/lock", o.arch+".json")
}

func readLock(o options) ([]deb, error) {
	b, err := os.ReadFile(lockPath(o))
	if err != nil {
		return nil, err
	}
	var debs []deb
	if err := json.Unmarshal(b, &debs); err != nil {
		return nil, fmt.Errorf("read %s: %w", lockPath(o), err)
	}
	return debs, nil
}

func writeLock(ctx context.Context, o options) error {
	debs, err := resolve(ctx, o)
	if err != nil {
		return err
	}
	old, err := readLock(o)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	differences(os.Stdout, old, debs)
	b, err := json.MarshalIndent(debs, "", "\t")
	if err != nil {
		return err
	}
	part := lockPath(o) + ".part"
	if err := os.WriteFile(part, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(part, lockPath(o))
}

// differences says in a line each what b has that a had not.
func differences(w io.Writer, a, b []deb) {
	versions := map[string]string{}
	for _, d := range a {
		versions[d.Name] = d.Version
	}
	for _, d := range b {
		switch was := versions[d.Name]; {
		case was == "":
			fmt.Fprintf(w, "    + %s %s\n", d.Name, d.Version)
		case was != d.Version:
			fmt.Fprintf(w, "    %s %s, was %s\n", d.Name, d.Version, was)
		}
		delete(versions, d.Name)
	}
	for name, v := range versions {
		fmt.Fprintf(w, "    - %s %s\n", name, v)
	}
}

// fetchPackages gives the locked packages as files. When the archive no longer holds one of them, the
// current versions are resolved instead, by signature, and what differs is said; a release fails.
func fetchPackages(ctx context.Context, o options) ([]deb, error) {
	debs, err := readLock(o)
	if err != nil {
		return nil, err
	}
	missing := download(ctx, o, debs)
	if missing == nil {
		return debs, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if o.release {
		return nil, fmt.Errorf("a release takes exactly what is locked: %w", missing)
	}
	fmt.Printf("    the archive does not give all that is locked (%v); taking its current versions:\n", missing)
	current, err := resolve(ctx, o)
	if err != nil {
		return nil, err
	}
	differences(os.Stdout, debs, current)
	fmt.Println("    `make image-lock` makes these the locked ones")
	return current, download(ctx, o, current)
}

func debPath(o options, d deb) string { return filepath.Join(o.cache, "debs", d.SHA256+".deb") }

// download brings packages into the cache and checks each against its digest. apt's own fetcher is
// used, so proxies and mirrors are those that the machine has for apt.
func download(ctx context.Context, o options, debs []deb) error {
	base, err := mirror(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(o.cache, "debs"), 0o755); err != nil {
		return err
	}
	var args []string
	for _, d := range debs {
		if _, err := os.Stat(debPath(o, d)); err != nil {
			args = append(args, base+d.File, debPath(o, d)+".part", "SHA256:"+d.SHA256)
		}
	}
	if len(args) == 0 {
		return nil
	}
	defer stage("download %d packages", len(args)/3)()
	cmd := exec.CommandContext(ctx, "/usr/lib/apt/apt-helper", append([]string{"-o", "APT::Sandbox::User=", "download-file"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("download packages: %w: %s", err, lastLine(out))
	}
	for _, d := range debs {
		part := debPath(o, d) + ".part"
		sum, err := sha256File(part)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if sum != d.SHA256 {
			return fmt.Errorf("package %s has digest %s; want %s", d.Name, sum, d.SHA256)
		}
		if err := os.Rename(part, debPath(o, d)); err != nil {
			return err
		}
	}
	return nil
}

// mirror is the archive that this machine uses for its own Debian.
func mirror(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("ask apt for its mirror: %w", err)
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		codename, uri, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.Contains(string(release), "VERSION_CODENAME="+codename+"\n") {
			return uri, nil
		}
	}
	return "", errors.New("apt has no source of this machine's own Debian release: run apt-get update")
}

// resolve asks apt, in a root of its own that trusts Debian's keys alone, what the wanted packages
// need today.
func resolve(ctx context.Context, o options) ([]deb, error) {
	defer stage("resolve the current packages of %s", suite)()
	base, err := mirror(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "mkimage-apt")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for _, d := range []string{"lists/partial", "archives/partial", "etc/preferences.d", "etc/trusted.gpg.d", "etc/apt.conf.d"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	files := map[string]string{
		"sources.list": fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\ndeb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s-updates main\n", base, suite, base, suite),
		"status":       installedAlready(o.arch),
		"apt.conf": fmt.Sprintf(`Dir::State "%[1]s"; Dir::State::lists "%[1]s/lists"; Dir::State::status "%[1]s/status"; Dir::Cache "%[1]s"; Dir::Etc "%[1]s/etc";
Dir::Etc::sourcelist "%[1]s/sources.list"; Dir::Etc::sourceparts "-"; APT::Architecture "%[2]s"; APT::Architectures { "%[2]s"; };
APT::Sandbox::User ""; APT::Install-Recommends "false"; Acquire::AllowInsecureRepositories "false"; Acquire::Check-Valid-Until "true"; Acquire::Check-Date "true"; Acquire::Languages "none"; Acquire::ForceHash "SHA256"; APT::Get::AllowUnauthenticated "false";
`, dir, o.arch),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	apt := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		// The machine's own configuration is left out: it may weaken what is checked here.
		cmd.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(dir, "apt.conf"))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("apt-get %s: %w: %s%s", strings.Join(args, " "), err, out, stderr.String())
		}
		return out, nil
	}
	if _, err := apt("-q", "update", "--error-on=any"); err != nil {
		return nil, err
	}
	out, err := apt(append([]string{"-q", "-o", "APT::Get::Print-URIs=true", "--yes", "install"}, wanted(o.arch)...)...)
	if err != nil {
		return nil, err
	}
	return parseURIs(out, base)
}

// installedAlready is a dpkg status in which the unwanted packages are installed.
func installedAlready(arch string) string {
	var b strings.Builder
	for _, name := range unwanted {
		fmt.Fprintf(&b, "Package: %s\nStatus: install ok installed\nArchitecture: %s\nMulti-Arch: foreign\nVersion: 999:0\nMaintainer: none\nDescription: left out\n\n", name, arch)
	}
	return b.String()
}

// parseURIs reads `apt-get --print-uris`: 'URI' name_version_arch.deb size SHA256:digest.
func parseURIs(out []byte, base string) ([]deb, error) {
	var debs []deb
	s := bufio.NewScanner(bytes.NewReader(out))
	for s.Scan() {
		var uri, file, digest string
		var size int64
		if !strings.HasPrefix(s.Text(), "'") {
			continue
		}
		if _, err := fmt.Sscan(s.Text(), &uri, &file, &size, &digest); err != nil {
			return nil, fmt.Errorf("cannot read %q of apt: %w", s.Text(), err)
		}
		sum, ok := strings.CutPrefix(digest, "SHA256:")
		if !ok {
			return nil, fmt.Errorf("apt gives no SHA-256 for %s", file)
		}
		below, ok := strings.CutPrefix(strings.Trim(uri, "'"), base)
		if !ok {
			return nil, fmt.Errorf("apt takes %s from somewhere else: %s", file, uri)
		}
		parts := strings.Split(strings.TrimSuffix(path.Base(file), ".deb"), "_")
		if len(parts) != 3 {
			return nil, fmt.Errorf("cannot read the package name %q", file)
		}
		debs = append(debs, deb{Name: parts[0], Version: strings.ReplaceAll(parts[1], "%3a", ":"), Arch: parts[2], File: below, Size: size, SHA256: sum})
	}
	if len(debs) == 0 {
		return nil, errors.New("apt resolved no packages")
	}
	slices.SortFunc(debs, func(a, b deb) int { return strings.Compare(a.Name, b.Name) })
	return debs, nil
}

func sha256File(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
