//go:build linux

package engine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/covedesk/cove/guestd/protocol"
	"golang.org/x/sys/unix"
)

// Paths of certificates in the guest.
const (
	certsDir    = "/run/cove/docker/certs.d"           // where /etc/docker/certs.d leads
	authorities = "/etc/ssl/certs/ca-certificates.crt" // the image's own
	joined      = "/run/cove/ca-certificates.crt"      // these and the host's
	dockerHub   = "docker.io"
)

// Believe makes every program of the guest believe in the host's authorities, beyond the image's own, and
// tells the engine how to treat each registry. It is for once in a boot, before the engine: Go's programs read
// the authorities when they need them first.
func Believe(t *protocol.Trust) error {
	if t == nil {
		return nil
	}
	if err := WriteRegistries(certsDir, t.Registries); err != nil {
		return err
	}
	if t.Authorities == "" {
		return nil
	}
	own, err := os.ReadFile(authorities)
	if err == nil {
		err = os.WriteFile(joined, append(bytes.TrimRight(own, "\n"), "\n"+t.Authorities...), 0o644)
	}
	if err == nil {
		err = unix.Mount(joined, authorities, "", unix.MS_BIND, "")
	}
	if err != nil {
		return fmt.Errorf("the host's authorities: %w", err)
	}
	return nil
}

// WriteRegistries makes the folder from which the engine reads, at each use, how to treat a registry: docker's
// own layout, and for one with mirrors the hosts.toml of containerd (core/remotes/docker/config), because with
// dockerd's registry-mirrors one insecure mirror makes an insecure registry (moby, daemon/hosts.go), and the
// mirrors' own certificates are not looked at.
func WriteRegistries(dir string, all []protocol.Registry) error {
	by := map[string]protocol.Registry{}
	for _, r := range all {
		by[r.Host] = r
	}
	for _, r := range all {
		if r.Host != filepath.Base(r.Host) || strings.HasPrefix(r.Host, ".") {
			return fmt.Errorf("%q is not the name of a registry", r.Host)
		}
		files := map[string]string{}
		if r.Authorities != "" {
			files["ca.crt"] = r.Authorities
		}
		for i, c := range r.Clients {
			files[pair(i)+".cert"], files[pair(i)+".key"] = c.Certificate, c.Key.RevealSecret()
		}
		if len(r.Mirrors) > 0 {
			files["hosts.toml"] = hostsTOML(dir, r, by)
		}
		if len(files) == 0 {
			continue
		}
		if err := os.MkdirAll(filepath.Join(dir, r.Host), 0o700); err != nil {
			return fmt.Errorf("registry %s: %w", r.Host, err)
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, r.Host, name), []byte(text), 0o600); err != nil {
				return fmt.Errorf("registry %s: %w", r.Host, err)
			}
		}
	}
	return nil
}

func pair(i int) string { return "client" + strconv.Itoa(i) }

// hostsTOML says that the mirrors are asked first, for pulls alone, each with its own certificates.
func hostsTOML(dir string, r protocol.Registry, by map[string]protocol.Registry) string {
	var b strings.Builder
	if r.Insecure && r.Host != dockerHub {
		// With skip_verify this is https first, and http where that is not spoken.
		fmt.Fprintf(&b, "server = %q\n", "http://"+r.Host)
	}
	writeTLS(&b, dir, r)
	for _, m := range r.Mirrors {
		scheme, rest, _ := strings.Cut(m, "://")
		host, _, _ := strings.Cut(rest, "/")
		fmt.Fprintf(&b, "[host.%q]\ncapabilities = [\"pull\", \"resolve\", \"referrers\"]\n", m)
		if scheme == "https" {
			mirror := by[host]
			mirror.Host = host
			writeTLS(&b, dir, mirror)
		}
	}
	return b.String()
}

func writeTLS(b *strings.Builder, dir string, r protocol.Registry) {
	if r.Insecure {
		fmt.Fprintln(b, "skip_verify = true")
	}
	if r.Authorities != "" {
		fmt.Fprintf(b, "ca = [%q]\n", filepath.Join(dir, r.Host, "ca.crt"))
	}
	var pairs []string
	for i := range r.Clients {
		pairs = append(pairs, fmt.Sprintf("[%q, %q]", filepath.Join(dir, r.Host, pair(i)+".cert"), filepath.Join(dir, r.Host, pair(i)+".key")))
	}
	if len(pairs) > 0 {
		fmt.Fprintf(b, "client = [%s]\n", strings.Join(pairs, ", "))
	}
}
