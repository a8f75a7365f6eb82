//go:build linux

package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
)

// Cgroup is the folder of a process group of ours. Containers get folders beside them.
func Cgroup(name string) string { return "/sys/fs/cgroup/cove/" + name }

// initCgroup is guestd's own: a name by which programs, dockerd among them, know that process 1 is an
// init on a machine and not in a container.
const initCgroup = "/sys/fs/cgroup/init.scope"

// Cgroups gives guestd and each service a leaf of its own and hands every controller down.
func Cgroups(context.Context) error {
	for _, leaf := range []string{initCgroup, Cgroup("containerd"), Cgroup("dockerd"), Cgroup("shell")} {
		if err := os.MkdirAll(leaf, 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(initCgroup+"/cgroup.procs", []byte("0"), 0); err != nil {
		return fmt.Errorf("enter our cgroup: %w", err)
	}
	b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return err
	}
	var all []string
	for _, c := range strings.Fields(string(b)) {
		all = append(all, "+"+c)
	}
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/cove"} {
		if err := os.WriteFile(dir+"/cgroup.subtree_control", []byte(strings.Join(all, " ")), 0); err != nil {
			return fmt.Errorf("hand down controllers in %s: %w", dir, err)
		}
	}
	// Credentials pass through these two, and the swap is a file on the data disk.
	for _, dir := range []string{initCgroup, Cgroup("dockerd")} {
		if err := os.WriteFile(dir+"/memory.swap.max", []byte("0"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without swap has no such file
			return fmt.Errorf("keep %s out of the swap: %w", dir, err)
		}
	}
	return nil
}

// sysctls are what containers need or commonly expect of a host.
var sysctls = map[string]string{
	"net/ipv4/ip_forward":               "1", // dockerd's nftables back end does not switch it on itself
	"net/ipv6/conf/all/forwarding":      "1",
	"net/ipv6/conf/default/forwarding":  "1",
	"net/ipv4/ip_nonlocal_bind":         "1", // a port published on a host's address is bound here first
	"net/ipv6/ip_nonlocal_bind":         "1",
	"net/ipv4/ping_group_range":         "0 2147483647",
	"net/core/somaxconn":                "4096",
	"net/ipv4/neigh/default/gc_thresh3": "8192",
	// An image that was just unpacked is not synced by the engine: a VM that is cut off loses what is
	// younger than this, and the kernel's 30 s are long.
	"vm/dirty_expire_centisecs":          "300",
	"vm/dirty_writeback_centisecs":       "100",
	"vm/max_map_count":                   "1048576", // search engines in containers want 262144
	"vm/overcommit_memory":               "1",
	"fs/inotify/max_user_watches":        "1048576",
	"fs/inotify/max_user_instances":      "8192",
	"fs/file-max":                        "1048576",
	"fs/aio-max-nr":                      "1048576",
	"kernel/pid_max":                     "4194304",
	"kernel/keys/maxkeys":                "20000",
	"kernel/keys/maxbytes":               "2000000",
	"kernel/panic":                       "1",
	"kernel/printk":                      "4 4 1 7", // container network chatter stays off the console
	"kernel/unprivileged_bpf_disabled":   "1",
	"kernel/yama/ptrace_scope":           "1",
	"fs/protected_hardlinks":             "1",
	"fs/protected_symlinks":              "1",
	"net/netfilter/nf_conntrack_max":     "262144",
	"net/bridge/bridge-nf-call-iptables": "1",
}

// Sysctls sets them. One that this kernel has not, or not yet, is left.
func Sysctls(context.Context) error {
	var errs []error
	for name, value := range sysctls {
		err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("set %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Loopback brings up the guest's own loopback device.
func Loopback(context.Context) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}
