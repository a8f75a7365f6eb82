package qemu

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/covedesk/cove/vmhost"
)

var whole = plumbing{monitor: 3, console: 4, control: 5, mux: 6, vsock: 7, network: 8}

// cable is a network that nothing is plugged into.
type cable struct{ vmhost.Network }

func (cable) MTU() int { return 65520 }

func spec() vmhost.Spec {
	return vmhost.Spec{Name: "default", CPUs: 3, Memory: 2 << 30, Kernel: "/i/vmlinuz", Initrd: "/i/initrd", Root: "/i/root.erofs",
		Data: `/d/a,b="c" d.raw`, RunDir: "/r", Network: cable{}, Cmdline: []string{"quiet", "cove.x=1"}}
}

// values are what follows a flag, wherever it stands.
func values(args []string, flag string) []string {
	var out []string
	for i, a := range args {
		if a == flag && i+1 < len(args) {
			out = append(out, args[i+1])
		}
	}
	return out
}

// one is the only value of a flag.
func one(t *testing.T, args []string, flag string) string {
	t.Helper()
	v := values(args, flag)
	if len(v) != 1 {
		t.Fatalf("%s is there %d times in %q; want it once", flag, len(v), args)
	}
	return v[0]
}

func TestArgvWhateverItRunsOn(t *testing.T) {
	for _, accel := range []string{"kvm", "tcg", "hvf", "whpx"} {
		for _, arch := range []string{"amd64", "arm64"} {
			t.Run(accel+" on "+arch, func(t *testing.T) {
				args := argv(spec(), accel, arch, whole)
				if again := argv(spec(), accel, arch, whole); !slices.Equal(args, again) {
					t.Errorf("argv = %q and then %q; want the same for the same spec", args, again)
				}
				for _, flag := range []string{"-nodefaults", "-no-user-config", "-no-reboot"} {
					if !slices.Contains(args, flag) {
						t.Errorf("argv has no %s: %q", flag, args)
					}
				}
				sandbox := strings.Split(one(t, args, "-sandbox"), ",")
				for _, rule := range []string{"on", "obsolete=deny", "elevateprivileges=deny", "spawn=deny", "resourcecontrol=deny"} {
					if !slices.Contains(sandbox, rule) {
						t.Errorf("-sandbox %q does not say %s", sandbox, rule)
					}
				}
				for flag, want := range map[string]string{"-display": "none", "-smp": "cpus=3,sockets=1,cores=3,threads=1", "-m": "2048M",
					"-kernel": "/i/vmlinuz", "-initrd": "/i/initrd", "-name": "cove-default,debug-threads=on"} {
					if got := one(t, args, flag); got != want {
						t.Errorf("%s %s; want %s", flag, got, want)
					}
				}
				if got := one(t, args, "-accel"); got != accel && !strings.HasPrefix(got, accel+",") {
					t.Errorf("-accel %s; want %s and no other to fall back to", got, accel)
				}
				blockdevs(t, args)
				if data := args[slices.IndexFunc(args, func(a string) bool { return strings.Contains(a, "drive=data") })]; !strings.Contains(data, ",werror=stop") {
					t.Errorf("-device %s; want a machine that is paused when a write fails", data)
				}
				noListeners(t, args)
				for _, a := range args {
					if regexp.MustCompile(`(?i)secret|passw|token|nonce`).MatchString(a) {
						t.Errorf("%q could be a secret: every container can read the kernel's part of it, every user of the host all", a)
					}
				}
			})
		}
	}
}

// blockdevs looks at the disks: a raw one whose content looks like another format must stay raw.
func blockdevs(t *testing.T, args []string) {
	t.Helper()
	for _, flag := range []string{"-drive", "-hda", "-hdb", "-cdrom", "-fda", "-sd", "-pflash", "-mtdblock", "-snapshot"} {
		if slices.Contains(args, flag) {
			t.Errorf("argv has %s, which may guess a format: %q", flag, args)
		}
	}
	type file struct {
		Driver   string
		Filename string
		ReadOnly bool `json:"read-only"`
		Discard  string
		Locking  string
	}
	type node struct {
		Driver       string
		Node         string `json:"node-name"`
		ReadOnly     bool   `json:"read-only"`
		AutoReadOnly *bool  `json:"auto-read-only"`
		Discard      string
		File         file
	}
	disks := map[string]node{}
	for _, v := range values(args, "-blockdev") {
		var n node
		if err := json.Unmarshal([]byte(v), &n); err != nil {
			t.Fatalf("-blockdev %s: %v", v, err)
		}
		if n.Driver != "raw" || n.File.Driver != "file" {
			t.Errorf("-blockdev %s; want raw on file, both said", v)
		}
		disks[n.Node] = n
	}
	if root := disks["root"]; len(disks) != 2 || !root.ReadOnly || !root.File.ReadOnly || root.AutoReadOnly == nil || *root.AutoReadOnly || root.File.Filename != "/i/root.erofs" {
		t.Errorf("the root is %+v; want a read-only one of /i/root.erofs", root)
	}
	if data := disks["data"]; data.ReadOnly || data.File.Filename != spec().Data || data.Discard != "unmap" || data.File.Discard != "unmap" || data.File.Locking != "on" {
		t.Errorf("the data disk is %+v; want a writable one of %s, whole, that is locked and given back", data, spec().Data)
	}
}

// noListeners looks for what somebody else could connect to.
func noListeners(t *testing.T, args []string) {
	t.Helper()
	for _, flag := range []string{"-net", "-nic", "-vnc", "-spice", "-gdb", "-s", "-S", "-incoming", "-qmp", "-monitor", "-redir", "-parallel", "-virtfs", "-fsdev", "-daemonize", "-pidfile", "-readconfig"} {
		if slices.Contains(args, flag) {
			t.Errorf("argv has %s: %q", flag, args)
		}
	}
	if got := one(t, args, "-netdev"); got != "stream,id=net0,server=off,addr.type=fd,addr.str=8" {
		t.Errorf("-netdev %s; want the inherited socket", got)
	}
	for _, v := range values(args, "-chardev") {
		if !regexp.MustCompile(`^socket,id=[a-z]+,fd=[0-9]+(,server=on,wait=off)?$`).MatchString(v) {
			t.Errorf("-chardev %s; want a socket that is inherited", v)
		}
		if strings.Contains(v, "server=on") && !strings.Contains(v, "id=monitor,") {
			t.Errorf("-chardev %s listens; want the monitor alone to", v)
		}
	}
}

func TestArgvOfEachArchitecture(t *testing.T) {
	for _, row := range []struct {
		arch, machine, console string
		panics                 bool
	}{
		{"amd64", "q35,", "console=ttyS0", true},
		{"arm64", "virt,", "console=ttyAMA0", false},
	} {
		args := argv(spec(), "tcg", row.arch, whole)
		if got := one(t, args, "-machine"); !strings.HasPrefix(got, row.machine) || !strings.HasSuffix(got, ",memory-backend=ram") {
			t.Errorf("%s: -machine %s; want %s on the shared memory", row.arch, got, row.machine)
		}
		if got, want := one(t, args, "-append"), row.console+" panic=1 quiet cove.x=1"; got != want {
			t.Errorf("%s: -append %q; want %q", row.arch, got, want)
		}
		if got := slices.Contains(values(args, "-device"), "pvpanic-pci"); got != row.panics {
			t.Errorf("%s: pvpanic is there: %t; want %t", row.arch, got, row.panics)
		}
	}
}

func TestArgvOfEachAccelerator(t *testing.T) {
	for _, row := range []struct{ accel, arch, says, cpu string }{
		{"kvm", "amd64", "kvm", "host"}, {"hvf", "arm64", "hvf", "host"}, {"whpx", "amd64", "whpx", "max"},
		{"tcg", "amd64", "tcg,thread=multi", "max,erms=off,fsrm=off"}, {"tcg", "arm64", "tcg,thread=multi", "max"},
	} {
		args := argv(spec(), row.accel, row.arch, whole)
		if says, cpu := one(t, args, "-accel"), one(t, args, "-cpu"); says != row.says || cpu != row.cpu {
			t.Errorf("%s on %s: -accel %q, -cpu %q; want %q, %q", row.accel, row.arch, says, cpu, row.says, row.cpu)
		}
	}
}

func TestArgvDoesWithoutWhatIsNotThere(t *testing.T) {
	s := spec()
	s.Initrd = ""
	if args := argv(s, "kvm", "amd64", whole); slices.Contains(args, "-initrd") {
		t.Errorf("argv without an initrd has -initrd: %q", args)
	}
	p := whole
	p.vsock = 0
	if all := strings.Join(argv(spec(), "kvm", "amd64", p), " "); strings.Contains(all, "vsock") || strings.Contains(all, "pcie-root-port") {
		t.Errorf("argv without a vsock device has one: %s", all)
	}
	p = whole
	p.network = 0
	s = spec()
	s.Network = nil
	if all := strings.Join(argv(s, "kvm", "amd64", p), " "); strings.Contains(all, "netdev") || strings.Contains(all, "virtio-net") {
		t.Errorf("argv without a network has a card: %s", all)
	}
}
