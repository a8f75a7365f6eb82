package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Share is a folder of the host that containers may mount.
type Share struct {
	Path     string // absolute and clean
	ReadOnly bool
}

func (s Share) String() string {
	if s.ReadOnly {
		return s.Path + ":ro"
	}
	return s.Path
}

const sharesAllowed = "folders separated by commas, each an absolute path or ~/…, with :ro for read-only; or empty"

// guestPlaces are the guest's own: a folder of the host at one of them, in it or around it would take what
// the guest lives on.
var guestPlaces = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/proc", "/sys", "/dev", "/run", "/boot",
	"/var/lib/docker", "/var/lib/containerd", "/var/lib/cove", "/var/log", "/var/cache", "/var/tmp", "/var/run", "/var/lock", "/opt/cni", "/opt/containerd"}

// GuestPlace is the place of the guest's own that a folder at this path would take; empty if it takes none.
func GuestPlace(path string) string {
	path = filepath.ToSlash(path)
	for _, own := range guestPlaces {
		if Within(path, own) || Within(own, path) {
			return own
		}
	}
	return ""
}

// Within says whether a path is a folder or lies in it. Both are absolute and clean.
func Within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, strings.TrimSuffix(folder, string(filepath.Separator))+string(filepath.Separator))
}

// parseShares reads the list in either form, "a,b:ro" or a JSON array of the same.
func parseShares(h Host, s string) ([]Share, error) {
	var all []string
	switch s = strings.TrimSpace(s); {
	case s == "":
		return nil, nil
	case s[0] == '[':
		if err := json.Unmarshal([]byte(s), &all); err != nil {
			return nil, errRange
		}
	default:
		all = strings.Split(s, ",")
	}
	var out []Share
	for _, text := range all {
		share, err := parseShare(h, strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		out = append(out, share)
	}
	for i, a := range out {
		for j, b := range out {
			switch {
			case i == j:
			case a.Path == b.Path:
				return nil, fmt.Errorf("%s is there twice", a.Path)
			case a.ReadOnly && !b.ReadOnly && Within(a.Path, b.Path):
				return nil, fmt.Errorf("%s lies in %s, through which it could be written", a.Path, b.Path)
			}
		}
	}
	return out, nil
}

func parseShare(h Host, text string) (Share, error) {
	s := Share{Path: text}
	if path, ro := strings.CutSuffix(text, ":ro"); ro {
		s = Share{Path: path, ReadOnly: true}
	} else {
		s.Path = strings.TrimSuffix(text, ":rw")
	}
	if s.Path == "~" || strings.HasPrefix(s.Path, "~/") {
		if h.Home == "" {
			return Share{}, errors.New("the home folder is not known")
		}
		s.Path = filepath.Join(h.Home, s.Path[1:])
	}
	switch {
	case s.Path == "":
		return Share{}, errors.New("a path in it is empty")
	case strings.ContainsAny(s.Path, "\n\r\x00"):
		return Share{}, fmt.Errorf("%q has a line break, which no mount can have", s.Path)
	case strings.Contains(s.Path[len(filepath.VolumeName(s.Path)):], ":"):
		return Share{}, fmt.Errorf("%s has a colon, which `docker run -v` cannot name", s.Path)
	case strings.Contains(s.Path, ","):
		return Share{}, fmt.Errorf("%s has a comma, which `docker run --mount` cannot name", s.Path)
	case !filepath.IsAbs(s.Path):
		return Share{}, fmt.Errorf("%s is not an absolute path", s.Path)
	}
	s.Path = filepath.Clean(s.Path)
	if own := GuestPlace(s.Path); own != "" {
		return Share{}, fmt.Errorf("%s cannot be shared, because %s in the VM is the VM's own", s.Path, own)
	}
	return s, nil
}

// checkShares looks at the folders themselves. The file is read without it: a folder that has gone is no
// reason to start nothing.
func checkShares(h Host, s string) error {
	all, err := parseShares(h, s)
	if err != nil {
		return err
	}
	for _, share := range all {
		st, err := os.Stat(share.Path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("%s does not exist", share.Path)
		case err != nil:
			return err
		case !st.IsDir():
			return fmt.Errorf("%s is not a folder; share the folder that it lies in", share.Path)
		}
	}
	return nil
}

func formatShares(all []Share) string {
	var words []string
	for _, s := range all {
		words = append(words, s.String())
	}
	return strings.Join(words, ",")
}

// defaultShares are the home folder and the temporary one, where they can be shared at all.
func defaultShares(h Host) string {
	var out []Share
	for _, path := range []string{h.Home, h.Temp} {
		s, err := parseShare(h, path)
		if err == nil && (len(out) == 0 || !Within(s.Path, out[0].Path)) {
			out = append(out, s)
		}
	}
	return formatShares(out)
}

// sharesKey is the row of the schema.
var sharesKey = key{
	name: "shares", kind: "list", applies: restart, description: "Folders of the host that containers can mount, at the same path. Read-write, or read-only with :ro.",
	fallback: defaultShares,
	allowed:  func(Host) string { return sharesAllowed },
	parse: func(h Host, s string) (string, error) {
		all, err := parseShares(h, s)
		return formatShares(all), err
	},
	check: checkShares,
	take: func(v *Values, s string) {
		v.Shares, _ = parseShares(Host{}, s) // in its usual form: no ~ in it
	},
}
