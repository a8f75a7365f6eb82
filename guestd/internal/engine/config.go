//go:build linux

// Package engine configures containerd and dockerd, says when they serve, and hands connections to
// the engine's socket.
package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/covedesk/cove/guestd/internal/ports"
	"github.com/covedesk/cove/guestd/protocol"
)

// Paths of the engine in the guest.
const (
	Socket           = "/run/docker.sock"
	containerdSocket = "/run/containerd/containerd.sock"
	dockerConfig     = "/run/cove/docker/daemon.json"
	containerdConfig = "/run/cove/containerd/config.toml"
)

// owned are the keys of daemon.json that guestd answers for: a user's value would cut the engine off.
// dockerd reads keys in any case.
var owned = []string{"hosts", "containerd", "containerd-namespace", "containerd-plugin-namespace", "containerd-plugins-namespace", "data-root", "exec-root", "pidfile", "group"}

// ErrOwned says that a user's daemon.json sets what guestd answers for.
var ErrOwned = errors.New("cannot be overridden")

// defaults are the engine's settings that make it ours.
func defaults() map[string]any {
	return map[string]any{
		"hosts":            []string{"unix://" + Socket},
		"containerd":       containerdSocket,
		"data-root":        "/var/lib/docker",
		"exec-root":        "/run/docker",
		"pidfile":          "/run/docker.pid",
		"group":            "docker",
		"exec-opts":        []string{"native.cgroupdriver=cgroupfs"},
		"firewall-backend": "nftables",
		// Published ports are the host's business: see guestd/internal/ports.
		"userland-proxy":      true,
		"userland-proxy-path": ports.UserlandPath,
		"features":            map[string]any{"swarm-nftables": true},
		"log-opts":            map[string]any{},
	}
}

// publishOn makes an address the one that ports are published on where none is said: for the default
// bridge, and for networks that are made from now on, which keep it.
func publishOn(all map[string]any, address string) {
	if address == "" {
		return
	}
	all["ip"] = address
	all["default-network-opts"] = map[string]any{"bridge": map[string]string{"com.docker.network.bridge.host_binding_ipv4": address}}
}

// reachBy makes the engine pull and build by a proxy (moby, daemon/config/config.go, Proxies). It masks the
// login in its log and in `docker info`.
func reachBy(all map[string]any, proxy *protocol.Proxy) {
	if proxy == nil {
		return
	}
	proxies := map[string]any{"no-proxy": proxy.No}
	for key, url := range map[string]protocol.Secret{"http-proxy": proxy.HTTP, "https-proxy": proxy.HTTPS} {
		if !url.IsZero() {
			proxies[key] = url.RevealSecret()
		}
	}
	all["proxies"] = proxies
}

// Merge lays a user's daemon.json over ours. Objects are merged key by key, anything else replaces.
// Ports are published on the address, or where it is empty on all.
func Merge(user json.RawMessage, address string, proxy *protocol.Proxy, network *protocol.Network) ([]byte, error) {
	all := defaults()
	publishOn(all, address)
	reachBy(all, proxy)
	reach(all, network)
	if len(user) > 0 {
		var theirs map[string]any
		if err := json.Unmarshal(user, &theirs); err != nil {
			return nil, fmt.Errorf("engine settings: %w", err)
		}
		for key, value := range theirs {
			if slices.Contains(owned, strings.ToLower(key)) {
				return nil, fmt.Errorf("engine setting %q %w: Cove sets it itself", key, ErrOwned)
			}
			ours, is := all[key].(map[string]any)
			more, are := value.(map[string]any)
			if is && are {
				for k, v := range more {
					ours[k] = v
				}
				continue
			}
			all[key] = value
		}
	}
	return json.MarshalIndent(all, "", "  ")
}

// containerdTOML: one containerd for the engine and, later, for Kubernetes, so the CRI plugin is on and
// has the engine's cgroup driver. Snapshotters for disks that a guest does not have are off: each
// costs start-up time to find that out.
const containerdTOML = `version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.differ.v1.erofs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
    SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".cni]
  conf_dir = "/var/lib/cove/cni/net.d"

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
`

// Configure writes what both programs read.
func Configure(user json.RawMessage, publishAddress string, proxy *protocol.Proxy, network *protocol.Network) error {
	docker, err := Merge(user, publishAddress, proxy, network)
	if err != nil {
		return err
	}
	for path, text := range map[string][]byte{dockerConfig: docker, containerdConfig: []byte(containerdTOML)} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// ContainerdArgs and DockerdArgs start the programs. dockerd is started by guestd as ports.Launch.
func ContainerdArgs() []string { return []string{"/usr/bin/containerd", "--config", containerdConfig} }
func DockerdArgs() []string {
	return []string{"/proc/self/exe", ports.LaunchWord, "/usr/bin/dockerd", "--config-file", dockerConfig}
}
