// Package imagetrust checks the signature of an image against keys that the user trusts: cosign's, in both of
// its forms. It asks the registry that holds the image and its signature, or reads a layout on this machine,
// and nobody else: no log, no authority. Every byte that counts is proven by its digest or by a signature
// before it is believed, what is read is bounded, and a check that cannot be made is a check that failed.
package imagetrust

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxMoved is how many other images of a repository are looked at, to say whether a tag was moved.
const maxMoved = 16

// ErrReference says that a text names no image.
var ErrReference = errors.New("it is no image's name")

// Checker checks images.
type Checker struct {
	Keys  []Key
	Reach Reach
	Now   func() time.Time
}

// Check checks one image. Whatever comes of it is in the answer; the error says that the question was none
// (ErrReference), or that the context ended.
func (c *Checker) Check(ctx context.Context, q api.VerifyRequest) (api.Verification, error) {
	v, err := c.check(ctx, q)
	if ctx.Err() != nil {
		return api.Verification{}, ctx.Err()
	}
	return v, err
}

func (c *Checker) check(ctx context.Context, q api.VerifyRequest) (api.Verification, error) {
	var named reference.Named
	if q.Reference != "" || q.Path == "" {
		ref, err := reference.ParseNormalizedNamed(q.Reference)
		if err != nil {
			return api.Verification{}, fmt.Errorf("%w: %v", ErrReference, err)
		}
		named = reference.TagNameOnly(ref)
	}
	t := &task{ctx: ctx, checker: c}
	if q.Path == "" {
		t.name(named)
		keys, found := t.keys()
		if !found {
			return t.out, nil
		}
		s, err := c.Reach.source(ctx, t.repo)
		if err != nil {
			return t.unreachable(err), nil
		}
		return t.verify(s, keys, named), nil
	}
	l, err := openLayout(q.Path)
	if err != nil {
		t.out.Summary = fmt.Sprintf("%s cannot be checked: %v.", q.Path, err)
		t.out.Reason, t.out.Remedy = api.VerifyMalformed, "Give an OCI layout, as a folder or as an archive that is not compressed."
		if errors.Is(err, fs.ErrNotExist) {
			t.out.Reason, t.out.Summary, t.out.Remedy = api.VerifyNotFound, fmt.Sprintf("%s does not exist.", q.Path), ""
		}
		return t.out, nil
	}
	defer l.close()
	t.path = q.Path
	if _, byDigest := named.(reference.Digested); byDigest {
		t.name(named)
		keys, found := t.keys()
		if !found {
			return t.out, nil
		}
		return t.verify(l, keys, named), nil
	}
	image, called, err := l.pick(named)
	var which *choice
	switch {
	case errors.As(err, &which):
		t.out.Reason, t.out.Summary = api.VerifyNotFound, fmt.Sprintf("%s cannot be checked: %v.", q.Path, err)
		t.out.Remedy = "Say with --name which image it is to be."
		if len(which.names) > 0 {
			t.out.Remedy = "Say with --name which one: " + clip(strings.Join(which.names, ", ")) + "."
		}
		return t.out, nil
	case errors.Is(err, errAbsent):
		t.name(named)
		return t.say(api.VerifyNotFound, "%s has no image %s.", q.Path, reference.FamiliarString(named)), nil
	case err != nil:
		t.out.Reason, t.out.Summary = api.VerifyMalformed, fmt.Sprintf("%s cannot be checked: %v.", q.Path, err)
		return t.out, nil
	}
	t.name(called)
	keys, found := t.keys()
	if !found {
		return t.out, nil
	}
	return t.image(l, keys, ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}), nil
}

// task is one check under way.
type task struct {
	ctx     context.Context
	checker *Checker
	repo    reference.Named // the repository alone
	shown   string          // as docker shows it
	path    string          // of a layout; empty: a registry
	pinned  bool            // it was asked for by digest, wherever its tag leads
	out     api.Verification
}

func (t *task) name(named reference.Named) {
	t.repo, t.shown = reference.TrimNamed(named), reference.FamiliarString(named)
	t.out.Repository = t.repo.Name()
	if tagged, is := named.(reference.Tagged); is {
		t.out.Tag = tagged.Tag()
	}
}

// say ends a check.
func (t *task) say(reason, format string, args ...any) api.Verification {
	t.out.Reason, t.out.Summary, t.out.Verified = reason, fmt.Sprintf(format, args...), reason == api.VerifyVerified
	return t.out
}

func (t *task) remedy(format string, args ...any) { t.out.Remedy = fmt.Sprintf(format, args...) }

// keys are those for the image's name. Without one nothing is asked of anybody.
func (t *task) keys() ([]loaded, bool) {
	matching := matching(t.checker.Keys, t.repo.Name())
	if len(matching) == 0 {
		t.remedy("Trust one with `cove image trust add %s --key cosign.pub`.", reference.FamiliarName(t.repo))
		t.say(api.VerifyNoKey, "The settings have no key for %s, so that nothing can be said of its signature.", reference.FamiliarName(t.repo))
		return nil, false
	}
	var out []loaded
	var bad error
	for _, k := range matching {
		l, err := k.load()
		if err != nil {
			bad = fmt.Errorf("the key for %s: %w", k.For, err)
			continue
		}
		out = append(out, l)
	}
	if len(out) == 0 {
		t.remedy("See `cove image trust list`.")
		t.say(api.VerifyBadKey, "The signature of %s cannot be checked: %v.", t.shown, bad)
		return nil, false
	}
	return out, true
}

// verify resolves a name once, and checks what it leads to.
func (t *task) verify(s source, keys []loaded, named reference.Named) api.Verification {
	ref := t.out.Tag
	d, byDigest := named.(reference.Digested)
	if byDigest {
		t.pinned, ref = true, d.Digest().String()
	}
	image, err := s.resolve(t.ctx, ref)
	if err != nil {
		return t.failed(err)
	}
	if !byDigest || t.out.Tag == "" {
		return t.image(s, keys, image)
	}
	// A tag beside the digest names where else to look: the image may be one of those in the tag's index.
	v := t.image(s, keys, image)
	if v.Verified {
		return v
	}
	index, err := s.resolve(t.ctx, t.out.Tag)
	if err != nil || !isIndex(index.MediaType) || index.Digest == image.Digest {
		return v
	}
	in, err := contents(t.ctx, s, index)
	if err != nil {
		return v
	}
	for _, p := range in {
		if p.Digest != image.Digest.String() {
			continue
		}
		whole := &task{ctx: t.ctx, checker: t.checker, repo: t.repo, shown: t.shown, out: api.Verification{Repository: t.out.Repository, Tag: t.out.Tag}}
		if w := whole.image(s, keys, index); w.Verified {
			t.out.Signature, t.out.Index, t.out.Remedy = w.Signature, w.Digest, ""
			t.out.Signatures += w.Signatures
			return t.say(api.VerifyVerified, "%s is contained in %s, which is signed.", t.shown, index.Digest)
		}
	}
	return v
}

// image checks the image that the name leads to.
func (t *task) image(s source, keys []loaded, image ocispec.Descriptor) api.Verification {
	t.out.Digest = image.Digest.String()
	c := checker{keys: keys, now: t.checker.Now(), want: wanted{t.repo, t.out.Tag, image.Digest}}
	// The image's own bytes, for a layout may have others under its digest.
	platforms, err := contents(t.ctx, s, image)
	if err == nil && t.path != "" {
		_, err = s.fetch(t.ctx, image, maxManifest)
	}
	if err != nil {
		return t.failed(err)
	}
	found, err := c.check(t.ctx, s, image)
	b := best(found)
	if err != nil && b.reason != api.VerifyVerified {
		return t.failed(err)
	}
	t.out.Signatures = len(found)
	if len(found) > 0 {
		t.out.Signature = &b.sig
	}
	key := "The key in the settings is"
	if len(keys) > 1 {
		key = "The keys in the settings are"
	}
	switch b.reason {
	case api.VerifyVerified:
		t.out.Platforms = platforms
		return t.say(b.reason, "%s is signed.", t.shown)
	case api.VerifyUnsigned:
		return t.unsigned(s, c)
	case api.VerifyWrongKey:
		t.remedy("%s for %s. Ask who publishes the image for theirs, and do not run the image until you know.", key, keys[0].of.For)
		return t.say(b.reason, "%s (%s) is signed by another key than yours, or what was signed has been changed since.", t.shown, t.out.Digest)
	case api.VerifyExpired, api.VerifyNotYet:
		t.remedy("Ask who publishes the image for a signature by a key that holds, or change the key's time: `cove image trust list`.")
		return t.say(b.reason, "%s (%s) has a good signature, but %s.", t.shown, t.out.Digest, b.why)
	case api.VerifyOtherImage:
		t.remedy("The signature was put here from another image: do not run this one. The image that is signed is %s@%s.", reference.FamiliarName(t.repo), b.sig.Digest)
		return t.say(b.reason, "The signature of %s is for another image: this one is %s, and %s.", t.shown, t.out.Digest, b.why)
	case api.VerifyOtherName:
		t.remedy("The same image was signed under that name: use that name, or have it signed under this one.")
		return t.say(b.reason, "The signature of %s (%s) is for another name: %s.", t.shown, t.out.Digest, b.why)
	}
	t.remedy("Ask who publishes the image: it is not verified.")
	return t.say(api.VerifyMalformed, "The signature of %s (%s) is damaged: %s.", t.shown, t.out.Digest, b.why)
}

// unsigned says that there is no signature, and where one is, if the tag was moved away from it.
func (t *task) unsigned(s source, c checker) api.Verification {
	var elsewhere []digest.Digest
	if !t.pinned {
		elsewhere = s.signed(t.ctx, maxMoved)
	}
	for _, d := range elsewhere {
		if d.String() == t.out.Digest || t.ctx.Err() != nil {
			continue
		}
		image, err := s.resolve(t.ctx, d.String())
		if err != nil {
			image = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d} // it is gone; its signature may not be
		}
		other := c
		other.want.digest = d
		found, err := other.check(t.ctx, s, image)
		if b := best(found); err == nil && b.reason == api.VerifyVerified {
			t.out.Signature = &b.sig
			t.out.Signatures = len(found)
			t.remedy("Either the tag was moved after the image was signed, or the newer image is not signed yet. The signed one is %s@%s.", reference.FamiliarName(t.repo), d)
			return t.say(api.VerifyMoved, "The tag %s of %s points to another digest than the signature: it points to %s, which has no signature, and what is signed is %s.", t.out.Tag, reference.FamiliarName(t.repo), t.out.Digest, d)
		}
	}
	where := "the registry"
	if t.path != "" {
		where = t.path
	}
	t.remedy("Ask who publishes the image whether they sign it with cosign and a key.")
	return t.say(api.VerifyUnsigned, "%s (%s) has no signature in %s.", t.shown, t.out.Digest, where)
}

// failed says why a check could not be made.
func (t *task) failed(err error) api.Verification {
	var refused *refusal
	var helpless *credentialError
	switch {
	case errors.As(err, &helpless):
		t.remedy("See `cove credentials doctor`.")
		return t.say(api.VerifyDenied, "%s asks who you are, and your credentials cannot be read: %v.", reference.Domain(t.repo), helpless.error)
	case errors.Is(err, errAbsent) && t.path != "":
		return t.say(api.VerifyMalformed, "%s cannot be checked: a part of it is not in %s.", t.shown, t.path)
	case errors.Is(err, errAbsent):
		t.remedy("Check its spelling.")
		return t.say(api.VerifyNotFound, "There is no image %s.", t.shown)
	case errors.Is(err, errMalformed):
		return t.say(api.VerifyMalformed, "%s cannot be checked: %v.", t.shown, err)
	case errors.As(err, &refused) && (refused.status == 401 || refused.status == 403):
		t.remedy("Log in with `docker login %s`, as a user who may pull it. It may also not exist: many registries do not tell.", reference.Domain(t.repo))
		return t.say(api.VerifyDenied, "%s does not let you read %s: %v.", reference.Domain(t.repo), t.shown, err)
	}
	if t.path != "" {
		return t.say(api.VerifyMalformed, "%s cannot be checked: %v.", t.shown, err)
	}
	return t.unreachable(err)
}

func (t *task) unreachable(err error) api.Verification {
	t.remedy("Nothing was verified. Try again when the registry can be reached.")
	var authority x509.UnknownAuthorityError
	if errors.As(err, &authority) {
		t.remedy("Nothing was verified. If the registry has a certificate of your own authority, add that to this machine's.")
	}
	return t.say(api.VerifyUnreachable, "%s cannot be asked for the signature of %s: %s.", reference.Domain(t.repo), t.shown, clip(err.Error()))
}

// Contained says whether a digest is the image that was verified, or one of those in it.
func Contained(v api.Verification, d digest.Digest) bool {
	for _, p := range v.Platforms {
		if p.Digest == d.String() {
			return v.Verified
		}
	}
	return v.Verified && (v.Digest == d.String() || v.Index == d.String())
}
