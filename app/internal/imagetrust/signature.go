package imagetrust

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	bundlev1 "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// What the standards call things.
const (
	// cosign's first form: specs/SIGNATURE_SPEC.md of sigstore/cosign.
	simpleMedia      = "application/vnd.dev.cosign.simplesigning.v1+json"
	simpleAnnotation = "dev.cosignproject.cosign/signature"
	simpleType       = "cosign container image signature"
	simpleArtifact   = "application/vnd.dev.cosign.artifact.sig.v1+json"

	// Its second one: a sigstore bundle (sigstore/protobuf-specs) around a statement of in-toto.
	bundleMedia      = "application/vnd.dev.sigstore.bundle." // v0.3+json and later
	bundlePredicate  = "dev.sigstore.bundle.predicateType"
	statementMedia   = "application/vnd.in-toto+json"
	statementType    = "https://in-toto.io/Statement/"
	signingPredicate = "https://sigstore.dev/cosign/sign/v1"
)

// Bounds of what a registry can make us read. Real payloads have 300 bytes, and bundles 5 KB.
const (
	maxPayload    = 64 << 10
	maxBundle     = 1 << 20
	maxSignature  = 16 << 10
	maxSignatures = 64 // of one image; more are not looked at
	maxDepth      = 32 // of a bundle's messages in one another
)

// wanted is the image whose signature is looked for.
type wanted struct {
	name   reference.Named // the repository alone
	tag    string          // empty: it was asked for by digest
	digest digest.Digest
}

// finding is what one signature comes to.
type finding struct {
	reason string // one of api's
	why    string // a clause that goes into a sentence
	sig    api.Signature
}

// checker checks signatures of one image by the keys for its name.
type checker struct {
	keys []loaded
	now  time.Time
	want wanted
}

func malformed(form, format string, args ...any) finding {
	return finding{reason: api.VerifyMalformed, why: fmt.Sprintf(format, args...), sig: api.Signature{Form: form}}
}

// byKey is the key that made a signature.
func (c checker) byKey(sig, message []byte) (loaded, bool) {
	for _, k := range c.keys {
		if k.signed(sig, message) {
			return k, true
		}
	}
	return loaded{}, false
}

// simple checks a signature of the first form: over a payload that names the image. Nothing of the payload
// is believed before its signature is.
func (c checker) simple(payload []byte, signature string) finding {
	if len(payload) > maxPayload || len(signature) > maxSignature {
		return malformed("tag", "it is larger than signatures are")
	}
	sig, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || len(sig) == 0 {
		return malformed("tag", "it is not base64")
	}
	key, is := c.byKey(sig, payload)
	if !is {
		return finding{reason: api.VerifyWrongKey, sig: api.Signature{Form: "tag"}}
	}
	var p struct {
		Critical struct {
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return malformed("tag", "what it signs is no JSON")
	}
	if p.Critical.Type != simpleType {
		return malformed("tag", "it signs a %q and no image", clip(p.Critical.Type))
	}
	if p.Critical.Identity.Reference == "" {
		return malformed("tag", "it does not name the image that it signs")
	}
	return c.claims("tag", key, p.Critical.Identity.Reference, []string{p.Critical.Image.Digest})
}

// bundle checks a signature of the second form. What signs something else about the image, such as where
// it was built, is no signature of the image: then is is false.
func (c checker) bundle(text []byte) (f finding, is bool) {
	if len(text) > maxBundle {
		return malformed("bundle", "it is larger than signatures are"), true
	}
	var b bundlev1.Bundle
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxDepth}).Unmarshal(text, &b); err != nil {
		return malformed("bundle", "it is no sigstore bundle"), true
	}
	e := b.GetDsseEnvelope()
	switch {
	case e == nil || len(e.Signatures) == 0:
		return malformed("bundle", "it holds no signed statement"), true
	case len(e.Signatures) != 1: // the standard's own bound
		return malformed("bundle", "it holds %d signatures, and one is allowed", len(e.Signatures)), true
	case e.PayloadType != statementMedia:
		return malformed("bundle", "it signs %q and no statement", clip(e.PayloadType)), true
	}
	key, good := c.byKey(e.Signatures[0].GetSig(), dsse.PAE(e.PayloadType, e.Payload))
	var s struct {
		Type      string `json:"_type"`
		Predicate string `json:"predicateType"`
		Subject   []struct {
			Name   string            `json:"name"`
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	err := json.Unmarshal(e.Payload, &s)
	switch {
	case err == nil && s.Predicate != signingPredicate:
		return finding{}, false
	case !good:
		return finding{reason: api.VerifyWrongKey, sig: api.Signature{Form: "bundle"}}, true
	case err != nil:
		return malformed("bundle", "what it signs is no JSON"), true
	case !strings.HasPrefix(s.Type, statementType) || len(s.Subject) == 0:
		return malformed("bundle", "what it signs is no statement about an image"), true
	}
	// One of the subjects has to be the image; the name that counts is the one beside its digest.
	name, digests := s.Subject[0].Name, []string{}
	for _, subject := range s.Subject {
		d := "sha256:" + subject.Digest["sha256"]
		if d == c.want.digest.String() {
			name, digests = subject.Name, []string{d}
			break
		}
		digests = append(digests, d)
	}
	return c.claims("bundle", key, name, digests), true
}

// claims compares what a key has signed with the image. An empty name claims none.
func (c checker) claims(form string, key loaded, name string, digests []string) finding {
	f := finding{sig: api.Signature{Form: form, Key: key.fingerprint, For: key.of.For, From: key.from, Until: key.until, Name: clip(name), Digest: clip(digests[0])}}
	same := false
	for _, d := range digests {
		same = same || d == c.want.digest.String()
	}
	switch {
	case !same:
		f.reason, f.why = api.VerifyOtherImage, fmt.Sprintf("it is for %s", f.sig.Digest)
	case name != "" && !c.named(name):
		f.reason, f.why = api.VerifyOtherName, fmt.Sprintf("it is for %s", f.sig.Name)
	case !key.from.IsZero() && c.now.Before(key.from):
		f.reason, f.why = api.VerifyNotYet, fmt.Sprintf("its key holds from %s on", key.from.UTC().Format(time.RFC3339))
	case !key.until.IsZero() && c.now.After(key.until):
		f.reason, f.why = api.VerifyExpired, fmt.Sprintf("its key held until %s", key.until.UTC().Format(time.RFC3339))
	default:
		f.reason = api.VerifyVerified
	}
	return f
}

// named says whether a name that was signed is the image's: the same repository, and the same tag where
// both have one. index.docker.io is docker.io by another name.
func (c checker) named(signed string) bool {
	n, err := reference.ParseNormalizedNamed(signed)
	if err != nil || n.Name() != c.want.name.Name() {
		return false
	}
	t, is := n.(reference.Tagged)
	return !is || c.want.tag == "" || t.Tag() == c.want.tag
}

// rank orders findings: the one that says most is the one that people are told.
var rank = []string{api.VerifyVerified, api.VerifyExpired, api.VerifyNotYet, api.VerifyOtherName, api.VerifyOtherImage, api.VerifyWrongKey, api.VerifyMalformed}

// best is the finding that counts: one good signature is enough.
func best(all []finding) finding {
	for _, reason := range rank {
		for _, f := range all {
			if f.reason == reason {
				return f
			}
		}
	}
	return finding{reason: api.VerifyUnsigned}
}

// clip keeps foreign text short, and from steering a terminal.
func clip(s string) string {
	const most = 200
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
