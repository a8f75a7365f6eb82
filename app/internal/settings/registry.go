package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/covedesk/cove/app/internal/trust"
	"github.com/distribution/reference"
)

// Registry is what the settings say of registries.
type Registry struct {
	Insecure []string // host, host:port or a network
	Mirrors  []Mirror
	CA       []string // files of certificates (PEM)
}

// DockerHub is the registry of names that have none.
const DockerHub = "docker.io"

// Mirror is asked before a registry.
type Mirror struct {
	Registry string // as in the names of images
	URL      string
}

func (m Mirror) String() string {
	if m.Registry == DockerHub {
		return m.URL
	}
	return m.Registry + "=" + m.URL
}

var domain = regexp.MustCompile(`^` + reference.DomainRegexp.String() + `$`)

// hosts under which the VM finds itself, where people may mean this machine.
var loopbackName = regexp.MustCompile(`^(?i:localhost|.*\.localhost|127\..*|::1|0\.0\.0\.0)$`)

// parseRegistryHost checks a registry's name as it stands in the names of images.
func parseRegistryHost(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, ""
	}
	if n, err := strconv.Atoi(port); port != "" && (err != nil || n < 1 || n > 65535) || !domain.MatchString(s) && net.ParseIP(host) == nil {
		return "", fmt.Errorf("%q is not a registry's host or host:port", s)
	}
	if slices.Contains([]string{"index.docker.io", "registry-1.docker.io", DockerHub}, strings.ToLower(s)) {
		return DockerHub, nil
	}
	return s, nil
}

func parseInsecure(s string) (string, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked().String(), nil
	}
	if strings.Contains(s, "://") {
		return "", fmt.Errorf("%q is a URL; give its host:port alone", s)
	}
	host, err := parseRegistryHost(s)
	if host == DockerHub {
		return "", errors.New("Docker Hub has a certificate that everybody can check; to go by another registry set registry.mirrors")
	}
	return host, err
}

func parseMirror(s string) (string, error) {
	m := Mirror{Registry: DockerHub, URL: s}
	if before, after, is := strings.Cut(s, "="); is && !strings.Contains(before, "/") {
		host, err := parseRegistryHost(before)
		if err != nil {
			return "", err
		}
		m = Mirror{host, after}
	}
	u, err := url.Parse(m.URL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "", errors.New("a mirror is a URL with http or https, such as https://mirror.example.com:5000")
	case u.User != nil:
		return "", errors.New("a mirror's URL has no place for a user or a password") // neither is in this text
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%q ends with a query or a fragment, which no mirror has", m.URL)
	case loopbackName.MatchString(u.Hostname()):
		return "", fmt.Errorf("%s is the VM itself there; this machine is host.docker.internal", u.Hostname())
	}
	m.URL = strings.TrimRight(m.URL, "/")
	return m.String(), nil
}

// takeMirror is the inverse of Mirror.String.
func takeMirror(s string) Mirror {
	if before, after, is := strings.Cut(s, "="); is && !strings.Contains(before, "/") {
		return Mirror{before, after}
	}
	return Mirror{DockerHub, s}
}

func parseCA(h Host, s string) (string, error) {
	if rest, is := strings.CutPrefix(s, "~/"); is && h.Home != "" {
		s = filepath.Join(h.Home, rest)
	}
	if !filepath.IsAbs(s) {
		return "", fmt.Errorf("%q is not an absolute path", s)
	}
	return filepath.Clean(s), nil
}

// list reads a list in either form, "a,b" or a JSON array of strings, without the second of two that are the
// same.
func list(one func(Host, string) (string, error)) func(Host, string) (string, error) {
	return func(h Host, s string) (string, error) {
		var all, out []string
		if s = strings.TrimSpace(s); s != "" && json.Unmarshal([]byte(s), &all) != nil { // an IPv6 address begins as a list does
			all = strings.Split(s, ",")
		}
		for _, text := range all {
			form, err := one(h, strings.TrimSpace(text))
			if err != nil {
				return "", err
			}
			if strings.Contains(form, ",") {
				return "", fmt.Errorf("%q has a comma, which separates two", form)
			}
			if !slices.Contains(out, form) {
				out = append(out, form)
			}
		}
		return strings.Join(out, ","), nil
	}
}

func items(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}

// checkCA reads the files, when they are set. Later a file that has gone is told, and the rest holds.
func checkCA(_ Host, s string) error {
	for _, path := range items(s) {
		if _, err := trust.Read(path, time.Now()); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func none(Host) string { return "" }

// registryKeys are the rows of the schema.
var registryKeys = []key{
	{
		name: "registry.insecure", kind: "list", applies: restart, description: "Registries whose certificate is not checked, and which may speak http. Passwords go to them in the clear.",
		fallback: none,
		allowed: func(Host) string {
			return "host, host:port or networks such as 10.0.0.0/8, separated by commas; or empty"
		},
		parse: list(func(_ Host, s string) (string, error) { return parseInsecure(s) }),
		take:  func(v *Values, s string) { v.Registry.Insecure = items(s) },
	},
	{
		name: "registry.mirrors", kind: "list", applies: restart, description: "Mirrors that pulls and builds ask first, in this order: a URL is one of Docker Hub, HOST=URL one of another registry.",
		fallback: none,
		allowed:  func(Host) string { return "URLs, or HOST=URL, separated by commas; or empty" },
		parse:    list(func(_ Host, s string) (string, error) { return parseMirror(s) }),
		take: func(v *Values, s string) {
			for _, m := range items(s) {
				v.Registry.Mirrors = append(v.Registry.Mirrors, takeMirror(m))
			}
		},
	},
	{
		name: "registry.ca", kind: "list", applies: restart, description: "Files with certificates of authorities (PEM) that the engine believes, beyond those that were added to this machine's own.",
		fallback: none,
		allowed:  func(Host) string { return "absolute paths separated by commas; or empty" },
		parse:    list(parseCA),
		check:    checkCA,
		take:     func(v *Values, s string) { v.Registry.CA = items(s) },
	},
}
