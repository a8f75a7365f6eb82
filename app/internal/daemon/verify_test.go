package daemon

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/internal/trust"
	"github.com/docker/docker/api/types/image"
)

func TestImageOf(t *testing.T) {
	const a, b, part = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
	all := []image.Summary{
		{ID: a, RepoTags: []string{"alpine:3"}, RepoDigests: []string{"alpine@" + a}},
		{ID: b, RepoTags: []string{"registry.example.com/app:1"}, RepoDigests: []string{"registry.example.com/app@" + b, "other@" + b}},
		{ID: part, RepoTags: []string{"registry.example.com/app:part"}, RepoDigests: []string{"registry.example.com/app@" + part}},
		{ID: part, RepoTags: []string{"made:here"}},
		{ID: a, RepoTags: nil, RepoDigests: []string{"registry.example.com/untagged@" + a}},
	}
	for _, c := range []struct {
		is      string
		v       api.Verification
		digests []string
		same    bool
	}{
		{"what was verified", api.Verification{Verified: true, Repository: "docker.io/library/alpine", Tag: "3", Digest: a}, []string{a}, true},
		{"another image by the name", api.Verification{Verified: true, Repository: "registry.example.com/app", Tag: "1", Digest: a}, []string{b}, false},
		{"no image of the name", api.Verification{Verified: true, Repository: "registry.example.com/none", Tag: "1", Digest: a}, nil, false},
		{"one that the verified index contains", api.Verification{Verified: true, Repository: "registry.example.com/app", Tag: "part", Digest: a, Platforms: []api.PlatformImage{{Digest: part}}}, []string{part}, true},
		{"one that came from no registry", api.Verification{Verified: true, Repository: "docker.io/library/made", Tag: "here", Digest: a}, []string{part}, false},
		{"one by its digest", api.Verification{Verified: true, Repository: "registry.example.com/untagged", Digest: a}, []string{a}, true},
		{"the same, where nothing was verified", api.Verification{Repository: "docker.io/library/alpine", Tag: "3", Digest: a}, []string{a}, false},
	} {
		got := imageOf(all, c.v)
		if !slices.Equal(got.Digests, c.digests) || got.Same != c.same {
			t.Errorf("imageOf of %s = %+v; want %v, same %v", c.is, *got, c.digests, c.same)
		}
	}
}

func TestARegistrysAuthoritiesCountForItsTokenServer(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	found := trust.Found{Registries: []trust.Registry{{Host: "r.test:5000", Authorities: []*x509.Certificate{server.Certificate()}}}}
	for name, trusted := range map[string]bool{"r.test:5000/team/app:1": true, "other.test/app": false, "app": false, "": false} {
		r := &reach{registry: registryOf(name), trusted: found, proxy: func(*url.URL) (*url.URL, error) { return nil, nil }, by: map[string]*http.Transport{}}
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		a, err := r.RoundTrip(q)
		if err == nil {
			a.Body.Close()
		}
		if (err == nil) != trusted {
			t.Errorf("a token for %q from a server of r.test's authority: %v; want it trusted: %v", name, err, trusted)
		}
		r.close()
	}
}
