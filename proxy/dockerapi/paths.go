package dockerapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/volume"
)

// Paths are the absolute paths that mean the guest's own files; what lies below them does too.
type Paths []string

// GuestPaths are what tools mount of the machine that the engine runs on: its socket (Portainer,
// testcontainers, act), its modules and devices (VPNs, disks, GPUs), its engine's data (agents, metrics),
// and the socket by which guestd leads to the user's ssh agent (guestd/internal/hostservices).
var GuestPaths = Paths{"/var/run/docker.sock", "/run/docker.sock", "/var/lib/docker", "/lib/modules", "/usr/lib/modules", "/sys", "/proc", "/dev", "/etc/localtime", "/run/host-services/ssh-auth.sock"}

// Guest says whether a path is the guest's own.
func (p Paths) Guest(name string) bool {
	name = path.Clean(name)
	return slices.ContainsFunc(p, func(own string) bool {
		return name == own || strings.HasPrefix(name, own+"/")
	})
}

// maxCreateBody bounds the bodies that are read before they are passed on. A container's description
// is some KiB; configs and secrets of swarm are limited to 1 MiB by the engine.
const maxCreateBody = 16 << 20

// Shares know what of the host can be mounted.
type Shares interface {
	// Mount is nil for a path that a container finds as it is on the host, and otherwise a sentence that
	// names the path and says what to do.
	Mount(path string) error
}

// checkPaths refuses a request that mounts a path which the guest would silently create empty. The
// body is passed on as it came.
func (f *Front) checkPaths(call Call, r *http.Request) error {
	if call.Mounts == NoMounts || r.Body == nil {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxCreateBody+1))
	if err != nil {
		return &Error{http.StatusBadRequest, "read the request: " + err.Error()}
	}
	if len(body) > maxCreateBody {
		return &Error{http.StatusRequestEntityTooLarge, fmt.Sprintf("the request is larger than %d MiB", maxCreateBody>>20)}
	}
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	for _, name := range mounted(call.Mounts, body) {
		if !f.paths.Guest(name) {
			if err := f.shares.Mount(name); err != nil {
				return &Error{http.StatusBadRequest, "invalid mount: " + err.Error()}
			}
		}
	}
	return nil
}

// drive is how a Windows path begins.
var drive = regexp.MustCompile(`^[A-Za-z]:[\\/]`)

// mounted lists the host paths that a body names. A body that the engine will not read either has none,
// and a mount of nothing is the engine's to refuse.
func mounted(in MountsIn, body []byte) []string {
	return slices.DeleteFunc(named(in, body), func(name string) bool { return name == "" })
}

func named(in MountsIn, body []byte) []string {
	var out []string
	switch in {
	case ContainerMounts:
		var c container.CreateRequest
		if read(body, &c) != nil || c.HostConfig == nil {
			return nil
		}
		for _, b := range c.HostConfig.Binds {
			out = append(out, bindSource(b))
		}
		out = append(out, sources(c.HostConfig.Mounts)...)
	case VolumeMounts:
		var v volume.CreateRequest
		if read(body, &v) != nil {
			return nil
		}
		out = device(v.Driver, v.DriverOpts)
	case ServiceMounts:
		var s swarm.ServiceSpec
		if read(body, &s) != nil || s.TaskTemplate.ContainerSpec == nil {
			return nil
		}
		out = sources(s.TaskTemplate.ContainerSpec.Mounts)
	}
	return out
}

// read takes the first value and not what comes after it, so that it takes all that the engine takes.
func read(body []byte, into any) error { return json.NewDecoder(bytes.NewReader(body)).Decode(into) }

// bindSource is the path of a "source:target:options"; empty for a volume's name.
func bindSource(bind string) string {
	if d := drive.FindString(bind); d != "" {
		// "v:/x" is a volume whose name is too short, which the engine says better.
		if rest, target, _ := strings.Cut(bind[len(d):], ":"); strings.HasPrefix(target, "/") {
			return d + rest
		}
	}
	name, _, found := strings.Cut(bind, ":")
	if strings.HasPrefix(name, `\\`) {
		return name // a share or a pipe of Windows
	}
	if !found || !strings.HasPrefix(name, "/") {
		return ""
	}
	return name
}

func sources(mounts []mount.Mount) []string {
	var out []string
	for _, m := range mounts {
		switch {
		case m.Type == mount.TypeBind:
			out = append(out, m.Source)
		case m.VolumeOptions != nil && m.VolumeOptions.DriverConfig != nil:
			out = append(out, device(m.VolumeOptions.DriverConfig.Name, m.VolumeOptions.DriverConfig.Options)...)
		}
	}
	return out
}

// device is the path behind a volume of the local driver that is really a bind mount.
func device(driver string, options map[string]string) []string {
	if driver != "" && driver != "local" || !slices.ContainsFunc(strings.Split(options["o"], ","), func(o string) bool { return o == "bind" || o == "rbind" }) {
		return nil
	}
	return []string{options["device"]}
}
