// Package testregistry runs a real registry, github.com/distribution/distribution, for tests: on loopback,
// with its files in a temporary folder, and gone when the test ends. Clients meet a front that speaks TLS
// where it is told to, records what it is asked, and fails on demand. No program that ships imports it.
package testregistry

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Options choose what a registry asks of its clients. The zero value is plain http for everybody.
type Options struct {
	// TLS makes it https, by a certificate for 127.0.0.1, ::1, localhost, host.docker.internal, the host's
	// address in the VM's network, and Behind.
	TLS bool
	// CA signs the certificate. Nil: a new one.
	CA *CA
	// ClientCert lets in only who has a certificate of the same CA (CA.Client). It needs TLS.
	ClientCert bool
	// Htpasswd lets in who has one of these passwords, by user: Basic authentication.
	Htpasswd map[string]string
	// Token lets in who has a token, which a server on another port gives to who has one of these
	// passwords, by user. Clients find it by the challenge, as with any registry of that kind.
	Token map[string]string
	// IdentityTokens has the token server give, to who asks for offline access, a token that stands for the
	// password from then on; docker login keeps it in the password's place. It needs Token.
	IdentityTokens bool
	// RedirectBlobs is the host that clients are sent to for blobs, as a store of objects does it: a second
	// server, on a port of its own, that lets in by a signature in the URL and wants no credential. Give
	// another name of this machine than the one clients use for the registry.
	RedirectBlobs string
	// Mark begins the secrets that the registry's servers make (the identifiers of tokens, identity tokens,
	// signatures of URLs), for a test that looks for them.
	Mark string
}

// Registry is a registry that runs. Its methods may be called at any time, by several goroutines.
type Registry struct {
	Addr string // host:port on 127.0.0.1
	Port string
	URL  string // scheme and Addr
	CA   *CA    // whom clients must trust, with TLS

	options Options
	folder  string
	token   *tokenServer
	blobs   *blobServer
	real    *httputil.ReverseProxy
	record  record
	faults  faults
}

// Start runs a registry until the test ends.
func Start(t testing.TB, o Options) *Registry {
	t.Helper()
	if o.ClientCert && !o.TLS || o.IdentityTokens && o.Token == nil || o.Token != nil && o.Htpasswd != nil {
		t.Fatal("testregistry: these options do not go together")
	}
	// Not the test's own folder: the path of a socket is limited, and a test's name is in that one.
	folder, err := os.MkdirTemp("", "registry")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	r := &Registry{options: o, folder: folder}
	if r.CA = o.CA; r.CA == nil {
		if r.CA, err = NewCA(); err != nil {
			t.Fatal(err)
		}
	}
	order := order{Folder: folder, Users: o.Htpasswd}
	if o.Token != nil {
		r.token = newTokenServer(r)
		r.token.port = r.serve(t, "token", r.token, false)
		if order.Token, err = r.token.trust(folder, r.scheme()+"://realm.invalid:"+r.token.port+"/token"); err != nil {
			t.Fatal(err)
		}
	}
	if o.RedirectBlobs != "" {
		r.blobs = &blobServer{registry: r}
		r.blobs.port = r.serve(t, "blobs", r.blobs, false)
	}
	run(t, order)
	socket := filepath.Join(folder, "socket")
	r.real = &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "registry"
			p.Out.Host = p.In.Host
		},
		ModifyResponse: r.token.sayWhere,
		ErrorLog:       quiet,
		Transport:      &http.Transport{Dial: func(string, string) (net.Conn, error) { return net.Dial("unix", socket) }},
	}
	r.Port = r.serve(t, "registry", http.HandlerFunc(r.front), o.ClientCert)
	r.Addr = "127.0.0.1:" + r.Port
	r.URL = r.scheme() + "://" + r.Addr
	return r
}

func (r *Registry) scheme() string {
	if r.options.TLS {
		return "https"
	}
	return "http"
}

// serve runs one of the registry's servers on a port of its own, which it returns.
func (r *Registry) serve(t testing.TB, name string, h http.Handler, clientCert bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	s := &http.Server{Handler: r.record.of(name, h), ErrorLog: quiet, ReadHeaderTimeout: time.Minute}
	if r.options.TLS {
		config, err := r.CA.server(clientCert)
		if err != nil {
			t.Fatal(err)
		}
		l = tls.NewListener(l, config)
	}
	var served sync.WaitGroup
	served.Go(func() { s.Serve(l) })
	t.Cleanup(func() {
		s.Close()
		served.Wait()
	})
	return port
}

// front is what clients of the registry meet.
func (r *Registry) front(w http.ResponseWriter, q *http.Request) {
	r.token.end(q)
	blob := q.Method == http.MethodGet && blobPath.MatchString(q.URL.Path)
	if blob && r.blobs != nil && r.blobs.send(w, q) {
		return
	}
	if blob {
		w = r.faults.on(w)
	}
	r.real.ServeHTTP(w, q)
}

// TokenURL is the address of the token server, as clients at 127.0.0.1 are told it.
func (r *Registry) TokenURL() *url.URL {
	return &url.URL{Scheme: r.scheme(), Host: "127.0.0.1:" + r.token.port, Path: "/token"}
}
