package hostproxy

import (
	"errors"
	"strings"
)

// winINET reads Windows' form of proxies: "host:port" for every protocol, or "http=host:port;https=…". Its
// exceptions are names with * anywhere, of which NO_PROXY can say those with one at the front, and <local>
// for names without a dot, which it cannot say.
func winINET(server, override string) (Proxies, error) {
	p := Proxies{From: "system settings"}
	var errs [2]error
	if !strings.Contains(server, "=") {
		p.HTTP, errs[0] = Parse(server)
		p.HTTPS = p.HTTP
	}
	for _, one := range strings.FieldsFunc(server, func(r rune) bool { return r == ';' || r == ' ' }) {
		switch protocol, at, _ := strings.Cut(one, "="); strings.ToLower(protocol) {
		case "http":
			p.HTTP, errs[0] = Parse(at)
		case "https":
			p.HTTPS, errs[1] = Parse(at)
		}
	}
	var no []string
	for _, one := range strings.Split(override, ";") {
		one = strings.TrimSpace(one)
		if one != "" && !strings.HasPrefix(one, "<") && !strings.Contains(strings.TrimPrefix(one, "*."), "*") {
			no = append(no, one)
		}
	}
	p.No = strings.Join(no, ",")
	return p, errors.Join(errs[:]...)
}
