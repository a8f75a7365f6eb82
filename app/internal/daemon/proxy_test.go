package daemon

import (
	"errors"
	"testing"

	"github.com/covedesk/cove/app/internal/hostproxy"
	"github.com/covedesk/cove/app/internal/settings"
)

func TestWhichProxies(t *testing.T) {
	url := func(s string) hostproxy.URL {
		u, err := hostproxy.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	ofHost := hostproxy.Proxies{HTTPS: url("http://host:1"), No: "corp", From: "environment"}
	for _, c := range []struct {
		is      string
		setting settings.Proxy
		host    error
		https   string
		no      string
	}{
		{"the host's where nothing is set", settings.Proxy{}, nil, "http://host:1", "corp"},
		{"none where they are off", settings.Proxy{Off: true, HTTPS: url("http://set:1")}, nil, "", ""},
		{"those that are set, and of the host's nothing", settings.Proxy{HTTPS: url("http://set:1")}, nil, "http://set:1", ""},
		{"one that is set is enough to leave the host's out", settings.Proxy{HTTP: url("http://set:1")}, nil, "", ""},
		{"exceptions that are set replace the host's", settings.Proxy{No: "mine"}, nil, "http://host:1", "mine"},
		{"what can be used of the host's is", settings.Proxy{}, errors.New("http_proxy cannot be used"), "http://host:1", "corp"},
	} {
		p, err := hostProxies(c.setting, func(func(string) string) (hostproxy.Proxies, error) { return ofHost, c.host })
		if p.HTTPS.RevealURL() != c.https || p.No != c.no || !errors.Is(err, c.host) {
			t.Errorf("%s: https %q, no %q, %v; want %q and %q", c.is, p.HTTPS, p.No, err, c.https, c.no)
		}
	}
}
