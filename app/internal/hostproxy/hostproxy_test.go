package hostproxy

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/http/httpproxy"
)

const canary = "p4ss-c4nary"

func TestParse(t *testing.T) {
	for _, c := range []struct {
		is, in, out, guest string // out empty: refused
	}{
		{"a proxy elsewhere is the same for the guest", "http://proxy.example.com:3128", "http://proxy.example.com:3128", "http://proxy.example.com:3128"},
		{"one on the host's loopback has another name there", "http://127.0.0.1:3128", "http://127.0.0.1:3128", "http://host.docker.internal:3128"},
		{"by name too", "http://LocalHost:3128/", "http://LocalHost:3128", "http://host.docker.internal:3128"},
		{"by a name below localhost", "http://proxy.localhost", "http://proxy.localhost", "http://host.docker.internal"},
		{"by IPv6", "https://[::1]:3129", "https://[::1]:3129", "https://host.docker.internal:3129"},
		{"by any of the loopback addresses", "socks5://127.0.0.53:1080", "socks5://127.0.0.53:1080", "socks5://host.docker.internal:1080"},
		{"by all addresses, which a client takes for the loopback", "http://0.0.0.0:8080", "http://0.0.0.0:8080", "http://host.docker.internal:8080"},
		{"the login stays", "http://u:p@127.0.0.1:3128", "http://u:p@127.0.0.1:3128", "http://u:p@host.docker.internal:3128"},
		{"without a scheme it is http", "proxy.example.com:3128", "http://proxy.example.com:3128", "http://proxy.example.com:3128"},
		{"and so with a login", "u:p@proxy:3128", "http://u:p@proxy:3128", "http://u:p@proxy:3128"},
		{"a scheme that no engine speaks", "ftp://proxy:21", "", ""},
		{"a page is no proxy", "http://proxy:80/proxy.pac", "", ""},
		{"a query is no proxy", "http://proxy:80?x", "", ""},
		{"a port that is none", "http://proxy:port", "", ""},
		{"a password that breaks the URL", "http://u:" + canary + "/x@proxy:80", "", ""},
		{"nothing but a port", "http://:3128", "", ""},
	} {
		u, err := Parse(c.in)
		if u.RevealURL() != c.out || u.ForGuest().RevealURL() != c.guest || (err != nil) != (c.out == "") {
			t.Errorf("%s: Parse(%q) = %q, %q for the guest, %v; want %q and %q", c.is, c.in, u.RevealURL(), u.ForGuest().RevealURL(), err, c.out, c.guest)
		}
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("the error has the password in it: %v", err)
		}
	}
	if u, err := Parse(" "); !u.IsZero() || err != nil {
		t.Errorf("Parse of nothing = %v, %v; want none", u, err)
	}
}

func TestAPasswordIsNotPrinted(t *testing.T) {
	u, err := Parse("http://user:" + canary + "@proxy:3128")
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		for _, v := range []any{u, &u, Proxies{HTTP: u}, &Proxies{HTTPS: u}} {
			if text := fmt.Sprintf(verb, v); strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) {
				t.Errorf("%s of %T prints %s", verb, v, text)
			}
		}
	}
	if u.String() != "http://user:xxxxx@proxy:3128" {
		t.Errorf("it prints as %s", u)
	}
}

func TestEnvironment(t *testing.T) {
	p, err := Environment(func(name string) string {
		return map[string]string{"http_proxy": "http://small:1", "HTTP_PROXY": "http://large:1", "HTTPS_PROXY": "secure:2", "NO_PROXY": "a,b"}[name]
	})
	if err != nil || p.HTTP.RevealURL() != "http://small:1" || p.HTTPS.RevealURL() != "http://secure:2" || p.No != "a,b" {
		t.Errorf("Environment = %q %q %q, %v", p.HTTP, p.HTTPS, p.No, err)
	}
	p, err = Environment(func(name string) string {
		return map[string]string{"http_proxy": "gopher://u:" + canary + "@h", "https_proxy": "http://good:1"}[name]
	})
	if err == nil || !strings.Contains(err.Error(), "http_proxy") || strings.Contains(err.Error(), canary) || p.HTTPS.IsZero() {
		t.Errorf("with one that cannot be used: %v, %v; want its name, not its value, and the other", p, err)
	}
}

func TestWhatTheEngineReachesByTheProxy(t *testing.T) {
	u, _ := Parse("http://127.0.0.1:3128")
	p := Proxies{HTTP: u, HTTPS: u, No: "registry.corp, 10.0.0.0/8 ,localhost"}.ForGuest()
	choose := (&httpproxy.Config{HTTPProxy: p.HTTP.RevealURL(), HTTPSProxy: p.HTTPS.RevealURL(), NoProxy: p.No}).ProxyFunc()
	for to, proxied := range map[string]bool{
		"https://registry-1.docker.io/v2/":    true,
		"http://deb.debian.org/":              true,
		"https://192.168.1.5:5000/v2/":        true,
		"https://registry.corp/v2/":           false,
		"http://10.1.2.3/":                    false,
		"http://localhost:5000/v2/":           false,
		"http://127.0.0.1:5000/v2/":           false,
		"http://[::1]:5000/v2/":               false,
		"http://host.docker.internal:5000/":   false,
		"http://gateway.docker.internal/":     false,
		"http://evil-docker.internal.example": true,
	} {
		at, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		if by, err := choose(at); (by != nil) != proxied || err != nil {
			t.Errorf("%s goes by %v, %v; want by the proxy: %v (no-proxy is %s)", to, by, err, proxied, p.No)
		}
	}
	if p := (Proxies{No: "a"}).ForGuest(); !p.IsZero() || p.No != "" {
		t.Errorf("without a proxy the guest gets %v", p)
	}
}

func TestWindowsForm(t *testing.T) {
	for _, c := range []struct {
		server, override, http, https, no string
	}{
		{"proxy:8080", "", "http://proxy:8080", "http://proxy:8080", ""},
		{"http=a:1;https=b:2;ftp=c:3", "*.corp.example;intranet;<local>;10.*", "http://a:1", "http://b:2", "*.corp.example,intranet"},
		{"https=b:2", "", "", "http://b:2", ""},
		{"socks=s:1080", "", "", "", ""},
	} {
		p, err := winINET(c.server, c.override)
		if err != nil || p.HTTP.RevealURL() != c.http || p.HTTPS.RevealURL() != c.https || p.No != c.no {
			t.Errorf("winINET(%q, %q) = %q %q %q, %v", c.server, c.override, p.HTTP, p.HTTPS, p.No, err)
		}
	}
}
