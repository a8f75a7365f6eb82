package daemon

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/internal/dockerconfig"
	"github.com/covedesk/cove/app/internal/hostproxy"
	"github.com/covedesk/cove/app/internal/imagetrust"
	"github.com/covedesk/cove/app/internal/settings"
	"github.com/covedesk/cove/app/internal/trust"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy/dockerapi"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/opencontainers/go-digest"
	"golang.org/x/net/http/httpproxy"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// Bounds of a check. A registry that says nothing for so long is one that does not answer.
const (
	verifyPatience  = 2 * time.Minute
	registryConnect = 10 * time.Second
	registryAnswer  = 30 * time.Second
)

// VerifyImage checks the signature of an image: see localapi.Core.
func (d *Daemon) VerifyImage(ctx context.Context, q api.VerifyRequest) (api.Verification, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, verifyPatience, errors.New("the registry took too long"))
	defer cancel()
	s, err := d.values()
	if err != nil {
		return api.Verification{}, err
	}
	r := d.newReach(s, registryOf(q.Reference))
	defer r.close()
	c := imagetrust.Checker{Keys: s.Trust, Now: time.Now, Reach: imagetrust.Reach{Transport: r, Dial: dialRegistry, Credential: dockerCredential, MayPlain: r.mayPlain}}
	v, err := c.Check(ctx, q)
	switch {
	case errors.Is(err, imagetrust.ErrReference):
		return v, &api.Error{Failure: api.Failure{Cause: api.CauseInvalid, Summary: "There can be no such image: " + err.Error() + ".", Remedy: "A file or a folder is given as a path: ./image.tar."}}
	case err != nil && ctx.Err() != nil:
		return v, &api.Error{Failure: api.Failure{Cause: api.CauseInternal, Summary: "Nothing was verified: " + context.Cause(ctx).Error() + ".", Remedy: "Try again."}}
	case err != nil:
		return v, err
	}
	d.log.Info("image verified", "image", v.Repository, "tag", v.Tag, "digest", v.Digest, "came to", v.Reason)
	if v.Digest != "" {
		v.Engine = d.engineHas(ctx, v)
	}
	return v, nil
}

// reach reaches registries as the engine does: by the host's proxies, with what the host trusts for each, and
// with less for those that the settings call insecure.
type reach struct {
	registry string // the one that is asked, whose authorities count for its token server too; empty: none is
	proxy    func(*url.URL) (*url.URL, error)
	trusted  trust.Found
	insecure trust.Insecure

	mu sync.Mutex
	by map[string]*http.Transport // host:port
}

// registryOf is the registry of an image's name, as docker's certs.d has it; empty where there is no such name.
func registryOf(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return ""
	}
	return reference.Domain(named)
}

func (d *Daemon) newReach(s settings.Values, registry string) *reach {
	p, err := hostProxies(s.Proxy, hostproxy.Host)
	if err != nil {
		d.log.Warn("host proxies", "err", err)
	}
	docker, err := dockerconfig.Find("")
	if err != nil {
		d.log.Warn("docker's folder", "err", err)
	}
	_, insecure := joined(s.Engine, "insecure-registries", s.Registry.Insecure)
	return &reach{
		registry: registry,
		proxy:    (&httpproxy.Config{HTTPProxy: p.HTTP.RevealURL(), HTTPSProxy: p.HTTPS.RevealURL(), NoProxy: p.No + "," + hostproxy.HostName}).ProxyFunc(),
		trusted:  trust.Find(trust.Here(docker.Dir), s.Registry.CA, time.Now(), protocol.MaxTrust), insecure: insecure,
		by: map[string]*http.Transport{},
	}
}

func (r *reach) mayPlain(host string) bool {
	return r.insecure.Has(host, nil) || strings.HasPrefix(host, hostproxy.HostName+":")
}

// RoundTrip uses for each host what is for it: a certificate that is shown to a registry is shown to no other.
func (r *reach) RoundTrip(q *http.Request) (*http.Response, error) {
	t, err := r.transport(q.URL.Host)
	if err != nil {
		return nil, err
	}
	return t.RoundTrip(q)
}

func (r *reach) transport(host string) (*http.Transport, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.by[host]; t != nil {
		return t, nil
	}
	config, err := r.trusted.For(host, r.registry)
	if err != nil {
		return nil, err
	}
	config.InsecureSkipVerify = r.insecure.Has(host, nil)
	r.by[host] = &http.Transport{
		Proxy:       func(q *http.Request) (*url.URL, error) { return r.proxy(q.URL) },
		DialContext: dialRegistry, TLSClientConfig: config,
		TLSHandshakeTimeout: registryConnect, ResponseHeaderTimeout: registryAnswer,
		ForceAttemptHTTP2: true,
	}
	return r.by[host], nil
}

func (r *reach) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.by {
		t.CloseIdleConnections()
	}
}

// dialRegistry knows this machine by the name that it has in the VM.
func dialRegistry(ctx context.Context, network, address string) (net.Conn, error) {
	if port, is := strings.CutPrefix(address, hostproxy.HostName+":"); is {
		address = net.JoinHostPort("localhost", port)
	}
	return (&net.Dialer{Timeout: registryConnect}).DialContext(ctx, network, address)
}

// dockerCredential is what docker would log in with: by its config.json, and the programs that it names.
func dockerCredential(ctx context.Context, host string) (auth.Credential, error) {
	s, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return auth.EmptyCredential, err
	}
	return credentials.Credential(s)(ctx, host)
}

// engineHas is what the engine has by an image's name; nil where there is none to ask. It starts no engine
// and wakes none.
func (d *Daemon) engineHas(ctx context.Context, v api.Verification) *api.EngineImage {
	ctx, cancel := context.WithTimeout(ctx, namesPatience)
	defer cancel()
	var engine http.RoundTripper
	switch state, _ := d.life.State(); state.Phase {
	case api.Running:
		m := d.running(ctx)
		if m == nil {
			return nil
		}
		engine = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return m.Dial(ctx, dockerapi.Service) }}
	case api.Suspended:
		engine = recalled{d.front}
	default:
		return nil
	}
	c, err := client.NewClientWithOpts(client.WithHost("http://engine"), client.WithHTTPClient(&http.Client{Transport: engine}), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil
	}
	defer c.Close()
	all, err := c.ImageList(ctx, image.ListOptions{})
	if err != nil {
		d.log.Warn("ask the engine for its images", "err", err)
		return nil
	}
	return imageOf(all, v)
}

// imageOf finds the image that a check was about among the engine's: by its tag, or where it has none by
// its digest.
func imageOf(all []image.Summary, v api.Verification) *api.EngineImage {
	out := &api.EngineImage{}
	name, err := reference.ParseNormalizedNamed(v.Repository)
	if err != nil {
		return out
	}
	for _, i := range all {
		here := []string{}
		for _, r := range i.RepoDigests {
			if n, err := reference.ParseNormalizedNamed(r); err == nil && n.Name() == name.Name() {
				_, of, _ := strings.Cut(r, "@")
				here = append(here, of)
			}
		}
		is := v.Tag != "" && slices.Contains(i.RepoTags, reference.FamiliarName(name)+":"+v.Tag) || v.Tag == "" && slices.Contains(here, v.Digest)
		if !is {
			continue
		}
		if len(here) == 0 {
			here = append(here, i.ID) // made or loaded here: it came from no registry
		}
		out.Digests = append(out.Digests, here...)
	}
	out.Same = slices.ContainsFunc(out.Digests, func(s string) bool { return imagetrust.Contained(v, digest.Digest(s)) })
	return out
}
