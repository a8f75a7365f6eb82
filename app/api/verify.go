package api

import "time"

// VerifyRequest asks for the signature of an image.
type VerifyRequest struct {
	Reference string `json:"reference,omitempty"` // the image, as docker names it; with Path: which one of those in it
	Path      string `json:"path,omitempty"`      // the absolute path of an OCI layout, or of an archive of one such as `docker save` writes; empty: the registry is asked
}

// What the check of a signature came to.
const (
	VerifyVerified    = "verified"
	VerifyUnsigned    = "unsigned"    // there is no signature
	VerifyMoved       = "moved"       // the tag leads to an image without signature; what is signed is another one
	VerifyWrongKey    = "wrong-key"   // no signature is by a key of the settings for this name, or what it signs was changed
	VerifyExpired     = "expired"     // a good signature, by a key that no longer holds
	VerifyNotYet      = "not-yet"     // a good signature, by a key that does not hold yet
	VerifyOtherImage  = "other-image" // a signature by the key, for another digest
	VerifyOtherName   = "other-name"  // a signature by the key, for another repository or tag
	VerifyMalformed   = "malformed"   // what should be a signature or an image cannot be read
	VerifyNoKey       = "no-key"      // the settings have no key for this name
	VerifyBadKey      = "bad-key"     // the settings' key for this name cannot be read
	VerifyNotFound    = "not-found"   // there is no such image
	VerifyDenied      = "denied"      // the registry does not let the user in
	VerifyUnreachable = "unreachable" // the registry does not answer as one does
)

// Verification is what the check of an image's signature came to.
type Verification struct {
	Verified bool   `json:"verified"`
	Reason   string `json:"reason"`           // one of the above
	Summary  string `json:"summary"`          // for people
	Remedy   string `json:"remedy,omitempty"` // for people

	Repository string `json:"repository"`       // whole: docker.io/library/alpine
	Tag        string `json:"tag,omitempty"`    // that was asked for
	Digest     string `json:"digest,omitempty"` // of the image that was asked for: the tag was resolved once, to this
	Index      string `json:"index,omitempty"`  // the digest of the index that is signed, where the image is not, and is one of those in it

	Signature  *Signature      `json:"signature,omitempty"` // the good one, or the one that the reason is about
	Signatures int             `json:"signatures"`          // how many were looked at
	Platforms  []PlatformImage `json:"platforms,omitempty"` // what a verified index contains
	Engine     *EngineImage    `json:"engine,omitempty"`    // what the engine has by this name; nil where it was not asked
}

// Signature is one that was looked at.
type Signature struct {
	Form   string    `json:"form"`             // "tag": cosign's sha256-….sig; "bundle": a sigstore bundle that refers to the image
	Key    string    `json:"key,omitempty"`    // the SHA-256 of the public key's DER form, in hex
	For    string    `json:"for,omitempty"`    // what the settings trust the key for
	From   time.Time `json:"from,omitzero"`    // the key holds from here
	Until  time.Time `json:"until,omitzero"`   // the key holds until here
	Name   string    `json:"name,omitempty"`   // the image's name, by the signature; sigstore's bundles need not have one
	Digest string    `json:"digest,omitempty"` // the image's digest, by the signature
}

// PlatformImage is one of an index.
type PlatformImage struct {
	Platform string `json:"platform"` // linux/arm64/v8
	Digest   string `json:"digest"`
}

// EngineImage is what the engine has by the image's name.
type EngineImage struct {
	Digests []string `json:"digests,omitempty"` // none: it has no such image
	Same    bool     `json:"same"`              // one of them is the one that was verified, or is contained in it
}
