package settings

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/covedesk/cove/app/internal/hostproxy"
	"github.com/covedesk/cove/app/internal/imagetrust"
	"github.com/docker/go-units"
)

// Host is what the ranges and defaults depend on.
type Host struct {
	CPUs   int
	Memory int64  // bytes
	Home   string // the user's home folder; empty where it is not known
	Temp   string // the folder for temporary files
}

// Values are the settings as the daemon uses them.
type Values struct {
	CPUs           int
	Memory         int64 // bytes
	Swap           int64 // bytes; 0: none
	Disk           int64 // bytes
	DataFolder     string
	Accelerator    string // empty: Cove chooses
	Shares         []Share
	PublishAll     bool   // published ports that name no address are on all of the host's, not on loopback alone
	SSHAgent       string // off, or a path; empty: what the environment says
	Proxy          Proxy
	CredentialsOff bool // docker is made to use Cove's credential helper only when asked
	Registry       Registry
	Sleep          Sleep
	Trust          []imagetrust.Key // by which images are verified
	Engine         json.RawMessage  // empty: nothing is overridden
}

// Proxy is what the settings say of HTTP proxies.
type Proxy struct {
	Off         bool // none, whatever the host has
	HTTP, HTTPS hostproxy.URL
	No          string
	Containers  bool // docker's clients give them to containers and builds
}

const (
	mib = 1 << 20
	gib = 1 << 30
	tib = 1 << 40
)

// When a value holds: at the engine's next start; at once; or at once where the VM that runs can follow,
// and else at the next start: Store.Set then says restart, and it is for the caller to know better.
const (
	restart = "restart"
	now     = "now"
	live    = "live"
)

// key is one row of the schema.
type key struct {
	name, kind, description string
	applies                 string // restart, now or live
	fallback                func(Host) string
	allowed                 func(Host) string
	// parse checks a value and gives its usual form.
	parse func(Host, string) (string, error)
	take  func(*Values, string)
	// check looks at what a value names, when it is set; nil where it names nothing.
	check func(Host, string) error
}

// schema is all there is. The CLI, the API and the GUI show it as it stands here.
var schema = []key{
	{
		name: "cpus", kind: "integer", applies: restart, description: "Processors of the VM.",
		fallback: func(h Host) string { return strconv.Itoa(min(h.CPUs, max(2, (h.CPUs+1)/2))) },
		allowed:  func(h Host) string { return fmt.Sprintf("1 to %d", h.CPUs) },
		parse: func(h Host, s string) (string, error) {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 || n > h.CPUs {
				return "", errRange
			}
			return strconv.Itoa(n), nil
		},
		take: func(v *Values, s string) { v.CPUs, _ = strconv.Atoi(s) },
	},
	{
		name: "memory", kind: "size", applies: live, description: "Memory of the VM, which takes only what is used of it. Less holds at once, and as much again as it was started with; more needs a restart.",
		fallback: func(h Host) string { return size(min(max(2*gib, min(h.Memory/4, 8*gib)), h.Memory/2)) },
		allowed:  func(h Host) string { return fmt.Sprintf("512MiB to %s", size(h.Memory)) },
		parse:    func(h Host, s string) (string, error) { return sizeIn(s, 512*mib, h.Memory) },
		take:     func(v *Values, s string) { v.Memory, _ = units.RAMInBytes(s) },
	},
	{
		name: "swap", kind: "size", applies: now, description: "Swap of the VM: a file on its data disk. 0: none.",
		fallback: func(Host) string { return "1GiB" },
		allowed:  func(Host) string { return "0, or 64MiB to 64GiB" },
		parse: func(_ Host, s string) (string, error) {
			if n, err := units.RAMInBytes(s); err == nil && n == 0 {
				return "0", nil
			}
			return sizeIn(s, 64*mib, 64*gib)
		},
		take: func(v *Values, s string) { v.Swap, _ = units.RAMInBytes(s) },
	},
	{
		name: "disk", kind: "size", applies: now, description: "Size of the data disk, which takes only what is used. It grows, at once where the engine runs, and never shrinks.",
		fallback: func(Host) string { return "64GiB" },
		allowed:  func(Host) string { return "4GiB to 16TiB" },
		parse:    func(_ Host, s string) (string, error) { return sizeIn(s, 4*gib, 16*tib) },
		take:     func(v *Values, s string) { v.Disk, _ = units.RAMInBytes(s) },
	},
	{
		name: "data-folder", kind: "path", applies: restart, description: "Folder of the data disk. Empty: in Cove's own folder. An existing disk is not moved.",
		fallback: func(Host) string { return "" },
		allowed:  func(Host) string { return "an absolute path, or empty" },
		parse: func(_ Host, s string) (string, error) {
			if s != "" && !filepath.IsAbs(s) {
				return "", errRange
			}
			return s, nil
		},
		take: func(v *Values, s string) { v.DataFolder = s },
	},
	sharesKey,
	sleepKeys[0], sleepKeys[1], sleepKeys[2], sleepKeys[3],
	{
		name: "accelerator", kind: "choice", applies: restart, description: "What runs the VM's code. auto takes the best that is proven to work.",
		fallback: func(Host) string { return "auto" },
		allowed:  func(Host) string { return strings.Join(accelerators, ", ") },
		parse:    oneOf(accelerators),
		take: func(v *Values, s string) {
			if s != "auto" {
				v.Accelerator = s
			}
		},
	},
	{
		name: "publish-address", kind: "choice", applies: restart, description: "Where `-p 8080:80` listens: on loopback (127.0.0.1 and ::1), or on all addresses, for the network to reach. Networks keep what held when they were made.",
		fallback: func(Host) string { return "loopback" },
		allowed:  func(Host) string { return strings.Join(publishAddresses, ", ") },
		parse:    oneOf(publishAddresses),
		take:     func(v *Values, s string) { v.PublishAll = s == "all" },
	},
	{
		name: "ssh-agent", kind: "path", applies: now, description: "The ssh agent that containers reach which mount /run/host-services/ssh-auth.sock. auto: the one of SSH_AUTH_SOCK where coved was started; a path: the one of this socket.",
		fallback: func(Host) string { return "auto" },
		allowed:  func(Host) string { return "auto, off, or an absolute path" },
		parse: func(_ Host, s string) (string, error) {
			if s != "auto" && s != "off" && !filepath.IsAbs(s) {
				return "", errRange
			}
			return s, nil
		},
		take: func(v *Values, s string) {
			if s != "auto" {
				v.SSHAgent = s
			}
		},
	},
	{
		name: "credentials.docker", kind: "choice", applies: restart, description: "auto: where docker would keep the passwords of registries in plain text, and none of its settings is at stake, it is made to use Cove's credential helper. off: only `cove credentials use` does that.",
		fallback: func(Host) string { return "auto" },
		allowed:  func(Host) string { return strings.Join(autoOff, ", ") },
		parse:    oneOf(autoOff),
		take:     func(v *Values, s string) { v.CredentialsOff = s == "off" },
	},
	{
		name: "proxy.mode", kind: "choice", applies: restart, description: "HTTP proxies for the engine, which pulls and builds by them. auto: proxy.http and proxy.https where one is set, else the host's: those of coved's environment, then the system's. off: none.",
		fallback: func(Host) string { return "auto" },
		allowed:  func(Host) string { return strings.Join(autoOff, ", ") },
		parse:    oneOf(autoOff),
		take:     func(v *Values, s string) { v.Proxy.Off = s == "off" },
	},
	{
		name: "proxy.http", kind: "url", applies: restart, description: "The proxy for http, such as http://user:password@proxy.example.com:3128. Its password is kept in settings.json and never shown.",
		fallback: func(Host) string { return "" },
		allowed:  func(Host) string { return proxyForm },
		parse:    proxyURL,
		take:     func(v *Values, s string) { v.Proxy.HTTP, _ = hostproxy.Parse(s) },
	},
	{
		name: "proxy.https", kind: "url", applies: restart, description: "The proxy for https, which registries speak.",
		fallback: func(Host) string { return "" },
		allowed:  func(Host) string { return proxyForm },
		parse:    proxyURL,
		take:     func(v *Values, s string) { v.Proxy.HTTPS, _ = hostproxy.Parse(s) },
	},
	{
		name: "proxy.no-proxy", kind: "text", applies: restart, description: "What is reached without a proxy, in place of the host's own list: names, their domains, addresses and networks, with commas between. localhost and docker.internal always are.",
		fallback: func(Host) string { return "" },
		allowed:  func(Host) string { return "names, addresses and networks with commas between, or empty" },
		parse: func(_ Host, s string) (string, error) {
			if !noProxy.MatchString(s) {
				return "", errRange
			}
			return s, nil
		},
		take: func(v *Values, s string) { v.Proxy.No = s },
	},
	{
		name: "proxy.containers", kind: "choice", applies: restart, description: "Whether containers and builds get the proxies as variables (HTTPS_PROXY, …), password and all: docker, buildx and compose set them, by an entry for this engine in docker's config.json.",
		fallback: func(Host) string { return "false" },
		allowed:  func(Host) string { return "true, false" },
		parse: func(_ Host, s string) (string, error) {
			if s != "true" && s != "false" {
				return "", errRange
			}
			return s, nil
		},
		take: func(v *Values, s string) { v.Proxy.Containers = s == "true" },
	},
	registryKeys[0], registryKeys[1], registryKeys[2],
	trustKey,
	{
		name: "engine", kind: "json", applies: restart, description: "Settings of the engine, merged over Cove's own daemon.json. engine.KEY sets one of them.",
		fallback: func(Host) string { return "{}" },
		allowed:  func(Host) string { return "a JSON object without " + strings.Join(owned, ", ") },
		parse:    func(_ Host, s string) (string, error) { return engineSettings(s) },
		take: func(v *Values, s string) {
			if s != "{}" {
				v.Engine = json.RawMessage(s)
			}
		},
	},
}

var accelerators = []string{"auto", "kvm", "hvf", "whpx", "tcg"}

var autoOff = []string{"auto", "off"}

const proxyForm = "the URL of a proxy (http, https, socks5, socks5h), or empty"

// noProxy is the form of NO_PROXY: it has no place for a URL, and so none for a password.
var noProxy = regexp.MustCompile(`^[\pL\pN.,:/\[\]*_ -]*$`)

var publishAddresses = []string{"loopback", "all"}

// owned are the engine's settings that Cove answers for: another value would cut it off. The last two
// are one: dockerd's flag has the s and its JSON has not (moby, daemon/command/config.go and
// daemon/config/config.go).
var owned = []string{"hosts", "data-root", "exec-root", "pidfile", "group", "containerd", "containerd-namespace", "containerd-plugin-namespace", "containerd-plugins-namespace"}

func engineSettings(s string) (string, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal([]byte(s), &all); err != nil || all == nil {
		return "", errRange
	}
	for k := range all {
		// encoding/json, which dockerd reads with, takes any case.
		if slices.ContainsFunc(owned, func(o string) bool { return strings.EqualFold(o, k) }) {
			return "", fmt.Errorf("%s is Cove's own to set", k)
		}
	}
	b, err := json.Marshal(all)
	return string(b), err
}

func sizeIn(s string, least, most int64) (string, error) {
	n, err := units.RAMInBytes(s)
	if err != nil || n < least || n > most {
		return "", errRange
	}
	return size(n), nil
}

// size is a number of bytes in the largest unit that keeps it whole, or in MiB.
func size(n int64) string {
	for _, u := range []struct {
		bytes int64
		name  string
	}{{tib, "TiB"}, {gib, "GiB"}} {
		if n%u.bytes == 0 && n > 0 {
			return fmt.Sprint(n/u.bytes, u.name)
		}
	}
	return fmt.Sprint(n/mib, "MiB")
}
