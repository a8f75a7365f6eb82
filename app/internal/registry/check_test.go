package registry

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/covedesk/cove/app/internal/secret"
	"github.com/covedesk/cove/app/internal/testregistry"
	"github.com/covedesk/cove/app/internal/trust"
)

const password = "open sesame/ü" // what a URL or a header would have to escape

func alice(p string) *Credential { return &Credential{User: "alice", Password: secret.New(p)} }

// checked are the steps of a check, as "name ok" or "name cause".
func checked(t *testing.T, c *Checker, name string, credential *Credential) ([]string, []Step) {
	t.Helper()
	n, err := Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	var steps []Step
	ok := c.Check(context.Background(), n, credential, func(s Step) {
		steps = append(steps, s)
		if s.OK {
			words = append(words, s.Name+" ok")
		} else {
			words = append(words, s.Name+" "+s.Cause)
		}
	})
	if ok != steps[len(steps)-1].OK {
		t.Errorf("Check of %s = %v after %+v", name, ok, steps)
	}
	if text := fmt.Sprintf("%+v", steps); strings.Contains(text, password) || strings.Contains(text, "YWxpY2U6") {
		t.Errorf("a step shows the password: %s", text)
	}
	return words, steps
}

func insecure(hosts ...string) func(string) bool {
	return func(host string) bool { return slices.Contains(hosts, host) }
}

// with is what this machine believes when it is given certificates for a registry.
func with(t *testing.T, host string, files map[string][]byte) trust.Found {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, host), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, host, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return trust.Find(trust.Places{Certs: []string{dir}}, nil, time.Now(), 1<<20)
}

func TestRealRegistries(t *testing.T) {
	users := map[string]string{"alice": password}
	open := testregistry.Start(t, testregistry.Options{})
	basic := testregistry.Start(t, testregistry.Options{TLS: true, Htpasswd: users})
	token := testregistry.Start(t, testregistry.Options{TLS: true, Token: users})
	mutual := testregistry.Start(t, testregistry.Options{TLS: true, ClientCert: true})
	cert, key, err := mutual.CA.Client()
	if err != nil {
		t.Fatal(err)
	}
	believe := func(r *testregistry.Registry, host string) trust.Found {
		return with(t, host, map[string][]byte{"ca.crt": r.CA.PEM})
	}
	engines := "host.docker.internal:" + basic.Port // by the engine's name for this machine
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, token.CA.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	everywhere := trust.Find(trust.Places{}, []string{file}, time.Now(), 1<<20)

	for _, c := range []struct {
		is         string
		checker    Checker
		name       string
		credential *Credential
		want       string
	}{
		{"an open registry on this machine may speak http", Checker{}, open.Addr, nil, "connect ok, tls ok, api ok, login ok"},
		{"a name is looked up", Checker{}, "localhost:" + open.Port, nil, "name ok, connect ok, tls ok, api ok, login ok"},
		{"an authority that nobody knows", Checker{}, basic.Addr, alice(password), "connect ok, tls authority"},
		{"one in certs.d is known, and the login taken", Checker{Trust: believe(basic, basic.Addr)}, basic.Addr, alice(password), "connect ok, tls ok, api ok, login ok"},
		{"one for another registry counts for that one alone", Checker{Trust: believe(basic, token.Addr)}, basic.Addr, nil, "connect ok, tls authority"},
		{"the engine's name for this machine leads to it", Checker{Trust: believe(basic, engines)}, engines, alice(password), "connect ok, tls ok, api ok, login ok"},
		{"a wrong password", Checker{Trust: believe(basic, basic.Addr)}, basic.Addr, alice("no"), "connect ok, tls ok, api ok, login login"},
		{"no login where one is wanted", Checker{Trust: believe(basic, basic.Addr)}, basic.Addr, nil, "connect ok, tls ok, api ok, login login-wanted"},
		{"tokens", Checker{Trust: everywhere}, token.Addr, alice(password), "connect ok, tls ok, api ok, login ok"},
		{"the registry's authority counts for its token server", Checker{Trust: believe(token, token.Addr)}, token.Addr, alice(password), "connect ok, tls ok, api ok, login ok"},
		{"a wrong password for a token", Checker{Trust: everywhere}, token.Addr, alice("no"), "connect ok, tls ok, api ok, login login"},
		{"insecure is not checked", Checker{Insecure: insecure(basic.Addr)}, basic.Addr, alice(password), "connect ok, tls ok, api ok, login ok"},
		{"a client's certificate is wanted", Checker{Trust: believe(mutual, mutual.Addr)}, mutual.Addr, nil, "connect ok, tls client-certificate"},
		{"a client's certificate is shown", Checker{Trust: with(t, mutual.Addr, map[string][]byte{"ca.crt": mutual.CA.PEM, "client.cert": cert, "client.key": key})}, mutual.Addr, nil, "connect ok, tls ok, api ok, login ok"},
	} {
		words, steps := checked(t, &c.checker, c.name, c.credential)
		if got := strings.Join(words, ", "); got != c.want {
			t.Errorf("%s: %s; want %s\n%+v", c.is, got, c.want, steps)
		}
		if last := steps[len(steps)-1]; !last.OK && last.Remedy == "" {
			t.Errorf("%s: nobody says what to do about %+v", c.is, last)
		}
	}
}

// recorder is a server that keeps what it was asked.
type recorder struct {
	mu    sync.Mutex
	asked []string
	say   http.HandlerFunc
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	r.asked = append(r.asked, fmt.Sprint(q.Method, " ", q.URL, " ", q.Header["Authorization"]))
	r.mu.Unlock()
	r.say(w, q)
}

func (r *recorder) secrets() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(strings.Join(r.asked, "\n"), "[Basic")
}

// lan is a dialler in whose world names are other machines, all of which a test plays.
func lan(names map[string]net.Listener) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		l := names[address]
		if l == nil {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Name: address, Err: "no such host", IsNotFound: true}}
		}
		return new(net.Dialer).DialContext(ctx, network, l.Addr().String())
	}
}

// No password leaves in the clear, and none goes where a registry sends it on to.
func TestWhereNoCredentialGoes(t *testing.T) {
	other := &recorder{say: func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"token":"t"}`)) }}
	otherServer := httptest.NewServer(other)
	defer otherServer.Close()
	wants := func(challenge string) http.HandlerFunc {
		return func(w http.ResponseWriter, q *http.Request) {
			if q.Header.Get("Authorization") != "" && strings.HasPrefix(challenge, "Basic") {
				return
			}
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	for _, c := range []struct {
		is       string
		tls      bool
		say      http.HandlerFunc
		insecure []string
		want     string // the last step
		sent     bool   // the registry itself got the password
	}{
		{"http on the network", false, wants(`Basic realm="r"`), nil, "tls plain-http", false},
		{"http on the network, set insecure", false, wants(`Basic realm="r"`), []string{"r.test:5000"}, "login ok", true},
		{"http for a token of an insecure registry, from another host", false, wants(`Bearer realm="http://other.test:80/token",service="s"`), []string{"r.test:5000"}, "login plain-http", false},
		{"a token by http where the registry speaks https", true, wants(`Bearer realm="http://r.test:5000/token",service="s"`), []string{"r.test:5000"}, "login other", false},
		{"a redirect to another host before the login", false, func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, "http://other.test:80/v2/", http.StatusTemporaryRedirect)
		}, []string{"r.test:5000", "other.test:80"}, "api redirect", false},
		{"a redirect to another host with the login", false, func(w http.ResponseWriter, q *http.Request) {
			if q.Header.Get("Authorization") == "" {
				wants(`Basic realm="r"`)(w, q)
				return
			}
			http.Redirect(w, q, "http://other.test:80/v2/", http.StatusTemporaryRedirect)
		}, []string{"r.test:5000", "other.test:80"}, "login redirect", true},
		{"a token server that sends on to another host", false, func(w http.ResponseWriter, q *http.Request) {
			if strings.HasPrefix(q.URL.Path, "/token") {
				http.Redirect(w, q, "http://other.test:80/token", http.StatusTemporaryRedirect)
				return
			}
			wants(`Bearer realm="http://r.test:5000/token",service="s"`)(w, q)
		}, []string{"r.test:5000", "other.test:80"}, "login redirect", true},
	} {
		r := &recorder{say: c.say}
		server := httptest.NewUnstartedServer(r)
		if c.tls {
			server.StartTLS()
		} else {
			server.Start()
		}
		checker := &Checker{Insecure: insecure(c.insecure...), Dial: lan(map[string]net.Listener{"r.test:5000": server.Listener, "other.test:80": otherServer.Listener})}
		words, steps := checked(t, checker, "r.test:5000", alice(password))
		if got := words[len(words)-1]; got != c.want {
			t.Errorf("%s: it ends with %q; want %q\n%+v", c.is, got, c.want, steps)
		}
		if r.secrets() != c.sent {
			t.Errorf("%s: the registry got the password: %v; want %v\n%s", c.is, !c.sent, c.sent, strings.Join(r.asked, "\n"))
		}
		if other.secrets() {
			t.Fatalf("%s: the other host got the password", c.is)
		}
		server.Close()
	}
}

func TestWhatIsNoRegistry(t *testing.T) {
	site := httptest.NewServer(http.NotFoundHandler())
	defer site.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	l.Close()
	for name, want := range map[string]string{
		strings.TrimPrefix(site.URL, "http://"): "api not-a-registry",
		gone:                                    "connect refused",
	} {
		words, steps := checked(t, &Checker{}, name, nil)
		if got := words[len(words)-1]; got != want {
			t.Errorf("Check of %s ends with %q; want %q\n%+v", name, got, want, steps)
		}
	}
	words, steps := checked(t, &Checker{Dial: lan(nil)}, "nowhere.test", nil)
	if got := strings.Join(words, ", "); got != "name name" {
		t.Errorf("Check of a name that is none: %s\n%+v", got, steps)
	}
}

func TestNames(t *testing.T) {
	for given, want := range map[string]Name{
		"docker.io":                     {"docker.io", "registry-1.docker.io", "https://index.docker.io/v1/"},
		"https://index.docker.io/v1/":   {"docker.io", "registry-1.docker.io", "https://index.docker.io/v1/"},
		"registry-1.docker.io":          {"docker.io", "registry-1.docker.io", "https://index.docker.io/v1/"},
		"https://r.example:5000/":       {"r.example:5000", "r.example:5000", "r.example:5000"},
		"[::1]:5000":                    {"[::1]:5000", "[::1]:5000", "[::1]:5000"},
		"r.example/path":                {},
		"":                              {},
		"user:" + "hunter2@r.example":   {},
		"https://user@r.example.com:99": {},
	} {
		got, err := Parse(given)
		if got != want || (err == nil) != (want != Name{}) {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", given, got, err, want)
		}
	}
}

func TestTheEnginesWords(t *testing.T) {
	for text, want := range map[string]string{
		`failed to do request: Head "https://r:1/v2/x": http: server gave HTTP response to HTTPS client`: CausePlain,
		`tls: failed to verify certificate: x509: certificate signed by unknown authority`:               CauseAuthority,
		`tls: failed to verify certificate: x509: certificate has expired or is not yet valid`:           CauseCertificate,
		`remote error: tls: certificate required`:                                                        CauseClient,
		`dial tcp: lookup r on 192.168.127.1:53: no such host`:                                           CauseName,
		`dial tcp 127.0.0.1:5000: connect: connection refused`:                                           CauseRefused,
		`Head "https://r/v2/x": no basic auth credentials`:                                               CauseWantsLogin,
		`unauthorized: authentication required`:                                                          CauseLogin,
		`proxyconnect tcp: dial tcp 10.0.0.1:3128: i/o timeout`:                                          CauseProxy,
		`something new`: CauseOther,
	} {
		if s := explainEngine(fmt.Errorf("%s", text), "r"); s.Cause != want || s.OK {
			t.Errorf("explainEngine(%q) = %+v; want the cause %s", text, s, want)
		}
	}
	for _, text := range []string{"manifest unknown", `r:1/cove/registry-test:x: not found`, "pull access denied for x, repository does not exist or may require 'docker login': denied"} {
		if s := explainEngine(fmt.Errorf("%s", text), "r"); !s.OK {
			t.Errorf("explainEngine(%q) = %+v; want that the registry answered", text, s)
		}
	}
}
