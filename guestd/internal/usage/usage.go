// Package usage says what the guest uses, from the files in which its kernel counts: a look takes a
// fraction of a millisecond and wakes nobody.
package usage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
)

const (
	groups = "sys/fs/cgroup"
	card   = "eth0" // the way out; a container's own interface ends in a veth here
)

// ours are the control groups beside those of containers and builds: guestd's (boot.Cgroups).
var ours = map[string]bool{"cove": true, "init.scope": true}

// Read counts what root shows of a running guest, its disk aside: os.DirFS("/"), or a tree like it.
func Read(root fs.FS) (protocol.Usage, error) {
	var u protocol.Usage
	var errs [3]error
	u.Containers, u.ContainersCPU, errs[0] = containers(root)
	u.ContainersNet, u.ExternalNet, errs[1] = network(root)
	u.Memory, errs[2] = memory(root)
	return u, errors.Join(errs[:]...)
}

// containers counts those that have processes, and the processor time of all groups that are not ours.
func containers(root fs.FS) (int, time.Duration, error) {
	tops, err := fs.ReadDir(root, groups)
	if err != nil {
		return 0, 0, fmt.Errorf("list control groups: %w", err)
	}
	n, cpu := 0, time.Duration(0)
	for _, top := range tops {
		if !top.IsDir() || ours[top.Name()] {
			continue
		}
		dir := path.Join(groups, top.Name())
		micros, err := field(root, path.Join(dir, "cpu.stat"), "usage_usec")
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may end while we look
			return 0, 0, err
		}
		cpu += time.Duration(micros) * time.Microsecond
		err = fs.WalkDir(root, dir, func(name string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil || !d.IsDir() || !isContainer(d.Name()):
				return err
			}
			populated, err := field(root, path.Join(name, "cgroup.events"), "populated")
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			n += int(populated)
			return fs.SkipDir // what runs in a container is that container
		})
		if err != nil {
			return 0, 0, fmt.Errorf("count containers: %w", err)
		}
	}
	return n, cpu, nil
}

// isContainer knows the engine's ids, after which it names a container's group; a build's are shorter.
func isContainer(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}

// field is a number of a file of lines "name number", such as cpu.stat: cgroups(7).
func field(root fs.FS, file, name string) (int64, error) {
	b, err := fs.ReadFile(root, file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if k, v, _ := strings.Cut(strings.TrimSpace(line), " "); k == name {
			return strconv.ParseInt(v, 10, 64)
		}
	}
	return 0, fmt.Errorf("%s does not say %s", file, name)
}

// network sums the bytes of interfaces both ways: proc(5), net/dev.
func network(root fs.FS) (containers, external int64, err error) {
	b, err := fs.ReadFile(root, "proc/net/dev")
	if err != nil {
		return 0, 0, fmt.Errorf("count network traffic: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		name, counts, found := strings.Cut(line, ":")
		f := strings.Fields(counts)
		if !found || len(f) < 9 {
			continue // a heading
		}
		in, err1 := strconv.ParseInt(f[0], 10, 64)
		out, err2 := strconv.ParseInt(f[8], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return 0, 0, fmt.Errorf("count network traffic: %w", err)
		}
		switch name = strings.TrimSpace(name); {
		case strings.HasPrefix(name, "veth"):
			containers += in + out
		case name == card:
			external += in + out
		}
	}
	return containers, external, nil
}

// memory reads proc(5), meminfo.
func memory(root fs.FS) (protocol.UsageMemory, error) {
	b, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return protocol.UsageMemory{}, fmt.Errorf("count memory: %w", err)
	}
	info := map[string]int64{}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		var name string
		var kib int64
		if n, _ := fmt.Sscanf(s.Text(), "%s %d kB", &name, &kib); n == 2 {
			info[strings.TrimSuffix(name, ":")] = kib << 10
		}
	}
	if info["MemTotal"] == 0 {
		return protocol.UsageMemory{}, errors.New("count memory: meminfo has no MemTotal")
	}
	m := protocol.UsageMemory{
		Total: info["MemTotal"], Free: info["MemFree"], Available: info["MemAvailable"],
		// What lies in tmpfs counts as cached there, and cannot be given up.
		Cached:    info["Buffers"] + info["Cached"] - info["Shmem"] + info["SReclaimable"],
		SwapTotal: info["SwapTotal"], SwapUsed: info["SwapTotal"] - info["SwapFree"],
	}
	m.Used = m.Total - m.Free - m.Cached
	return m, nil
}
