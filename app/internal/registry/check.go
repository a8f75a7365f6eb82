package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/covedesk/cove/app/internal/secret"
	"github.com/covedesk/cove/app/internal/trust"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// Credential is a login.
type Credential struct {
	User     string
	Password secret.Text
	Identity secret.Text // a token in the password's place, which a registry gave to docker login
}

// Names of steps, in their order.
const (
	StepName    = "name"    // the name has an address
	StepConnect = "connect" // something listens there
	StepTLS     = "tls"     // its certificate is believed
	StepAPI     = "api"     // it is a registry
	StepLogin   = "login"   // it lets us in
	StepEngine  = "engine"  // the engine gets as far
)

// Step is one thing that has to be so. The first that is not is the last of its side.
type Step struct {
	From string `json:"from"` // "host" or "engine"
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Skipped says that nobody looked, because the engine does not run.
	Skipped bool   `json:"skipped,omitempty"`
	Detail  string `json:"detail"`           // a sentence without its full stop
	Cause   string `json:"cause,omitempty"`  // one of the Cause constants
	Remedy  string `json:"remedy,omitempty"` // sentences
}

// Checker looks at registries from this machine.
type Checker struct {
	Trust    trust.Found
	Insecure func(host string) bool                                               // what registry.insecure says
	Proxy    func(*http.Request) (*url.URL, error)                                // nil: none
	Dial     func(ctx context.Context, network, address string) (net.Conn, error) // nil: the system's
}

// patience bounds a check of one side.
const patience = 30 * time.Second

// Refusals of ours, which no retry helps.
var (
	errClear     = errors.New("the credential would go over plain http")
	errElsewhere = errors.New("it sends on to another host")
)

// clear says whether a credential may go to a host by http.
func (c *Checker) clear(host string) bool { return here(host) || c.Insecure != nil && c.Insecure(host) }

// Check takes all steps on this machine, with a credential or, where that is nil, without. It gives them to
// told as they end.
func (c *Checker) Check(ctx context.Context, n Name, credential *Credential, told func(Step)) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	w := &walk{told: told, host: n.Host, place: "it"}
	wire := &wire{c: c, registry: n.API, transports: map[string]http.RoundTripper{}}
	defer wire.close()
	client := &http.Client{Transport: wire, CheckRedirect: sameHost}

	if c.Proxy != nil {
		if u, err := c.Proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: n.API}}); err == nil && u != nil {
			w.place = "the HTTP proxy " + u.Host
		}
	}
	scheme := "https"
	resp, err := w.ask(ctx, client, scheme, n)
	if err != nil && c.clear(n.API) && speaksPlain(err) {
		scheme = "http"
		resp, err = w.ask(ctx, client, scheme, n)
	}
	if err != nil {
		return w.fail(w.at(err), err)
	}
	resp.Body.Close()
	w.connected(scheme, c.Insecure != nil && c.Insecure(n.API))
	wants := resp.StatusCode == http.StatusUnauthorized
	if !wants && resp.StatusCode != http.StatusOK {
		return w.fail(StepAPI, statusError{resp.StatusCode, resp.Request.URL})
	}
	w.done(StepAPI, "it answers as a registry does")
	if !wants {
		w.done(StepLogin, "it lets everybody in, and asks for no login")
		return true
	}

	way := resp.Header.Get("WWW-Authenticate")
	way, _, _ = strings.Cut(way, " ")
	if credential != nil && scheme == "http" && !here(n.API) {
		way += ", by plain http: whoever is on the way can read the password"
	}
	login := &auth.Client{Client: client, ClientID: "cove", Credential: func(context.Context, string) (auth.Credential, error) {
		if credential == nil {
			return auth.EmptyCredential, nil
		}
		if !credential.Identity.IsZero() {
			return auth.Credential{RefreshToken: credential.Identity.RevealSecret()}, nil
		}
		return auth.Credential{Username: credential.User, Password: credential.Password.RevealSecret()}, nil
	}}
	req, err := http.NewRequestWithContext(ctx, "GET", scheme+"://"+n.API+"/v2/", nil)
	if err != nil {
		return w.fail(StepLogin, err)
	}
	resp, err = login.Do(req)
	if err != nil {
		if credential == nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errElsewhere) {
			err = errWantsLogin
		}
		return w.fail(StepLogin, err)
	}
	resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK && credential == nil:
		w.done(StepLogin, fmt.Sprintf("it lets everybody read what is public (%s)", way))
	case resp.StatusCode == http.StatusOK:
		w.done(StepLogin, fmt.Sprintf("%s is let in (%s)", user(credential), way))
	case credential == nil:
		return w.fail(StepLogin, errWantsLogin)
	default:
		return w.fail(StepLogin, statusError{resp.StatusCode, resp.Request.URL})
	}
	return true
}

func user(c *Credential) string {
	if c.User == "" {
		return "the token"
	}
	return c.User
}

// errWantsLogin says that a registry lets nobody in without a login.
var errWantsLogin = errors.New("it wants a login")

// statusError is an answer that no registry should give to us.
type statusError struct {
	status int
	url    *url.URL
}

func (e statusError) Error() string {
	return fmt.Sprintf("%s answers %d %s", e.url.Redacted(), e.status, http.StatusText(e.status))
}

// sameHost follows no redirect to another host, nor from https to http.
func sameHost(to *http.Request, via []*http.Request) error {
	first := via[0].URL
	if to.URL.Host != first.Host || first.Scheme == "https" && to.URL.Scheme != "https" {
		return fmt.Errorf("%w: %s://%s", errElsewhere, to.URL.Scheme, to.URL.Host)
	}
	if len(via) > 5 {
		return errors.New("it sends on without end")
	}
	return nil
}

// walk tells the steps of one check.
type walk struct {
	told  func(Step)
	host  string
	place string // that listens

	mu       sync.Mutex // guards all below
	looked   []string   // the addresses of the name
	resolved bool
	address  string
	tls      *tls.ConnectionState
}

func (w *walk) done(step, detail string) {
	w.told(Step{From: "host", Name: step, OK: true, Detail: detail})
}

func (w *walk) fail(step string, err error) bool {
	s := explain(err, w.host)
	s.From, s.Name = "host", step
	w.told(s)
	return false
}

// ask asks for the API's root, and keeps how far it came.
func (w *walk) ask(ctx context.Context, client *http.Client, scheme string, n Name) (*http.Response, error) {
	w.mu.Lock()
	w.looked, w.resolved, w.address, w.tls = nil, false, "", nil
	w.mu.Unlock()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSDone: func(i httptrace.DNSDoneInfo) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, a := range i.Addrs {
				w.looked = append(w.looked, a.String())
			}
		},
		ConnectStart: func(_, _ string) { w.mu.Lock(); w.resolved = true; w.mu.Unlock() },
		ConnectDone: func(_, address string, err error) {
			if err == nil {
				w.mu.Lock()
				w.address = address
				w.mu.Unlock()
			}
		},
		TLSHandshakeDone: func(s tls.ConnectionState, err error) {
			if err == nil {
				w.mu.Lock()
				w.tls = &s
				w.mu.Unlock()
			}
		},
	})
	req, err := http.NewRequestWithContext(ctx, "GET", scheme+"://"+n.API+"/v2/", nil)
	if err != nil {
		return nil, err
	}
	return client.Do(req)
}

// at is the step that an error ended, after telling those before it.
func (w *walk) at(err error) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !w.resolved:
		return StepName
	case w.address == "":
		w.named()
		return StepConnect
	}
	w.named()
	w.done(StepConnect, w.place+" listens on "+w.address)
	if (w.tls == nil || refusedByTLS(err)) && !errors.Is(err, errElsewhere) {
		return StepTLS
	}
	return StepAPI
}

// named tells the name's step, where there was a name to look up.
func (w *walk) named() {
	if len(w.looked) > 0 {
		w.done(StepName, "the name is "+strings.Join(w.looked, ", "))
	}
}

func (w *walk) connected(scheme string, insecure bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.named()
	w.done(StepConnect, w.place+" listens on "+w.address)
	switch {
	case scheme == "http" && insecure:
		w.done(StepTLS, "it speaks plain http, as registry.insecure allows")
	case scheme == "http":
		w.done(StepTLS, "it speaks plain http, and is this machine itself")
	case w.tls == nil:
		w.done(StepTLS, "it speaks https")
	case insecure:
		w.done(StepTLS, "it speaks https, and its certificate is not checked, as registry.insecure says")
	default:
		w.done(StepTLS, fmt.Sprintf("its certificate is from %q", issuer(w.tls)))
	}
}

func issuer(s *tls.ConnectionState) string {
	if len(s.VerifiedChains) > 0 {
		chain := s.VerifiedChains[0]
		return trust.Name(chain[len(chain)-1])
	}
	return trust.Name(&x509.Certificate{Subject: s.PeerCertificates[0].Issuer})
}

// wire carries requests, each host by its own certificates, and no credential in the clear.
type wire struct {
	c        *Checker
	registry string

	mu         sync.Mutex
	transports map[string]http.RoundTripper // by host
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	// What is posted are a password or a token: nothing else is, here.
	if r.URL.Scheme != "https" && (r.Header.Get("Authorization") != "" || r.Body != nil) && !w.c.clear(r.URL.Host) {
		return nil, fmt.Errorf("%w, to %s", errClear, r.URL.Host)
	}
	t, err := w.of(r.URL.Host)
	if err != nil {
		return nil, err
	}
	return t.RoundTrip(r)
}

func (w *wire) of(host string) (http.RoundTripper, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t := w.transports[host]; t != nil {
		return t, nil
	}
	config, err := w.c.Trust.For(host, w.registry)
	if err != nil {
		return nil, err
	}
	config.InsecureSkipVerify = w.c.Insecure != nil && w.c.Insecure(host)
	dial := w.c.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	t := &http.Transport{Proxy: w.c.Proxy, TLSClientConfig: config, ResponseHeaderTimeout: patience, TLSHandshakeTimeout: patience / 2,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return dial(ctx, network, reach(address))
		}}
	w.transports[host] = t
	return t, nil
}

func (w *wire) close() {
	for _, t := range w.transports {
		t.(*http.Transport).CloseIdleConnections()
	}
}
