package imagetrust

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/covedesk/cove/app/api"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Bounds of what a source gives.
const (
	maxManifest  = 4 << 20 // as registries have it
	maxPlatforms = 256     // of one index
)

// source is where an image and its signatures are: a registry, or a layout on this machine.
type source interface {
	// resolve finds an image by its tag or its digest.
	resolve(ctx context.Context, ref string) (ocispec.Descriptor, error)
	// fetch reads a manifest or a blob of at most so many bytes. What it gives has the digest that was
	// asked for.
	fetch(ctx context.Context, d ocispec.Descriptor, most int64) ([]byte, error)
	// tagged are the manifests of signatures that are found by a tag, or by what stands for one.
	tagged(ctx context.Context, image digest.Digest) ([]ocispec.Descriptor, error)
	// referrers are the manifests that name the image as their subject.
	referrers(ctx context.Context, image ocispec.Descriptor) ([]ocispec.Descriptor, error)
	// signed are digests that seem to have signatures, at most so many. Not every source knows them all.
	signed(ctx context.Context, most int) []digest.Digest
}

// Errors of sources. Others are about reaching them.
var (
	errAbsent    = errors.New("it is not there")
	errMalformed = errors.New("it cannot be read")
)

// bytesOf reads what a descriptor describes, and proves that it is.
func bytesOf(r io.Reader, d ocispec.Descriptor, most int64) ([]byte, error) {
	if d.Size < 0 || d.Size > most {
		return nil, fmt.Errorf("%w: it has %d bytes, and %d are the most", errMalformed, d.Size, most)
	}
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("%w: its digest is none", errMalformed)
	}
	b, err := io.ReadAll(io.LimitReader(r, d.Size+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != d.Size || d.Digest.Algorithm().FromBytes(b) != d.Digest {
		return nil, fmt.Errorf("%w: it is not what its digest says", errMalformed)
	}
	return b, nil
}

// check looks at all signatures of an image, until one is good.
func (c checker) check(ctx context.Context, s source, image ocispec.Descriptor) ([]finding, error) {
	tagged, err := s.tagged(ctx, image.Digest)
	if err != nil && !errors.Is(err, errAbsent) {
		return nil, err
	}
	found, err := c.manifests(ctx, s, nil, tagged)
	if err != nil || best(found).reason == api.VerifyVerified {
		return found, err
	}
	referring, err := s.referrers(ctx, image)
	if err != nil && !errors.Is(err, errAbsent) {
		return found, err
	}
	return c.manifests(ctx, s, found, referring)
}

// manifests checks the signatures that these manifests hold, and adds them to those that were found.
func (c checker) manifests(ctx context.Context, s source, found []finding, all []ocispec.Descriptor) ([]finding, error) {
	for _, d := range all {
		if p, is := d.Annotations[bundlePredicate]; is && p != signingPredicate {
			continue // it says of itself that it is none
		}
		if len(found) >= maxSignatures {
			break
		}
		b, err := s.fetch(ctx, d, maxManifest)
		if unreadable(err) {
			found = append(found, malformed("tag", "its manifest cannot be read"))
			continue
		}
		if err != nil {
			return found, err
		}
		var m ocispec.Manifest
		if json.Unmarshal(b, &m) != nil {
			found = append(found, malformed("tag", "its manifest cannot be read"))
			continue
		}
		for _, l := range m.Layers {
			if len(found) >= maxSignatures {
				break
			}
			f, is, err := c.layer(ctx, s, l)
			if err != nil {
				return found, err
			}
			if is {
				found = append(found, f)
			}
			if is && f.reason == api.VerifyVerified {
				return found, nil
			}
		}
	}
	return found, nil
}

// unreadable says that an error is about one thing, and not about the way to all.
func unreadable(err error) bool { return errors.Is(err, errMalformed) || errors.Is(err, errAbsent) }

// layer checks one signature, where a layer is one.
func (c checker) layer(ctx context.Context, s source, l ocispec.Descriptor) (f finding, is bool, err error) {
	switch {
	case l.MediaType == simpleMedia:
		b, err := s.fetch(ctx, l, maxPayload)
		if unreadable(err) {
			return malformed("tag", "what it signs cannot be read: %v", err), true, nil
		}
		return c.simple(b, l.Annotations[simpleAnnotation]), true, err
	case strings.HasPrefix(l.MediaType, bundleMedia):
		b, err := s.fetch(ctx, l, maxBundle)
		if unreadable(err) {
			return malformed("bundle", "it cannot be read: %v", err), true, nil
		}
		if err != nil {
			return finding{}, false, err
		}
		f, is := c.bundle(b)
		return f, is, nil
	}
	return finding{}, false, nil
}

// signatureManifest says whether a descriptor of a referrer may be one of a signature.
func signatureManifest(artifact string) bool {
	return artifact == simpleArtifact || strings.HasPrefix(artifact, bundleMedia)
}

// isIndex says whether a media type is one of many platforms.
func isIndex(media string) bool {
	return media == ocispec.MediaTypeImageIndex || media == "application/vnd.docker.distribution.manifest.list.v2+json"
}

// contents are the platforms of an index.
func contents(ctx context.Context, s source, d ocispec.Descriptor) ([]api.PlatformImage, error) {
	if !isIndex(d.MediaType) {
		return nil, nil
	}
	b, err := s.fetch(ctx, d, maxManifest)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if json.Unmarshal(b, &index) != nil {
		return nil, fmt.Errorf("%w: the index is no JSON", errMalformed)
	}
	var out []api.PlatformImage
	for _, m := range index.Manifests {
		if len(out) == maxPlatforms {
			break
		}
		p := m.Platform
		if p == nil || m.Digest.Validate() != nil {
			continue
		}
		name := p.OS + "/" + p.Architecture
		if p.Variant != "" {
			name += "/" + p.Variant
		}
		out = append(out, api.PlatformImage{Platform: clip(name), Digest: m.Digest.String()})
	}
	return out, nil
}

// The tags that stand for a digest: cosign's for its signatures, and OCI's for what refers to an image, where
// a registry has no call for that.
func signatureTag(d digest.Digest) string { return referrersTag(d) + ".sig" }
func referrersTag(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

// fromTag is the digest that such a tag stands for.
func fromTag(tag string) (digest.Digest, bool) {
	algorithm, hex, is := strings.Cut(strings.TrimSuffix(tag, ".sig"), "-")
	d := digest.Digest(algorithm + ":" + hex)
	return d, is && d.Validate() == nil
}
