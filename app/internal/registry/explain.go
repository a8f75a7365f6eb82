package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	"oras.land/oras-go/v2/registry/remote/errcode"
)

// Causes of a step that is not so, append-only.
const (
	CauseName        = "name"               // no such host
	CauseRefused     = "refused"            // nothing listens there
	CauseTimeout     = "timeout"            // no answer
	CauseProxy       = "proxy"              // the proxy does not let us through
	CausePlain       = "plain-http"         // it speaks http where https is wanted
	CauseAuthority   = "authority"          // nobody here knows who signed its certificate
	CauseCertificate = "certificate"        // its certificate is for another name, or over
	CauseClient      = "client-certificate" // it wants a client's certificate
	CauseNotRegistry = "not-a-registry"     // it answers something else
	CauseRedirect    = "redirect"           // it sends on to another host
	CauseWantsLogin  = "login-wanted"       // it lets nobody in without a login
	CauseLogin       = "login"              // it does not take this login
	CauseOther       = "other"
)

// speaksPlain says whether an error is that of https to a server that may speak http.
func speaksPlain(err error) bool {
	var record tls.RecordHeaderError
	return errors.As(err, &record) || errors.Is(err, http.ErrSchemeMismatch) || errors.Is(err, syscall.ECONNREFUSED)
}

// refusedByTLS says whether the other side ended the handshake, or with TLS 1.3 what follows it: so it does where
// it wants a client's certificate.
func refusedByTLS(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// explain says what an error of this machine's side means for a registry, and what to do.
func explain(err error, host string) Step {
	var dns *net.DNSError
	var op *net.OpError
	var record tls.RecordHeaderError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var status statusError
	var answer *errcode.ErrorResponse
	text := plainText(err)
	switch {
	case errors.Is(err, errElsewhere):
		return Step{Detail: text, Cause: CauseRedirect, Remedy: "Nothing was sent there. If that is the registry's new name, use it."}
	case errors.Is(err, errClear):
		return Step{Detail: text, Cause: CausePlain, Remedy: "Nothing was sent. The registry's login must be by https; or set registry.insecure for that host, if you trust the whole way to it."}
	case errors.Is(err, errWantsLogin):
		return remedy(CauseWantsLogin, "it lets nobody in without a login", host)
	case errors.As(err, &op) && op.Op == "proxyconnect", strings.Contains(text, "Proxy Authentication Required"):
		return Step{Detail: "the HTTP proxy does not let us through: " + text, Cause: CauseProxy, Remedy: "Look at `cove config get proxy.https`, or name the registry in proxy.no-proxy: docs/host.md."}
	case errors.As(err, &dns):
		return remedy(CauseName, fmt.Sprintf("the name %s has no address", dns.Name), host)
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return remedy(CausePlain, "it speaks plain http, not https", host)
	case errors.As(err, &authority):
		return remedy(CauseAuthority, fmt.Sprintf("its certificate is signed by %q, whom nobody here knows", authorityName(authority)), host)
	case errors.As(err, &name), errors.As(err, &invalid):
		return remedy(CauseCertificate, "its certificate does not hold: "+text, host)
	case refusedByTLS(err):
		return remedy(CauseClient, "it refuses the connection: "+text, host)
	case errors.Is(err, syscall.ECONNREFUSED):
		return remedy(CauseRefused, "nothing listens there: "+text, host)
	case errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		return remedy(CauseTimeout, "it does not answer", host)
	case errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden || answer.StatusCode == http.StatusBadRequest):
		return remedy(CauseLogin, "it does not take this login: "+answerText(answer), host)
	case errors.As(err, &status) && (status.status == http.StatusUnauthorized || status.status == http.StatusForbidden):
		return remedy(CauseLogin, "it does not take this login", host)
	case errors.As(err, &status):
		return remedy(CauseNotRegistry, text, host)
	}
	return Step{Detail: text, Cause: CauseOther}
}

// answerText is what a server says of itself, without its URL.
func answerText(e *errcode.ErrorResponse) string {
	if len(e.Errors) > 0 {
		return e.Errors.Error()
	}
	return http.StatusText(e.StatusCode)
}

// plainText is an error without the method and the URL that net/http puts before it.
func plainText(err error) string {
	var u *url.Error
	for errors.As(err, &u) {
		err = u.Err
	}
	return err.Error()
}

func authorityName(e x509.UnknownAuthorityError) string {
	if e.Cert == nil {
		return "somebody"
	}
	if e.Cert.Issuer.CommonName != "" {
		return e.Cert.Issuer.CommonName
	}
	return e.Cert.Issuer.String()
}

// remedies say what to do; %s is the registry.
var remedies = map[string]string{
	CauseName:        "Is it spelled right, and is the VPN on that knows it? A registry on this machine is host.docker.internal:PORT for the engine.",
	CauseRefused:     "Is the registry running, on this port? For the engine, localhost is the VM: a registry on this machine is host.docker.internal:PORT.",
	CauseTimeout:     "Is the VPN on, or a firewall between?",
	CausePlain:       "Let the registry speak https. Or, on a network that you trust: `cove config set registry.insecure %s`.",
	CauseAuthority:   "Ask for the certificate of that authority (PEM), then `cove config set registry.ca FILE`; or put it into ~/.docker/certs.d/%s/ca.crt. Then `cove restart`.",
	CauseCertificate: "Whoever runs the registry has to renew its certificate, or you to use the name that is in it. Is this machine's clock right?",
	CauseClient:      "If it wants a client's certificate, put it and its key into ~/.docker/certs.d/%s/ as client.cert and client.key, then `cove restart`.",
	CauseNotRegistry: "Is it a registry, and is the port right?",
	CauseWantsLogin:  "Log in with `cove registry login %s`.",
	CauseLogin:       "Log in again with `cove registry login %s`; many registries want a token in the password's place.",
}

func remedy(cause, detail, host string) Step {
	text := remedies[cause]
	if strings.Contains(text, "%s") {
		text = fmt.Sprintf(text, host)
	}
	return Step{Detail: detail, Cause: cause, Remedy: text}
}
