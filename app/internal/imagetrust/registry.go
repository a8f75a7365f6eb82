package imagetrust

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// maxPages bounds lists of tags and of referrers.
const maxPages = 8

// Reach is how registries are reached.
type Reach struct {
	Transport  http.RoundTripper
	Dial       func(ctx context.Context, network, address string) (net.Conn, error) // as Transport does; nil: as everybody does
	Credential auth.CredentialFunc                                                  // by host:port; it is asked when a registry asks
	// MayPlain says whether a registry, given by host:port, may be spoken to without TLS where it has none.
	// On loopback it always may, as with the engine. Everywhere else it is TLS or nothing.
	MayPlain func(host string) bool
}

// credentialError says that it was the user's own programs that failed.
type credentialError struct{ error }

func (r Reach) credential(ctx context.Context, host string) (auth.Credential, error) {
	if r.Credential == nil {
		return auth.EmptyCredential, nil
	}
	c, err := r.Credential(ctx, host)
	if err != nil {
		return c, &credentialError{err}
	}
	return c, nil
}

// plain says whether a registry is spoken to without TLS: only if it may, and then only if it has none.
func (r Reach) plain(ctx context.Context, host string) (bool, error) {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = host, "443"
	}
	ip, err := netip.ParseAddr(name)
	loopback := name == "localhost" || err == nil && ip.Unmap().IsLoopback()
	if !loopback && (r.MayPlain == nil || !r.MayPlain(host)) {
		return false, nil
	}
	conn, err := r.dial(ctx, net.JoinHostPort(name, port))
	if err != nil && port == "443" && name == host {
		return true, nil // it has no port of its own, and does not serve that of TLS: there is the one of http
	}
	if err != nil {
		return false, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(handshake))
	// Whose certificate it has is checked later, by the connection that is used.
	err = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx)
	var other tls.RecordHeaderError
	return errors.As(err, &other), nil
}

const handshake = 10 * time.Second

func (r Reach) dial(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshake)
	defer cancel()
	if r.Dial == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	return r.Dial(ctx, "tcp", address)
}

// remoteSource is a repository in a registry.
type remoteSource struct{ repo *remote.Repository }

var _ source = remoteSource{}

func (r Reach) source(ctx context.Context, name reference.Named) (source, error) {
	ref := registry.Reference{Registry: reference.Domain(name), Repository: reference.Path(name)}
	plain, err := r.plain(ctx, ref.Host())
	if err != nil {
		return nil, err
	}
	repo := &remote.Repository{
		Reference:       ref,
		PlainHTTP:       plain,
		Client:          &auth.Client{Client: r.guarded(plain), Cache: auth.NewCache(), Credential: r.credential, ClientID: "cove"},
		TagListMaxPages: maxPages, ReferrerListMaxPages: maxPages,
		MaxMetadataBytes: maxManifest,
	}
	return remoteSource{repo}, nil
}

// guarded is the client without http where https was agreed on: for a redirect must not lead there.
func (r Reach) guarded(plain bool) *http.Client {
	if plain {
		return &http.Client{Transport: r.Transport}
	}
	return &http.Client{Transport: onlyTLS{r.Transport}}
}

type onlyTLS struct{ http.RoundTripper }

func (t onlyTLS) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.URL.Scheme != "https" {
		return nil, errors.New("the registry leads to plain http, which is not followed")
	}
	return t.RoundTripper.RoundTrip(q)
}

func (s remoteSource) resolve(ctx context.Context, ref string) (ocispec.Descriptor, error) {
	d, r, err := s.repo.FetchReference(ctx, ref)
	if err != nil {
		return d, plainly(err)
	}
	defer r.Close()
	// A registry's word is not taken for what a tag leads to: its bytes say it.
	_, err = bytesOf(r, d, maxManifest)
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, plainly(err)
}

func (s remoteSource) fetch(ctx context.Context, d ocispec.Descriptor, most int64) ([]byte, error) {
	if d.Size > most || d.Digest.Validate() != nil {
		return bytesOf(nil, d, most) // it says why not
	}
	r, err := s.repo.Fetch(ctx, d)
	if err != nil {
		return nil, plainly(err)
	}
	defer r.Close()
	b, err := bytesOf(r, d, most)
	return b, plainly(err)
}

func (s remoteSource) tagged(ctx context.Context, image digest.Digest) ([]ocispec.Descriptor, error) {
	d, err := s.resolve(ctx, signatureTag(image))
	if err != nil {
		return nil, err
	}
	return []ocispec.Descriptor{d}, nil
}

func (s remoteSource) referrers(ctx context.Context, image ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	var all []ocispec.Descriptor
	err := s.repo.Referrers(ctx, image, "", func(page []ocispec.Descriptor) error {
		for _, d := range page {
			if signatureManifest(d.ArtifactType) {
				all = append(all, d)
			}
		}
		if len(all) >= maxSignatures {
			return errEnough
		}
		return nil
	})
	var refused *errcode.ErrorResponse
	switch {
	case errors.Is(err, errEnough), errors.Is(err, errdef.ErrTooManyPages):
		return all, nil
	case errors.As(err, &refused) && (refused.StatusCode == http.StatusBadRequest || refused.StatusCode == http.StatusMethodNotAllowed || refused.StatusCode == http.StatusNotImplemented):
		return nil, errAbsent // a registry from before there were referrers
	}
	return all, plainly(err)
}

var errEnough = errors.New("enough")

func (s remoteSource) signed(ctx context.Context, most int) []digest.Digest {
	var all []digest.Digest
	s.repo.Tags(ctx, "", func(tags []string) error {
		for _, t := range tags {
			if d, is := fromTag(t); is {
				all = append(all, d)
			}
			if len(all) == most {
				return errEnough
			}
		}
		return nil
	})
	return all // what else there is, the caller can do without
}

// plainly makes of a registry's error one of ours, without the queries of URLs in it: a blob's may have a
// signature there that lets in whoever has it.
func plainly(err error) error {
	var refused *errcode.ErrorResponse
	var at *url.Error
	switch {
	case err == nil, errors.Is(err, errMalformed):
		return err
	case errors.Is(err, errdef.ErrNotFound):
		return errAbsent
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return &refusal{http.StatusUnauthorized, "it asks for a password, and there is none"}
	case errors.Is(err, errdef.ErrSizeExceedsLimit):
		return fmt.Errorf("%w: it is larger than is read", errMalformed)
	case errors.As(err, &refused):
		text := http.StatusText(refused.StatusCode)
		if len(refused.Errors) > 0 {
			text = clip(refused.Errors.Error())
		}
		if refused.StatusCode == http.StatusNotFound {
			return errAbsent
		}
		return &refusal{refused.StatusCode, fmt.Sprintf("it answers %d: %s", refused.StatusCode, text)}
	case errors.As(err, &at):
		return at.Err
	}
	return &unsaid{err}
}

// unsaid is an error whose text has no query of a URL.
type unsaid struct{ error }

var query = regexp.MustCompile(`\?[^"\s]*`)

func (u *unsaid) Error() string { return query.ReplaceAllString(u.error.Error(), "") }
func (u *unsaid) Unwrap() error { return u.error }

// refusal is a registry's answer that it does not do what it was asked.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }
