package imagetrust

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/internal/testregistry"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bundlev1 "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	sigdsse "github.com/sigstore/sigstore/pkg/signature/dsse"
	"github.com/sigstore/sigstore/pkg/signature/payload"
	"google.golang.org/protobuf/encoding/protojson"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// today is when the tests check.
var today = time.Date(2027, 1, 15, 12, 0, 0, 0, time.UTC)

// signer is somebody with a key, by sigstore's own library.
type signer struct {
	signature.Signer
	pem string
}

func newSigner(t testing.TB, private crypto.PrivateKey, hash crypto.Hash) signer {
	t.Helper()
	s, err := signature.LoadSigner(private, hash)
	if err != nil {
		t.Fatal(err)
	}
	public, err := s.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	text, err := cryptoutils.MarshalPublicKeyToPEM(public)
	if err != nil {
		t.Fatal(err)
	}
	return signer{s, string(text)}
}

func somebody(t testing.TB) signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return newSigner(t, k, crypto.SHA256)
}

// bench is a repository to put images and signatures in: of a registry, or a layout.
type bench struct {
	t  testing.TB
	at oras.Target
	// name is the repository's, and alice's key is the one that is trusted for it.
	name           string
	alice, mallory signer
	check          func(keys []Key, ref string) api.Verification
}

func (b *bench) push(media string, content []byte) ocispec.Descriptor {
	b.t.Helper()
	d := ocispec.Descriptor{MediaType: media, Digest: digest.FromBytes(content), Size: int64(len(content))}
	if err := b.at.Push(b.t.Context(), d, bytes.NewReader(content)); err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
		b.t.Fatalf("push %s: %v", media, err)
	}
	return d
}

func (b *bench) tag(d ocispec.Descriptor, tag string) {
	b.t.Helper()
	if err := b.at.Tag(b.t.Context(), d, tag); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) manifest(m any, media string) ocispec.Descriptor {
	b.t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.push(media, text)
}

// image is one that differs by what it holds.
func (b *bench) image(tag, holds string) ocispec.Descriptor {
	b.t.Helper()
	d := b.manifest(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: b.push(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)),
		Layers: []ocispec.Descriptor{b.push(ocispec.MediaTypeImageLayer, []byte(holds))}}, ocispec.MediaTypeImageManifest)
	if tag != "" {
		b.tag(d, tag)
	}
	return d
}

func (b *bench) index(tag string, parts map[string]ocispec.Descriptor) ocispec.Descriptor {
	b.t.Helper()
	var all []ocispec.Descriptor
	for arch, d := range parts {
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		all = append(all, d)
	}
	d := b.manifest(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: all}, ocispec.MediaTypeImageIndex)
	b.tag(d, tag)
	return d
}

// statement is what a signature of the first form says.
func statement(name string, d digest.Digest) []byte {
	text, err := json.Marshal(payload.SimpleContainerImage{Critical: payload.Critical{
		Identity: payload.Identity{DockerReference: name}, Image: payload.Image{DockerManifestDigest: d.String()}, Type: payload.CosignSignatureType}})
	if err != nil {
		panic(err)
	}
	return text
}

func (b *bench) by(s signer, message []byte) []byte {
	b.t.Helper()
	sig, err := s.SignMessage(bytes.NewReader(message))
	if err != nil {
		b.t.Fatal(err)
	}
	return sig
}

// layerOf is one signature as a layer.
func (b *bench) layerOf(payload, sig []byte) ocispec.Descriptor {
	l := b.push(simpleMedia, payload)
	l.Annotations = map[string]string{simpleAnnotation: base64.StdEncoding.EncodeToString(sig)}
	return l
}

// signatures puts signatures where cosign's first form has them.
func (b *bench) signatures(image digest.Digest, layers ...ocispec.Descriptor) {
	b.t.Helper()
	d := b.manifest(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: b.push(ocispec.MediaTypeImageConfig, []byte(`{}`)), Layers: layers}, ocispec.MediaTypeImageManifest)
	b.tag(d, strings.Replace(image.String(), ":", "-", 1)+".sig")
}

func (b *bench) sign(image ocispec.Descriptor, s signer) {
	b.t.Helper()
	p := statement(b.name, image.Digest)
	b.signatures(image.Digest, b.layerOf(p, b.by(s, p)))
}

// bundleOf is a bundle around a statement of in-toto, as cosign 3 makes it.
func bundleOf(t testing.TB, s signer, predicate, name string, d digest.Digest) []byte {
	t.Helper()
	subject := map[string]any{"digest": map[string]string{"sha256": d.Encoded()}}
	if name != "" {
		subject["name"] = name
	}
	text, err := json.Marshal(map[string]any{"_type": "https://in-toto.io/Statement/v1", "predicateType": predicate, "predicate": map[string]any{}, "subject": []any{subject}})
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := sigdsse.WrapSigner(s, statementMedia).SignMessage(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var b bundlev1.Bundle
	whole := fmt.Sprintf(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"alice"}},"dsseEnvelope":%s}`, envelope)
	if err := protojson.Unmarshal([]byte(whole), &b); err != nil {
		t.Fatal(err)
	}
	out, err := protojson.Marshal(&b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// refer puts a bundle beside an image, as a referrer of OCI 1.1.
func (b *bench) refer(image ocispec.Descriptor, bundle []byte, predicate string) {
	b.t.Helper()
	media := bundleMedia + "v0.3+json"
	subject := ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}
	_, err := oras.PackManifest(b.t.Context(), b.at, oras.PackManifestVersion1_1, media, oras.PackManifestOptions{
		Subject: &subject, Layers: []ocispec.Descriptor{b.push(media, bundle)}, ManifestAnnotations: map[string]string{bundlePredicate: predicate}})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) signBundle(image ocispec.Descriptor, s signer) {
	b.t.Helper()
	b.refer(image, bundleOf(b.t, s, signingPredicate, "", image.Digest), signingPredicate)
}

// trust are the settings' keys.
func trust(t testing.TB, entries ...map[string]string) []Key {
	t.Helper()
	text, err := json.Marshal(entries)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ParseKeys(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// cases are what a check comes to, wherever the image is.
var cases = []struct {
	is     string
	make   func(b *bench) (ref string)
	until  string // the key's
	reason string
	says   string
}{
	{"a signed image", func(b *bench) string { b.sign(b.image("1", "a"), b.alice); return ":1" }, "", api.VerifyVerified, "is signed"},
	{"a signed image, by a bundle", func(b *bench) string { b.signBundle(b.image("1", "a"), b.alice); return ":1" }, "", api.VerifyVerified, "is signed"},
	{"an unsigned image", func(b *bench) string { b.image("1", "a"); return ":1" }, "", api.VerifyUnsigned, "has no signature in"},
	{"no image", func(b *bench) string { b.image("2", "a"); b.image("3", "b"); return ":1" }, "", api.VerifyNotFound, ":1"},
	{"somebody else's signature", func(b *bench) string { b.sign(b.image("1", "a"), b.mallory); return ":1" }, "", api.VerifyWrongKey, "another key"},
	{"somebody else's bundle", func(b *bench) string { b.signBundle(b.image("1", "a"), b.mallory); return ":1" }, "", api.VerifyWrongKey, "another key"},
	{"a key on its last day", func(b *bench) string { b.sign(b.image("1", "a"), b.alice); return ":1" }, "2027-01-15", api.VerifyVerified, "is signed"},
	{"a key that has ended", func(b *bench) string { b.sign(b.image("1", "a"), b.alice); return ":1" }, "2027-01-14", api.VerifyExpired, "held until 2027-01-14T23:59:59Z"},
	{"a key that has ended, in a bundle", func(b *bench) string { b.signBundle(b.image("1", "a"), b.alice); return ":1" }, "2027-01-15T11:00:00Z", api.VerifyExpired, "held until 2027-01-15T11:00:00Z"},
	{"a payload that was changed after signing", func(b *bench) string {
		d := b.image("1", "a")
		sig := b.by(b.alice, statement(b.name, digest.FromString("another")))
		b.signatures(d.Digest, b.layerOf(statement(b.name, d.Digest), sig))
		return ":1"
	}, "", api.VerifyWrongKey, "changed since"},
	{"a bundle that was changed after signing", func(b *bench) string {
		d := b.image("1", "a")
		for _, one := range []digest.Digest{d.Digest} {
			text := bundleOf(b.t, b.alice, signingPredicate, "", digest.FromString("another"))
			var m map[string]map[string]any
			json.Unmarshal(text, &m)
			p, _ := base64.StdEncoding.DecodeString(m["dsseEnvelope"]["payload"].(string))
			p = bytes.ReplaceAll(p, []byte(digest.FromString("another").Encoded()), []byte(one.Encoded()))
			old, _ := json.Marshal(m["dsseEnvelope"]["payload"])
			now, _ := json.Marshal(base64.StdEncoding.EncodeToString(p))
			b.refer(d, bytes.ReplaceAll(text, old, now), signingPredicate)
		}
		return ":1"
	}, "", api.VerifyWrongKey, "changed since"},
	{"a signature for another repository", func(b *bench) string {
		d := b.image("1", "a")
		p := statement("registry.example.com/other", d.Digest)
		b.signatures(d.Digest, b.layerOf(p, b.by(b.alice, p)))
		return ":1"
	}, "", api.VerifyOtherName, "it is for registry.example.com/other"},
	{"a bundle for another repository", func(b *bench) string {
		d := b.image("1", "a")
		b.refer(d, bundleOf(b.t, b.alice, signingPredicate, "registry.example.com/other", d.Digest), signingPredicate)
		return ":1"
	}, "", api.VerifyOtherName, "it is for registry.example.com/other"},
	{"a signature for another tag", func(b *bench) string {
		d := b.image("1", "a")
		p := statement(b.name+":2", d.Digest)
		b.signatures(d.Digest, b.layerOf(p, b.by(b.alice, p)))
		return ":1"
	}, "", api.VerifyOtherName, ":2"},
	{"a signature for this tag", func(b *bench) string {
		d := b.image("1", "a")
		p := statement(b.name+":1", d.Digest)
		b.signatures(d.Digest, b.layerOf(p, b.by(b.alice, p)))
		return ":1"
	}, "", api.VerifyVerified, "is signed"},
	{"a signature copied from another image", func(b *bench) string {
		d, other := b.image("1", "a"), b.image("2", "b")
		p := statement(b.name, other.Digest)
		b.signatures(d.Digest, b.layerOf(p, b.by(b.alice, p)))
		return ":1"
	}, "", api.VerifyOtherImage, "is for another image"},
	{"a bundle copied from another image", func(b *bench) string {
		d, other := b.image("1", "a"), b.image("2", "b")
		b.refer(d, bundleOf(b.t, b.alice, signingPredicate, "", other.Digest), signingPredicate)
		return ":1"
	}, "", api.VerifyOtherImage, "is for another image"},
	{"a tag that was moved after signing", func(b *bench) string {
		b.sign(b.image("1", "a"), b.alice)
		b.image("1", "b")
		return ":1"
	}, "", api.VerifyMoved, "points to another digest than the signature"},
	{"a tag that was moved to somebody else's image", func(b *bench) string {
		b.sign(b.image("1", "a"), b.alice)
		b.sign(b.image("1", "b"), b.mallory)
		return ":1"
	}, "", api.VerifyWrongKey, "another key"},
	{"a good signature among others", func(b *bench) string {
		d := b.image("1", "a")
		p := statement(b.name, d.Digest)
		b.signatures(d.Digest, b.layerOf(p, b.by(b.mallory, p)), b.layerOf([]byte("x"), []byte("y")), b.layerOf(p, b.by(b.alice, p)))
		return ":1"
	}, "", api.VerifyVerified, "is signed"},
	{"a good bundle beside a bad signature", func(b *bench) string {
		d := b.image("1", "a")
		b.sign(d, b.mallory)
		b.signBundle(d, b.mallory)
		b.signBundle(d, b.alice)
		return ":1"
	}, "", api.VerifyVerified, "is signed"},
	{"a signed statement that is no signature", func(b *bench) string {
		d := b.image("1", "a")
		b.refer(d, bundleOf(b.t, b.alice, "https://slsa.dev/provenance/v1", "", d.Digest), "https://slsa.dev/provenance/v1")
		return ":1"
	}, "", api.VerifyUnsigned, "has no signature"},
	{"a signed statement that claims to be a signature", func(b *bench) string {
		d := b.image("1", "a")
		b.refer(d, bundleOf(b.t, b.alice, "https://slsa.dev/provenance/v1", "", d.Digest), signingPredicate)
		return ":1"
	}, "", api.VerifyUnsigned, "has no signature"},
	{"garbage in a signature's place", func(b *bench) string {
		d := b.image("1", "a")
		l := b.push(simpleMedia, []byte("{"))
		l.Annotations = map[string]string{simpleAnnotation: "!"}
		b.signatures(d.Digest, l)
		return ":1"
	}, "", api.VerifyMalformed, "damaged"},
	{"garbage in a bundle's place", func(b *bench) string {
		b.refer(b.image("1", "a"), []byte(strings.Repeat("[", 10000)), signingPredicate)
		return ":1"
	}, "", api.VerifyMalformed, "no sigstore bundle"},
	{"a payload of another kind, signed", func(b *bench) string {
		d := b.image("1", "a")
		p := []byte(`{"critical":{"type":"atomic container signature"}}`)
		b.signatures(d.Digest, b.layerOf(p, b.by(b.alice, p)))
		return ":1"
	}, "", api.VerifyMalformed, "signs a"},
	{"a huge signature", func(b *bench) string {
		d := b.image("1", "a")
		b.signatures(d.Digest, b.layerOf(bytes.Repeat([]byte("x"), maxPayload+1), []byte("y")))
		return ":1"
	}, "", api.VerifyMalformed, "cannot be read"},
	{"a huge bundle", func(b *bench) string {
		b.refer(b.image("1", "a"), bytes.Repeat([]byte(" "), maxBundle+1), signingPredicate)
		return ":1"
	}, "", api.VerifyMalformed, "cannot be read"},
	{"a good signature behind more than are looked at", func(b *bench) string {
		d := b.image("1", "a")
		p := statement(b.name, d.Digest)
		var all []ocispec.Descriptor
		for i := range maxSignatures {
			all = append(all, b.layerOf(p, fmt.Appendf(nil, "no signature %d", i)))
		}
		b.signatures(d.Digest, append(all, b.layerOf(p, b.by(b.alice, p)))...)
		return ":1"
	}, "", api.VerifyWrongKey, "another key"},
	{"a signed index", func(b *bench) string {
		b.sign(b.index("1", map[string]ocispec.Descriptor{"amd64": b.image("", "a"), "arm64": b.image("", "b")}), b.alice)
		return ":1"
	}, "", api.VerifyVerified, "is signed"},
	{"an index that is not signed, of images that are", func(b *bench) string {
		one := b.image("", "a")
		b.sign(one, b.alice)
		b.index("1", map[string]ocispec.Descriptor{"amd64": one})
		return ":1"
	}, "", api.VerifyMoved, "points to another digest than the signature"},
	{"the digest of a signed image", func(b *bench) string {
		d := b.image("1", "a")
		b.sign(d, b.alice)
		b.image("1", "b")
		return "@" + d.Digest.String()
	}, "", api.VerifyVerified, "is signed"},
	{"the digest of an unsigned image", func(b *bench) string {
		b.sign(b.image("1", "a"), b.alice)
		return "@" + b.image("1", "b").Digest.String()
	}, "", api.VerifyUnsigned, "has no signature"},
	{"an image in a signed index, by the index's tag and its own digest", func(b *bench) string {
		one := b.image("", "a")
		b.sign(b.index("1", map[string]ocispec.Descriptor{"amd64": one}), b.alice)
		return ":1@" + one.Digest.String()
	}, "", api.VerifyVerified, "is contained in"},
	{"an image that is in no signed index", func(b *bench) string {
		b.sign(b.index("1", map[string]ocispec.Descriptor{"amd64": b.image("", "a")}), b.alice)
		return ":1@" + b.image("2", "b").Digest.String()
	}, "", api.VerifyUnsigned, "has no signature"},
}

func runCases(t *testing.T, open func(t *testing.T, b *bench)) {
	for _, c := range cases {
		t.Run(c.is, func(t *testing.T) {
			b := &bench{t: t, alice: somebody(t), mallory: somebody(t)}
			open(t, b)
			ref := c.make(b)
			entry := map[string]string{"for": b.name, "key": b.alice.pem}
			if c.until != "" {
				entry["until"] = c.until
			}
			v := b.check(trust(t, entry), b.name+ref)
			if v.Reason != c.reason || !strings.Contains(v.Summary, c.says) || v.Verified != (c.reason == api.VerifyVerified) {
				t.Errorf("Check(%s) = %s, %q, verified %v; want %s, %q", b.name+ref, v.Reason, v.Summary, v.Verified, c.reason, c.says)
			}
			if v.Verified && (v.Signature == nil || v.Signature.Key == "" || v.Digest == "") {
				t.Errorf("Check(%s) = %+v; want the digest and whose signature it is", b.name+ref, v)
			}
			if !v.Verified && v.Reason != api.VerifyNotFound && v.Remedy == "" {
				t.Errorf("Check(%s) does not say what to do", b.name+ref)
			}
		})
	}
}

func checking(keys []Key, reach Reach) *Checker {
	return &Checker{Keys: keys, Reach: reach, Now: func() time.Time { return today }}
}

var plain = Reach{Transport: http.DefaultTransport}

func TestInARegistry(t *testing.T) {
	r := testregistry.Start(t, testregistry.Options{})
	n := 0
	runCases(t, func(t *testing.T, b *bench) {
		n++
		b.name = fmt.Sprintf("%s/team/app%d", r.Addr, n)
		repo, err := remote.NewRepository(b.name)
		if err != nil {
			t.Fatal(err)
		}
		repo.PlainHTTP = true
		b.at = repo
		b.check = func(keys []Key, ref string) api.Verification {
			v, err := checking(keys, plain).Check(t.Context(), api.VerifyRequest{Reference: ref})
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	})
}

func inLayout(t *testing.T, b *bench, path func(folder string) string) {
	folder := t.TempDir()
	store, err := oci.New(folder)
	if err != nil {
		t.Fatal(err)
	}
	b.name, b.at = "registry.example.com/team/app", store
	b.check = func(keys []Key, ref string) api.Verification {
		v, err := checking(keys, Reach{}).Check(t.Context(), api.VerifyRequest{Reference: ref, Path: path(folder)})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestInALayout(t *testing.T) {
	runCases(t, func(t *testing.T, b *bench) { inLayout(t, b, func(folder string) string { return folder }) })
}

func TestInAnArchive(t *testing.T) {
	runCases(t, func(t *testing.T, b *bench) {
		inLayout(t, b, func(folder string) string {
			file := filepath.Join(t.TempDir(), "image.tar")
			out, err := os.Create(file)
			if err != nil {
				t.Fatal(err)
			}
			w := tar.NewWriter(out)
			if err := w.AddFS(os.DirFS(folder)); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.Close(), out.Close()); err != nil {
				t.Fatal(err)
			}
			return file
		})
	})
}

// A layout that is changed after signing keeps its names: what lies under them is read and hashed.
func TestALayoutThatLies(t *testing.T) {
	for _, c := range []struct {
		is   string
		edit func(folder, file string, image digest.Digest) error
	}{
		{"other bytes under the image's digest", func(folder, file string, _ digest.Digest) error {
			b, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			return os.WriteFile(file, append(b[:len(b)-1], ' '), 0o600)
		}},
		{"no bytes", func(_, file string, _ digest.Digest) error { return os.Remove(file) }},
		{"a folder", func(_, file string, _ digest.Digest) error {
			return errors.Join(os.Remove(file), os.Mkdir(file, 0o700))
		}},
		{"a link out of the layout", func(_, file string, _ digest.Digest) error {
			b, err := os.ReadFile(file)
			out := filepath.Join(t.TempDir(), "out")
			return errors.Join(err, os.Remove(file), os.WriteFile(out, b, 0o600), os.Symlink(out, file))
		}},
		{"a size that is a lie", func(folder, _ string, image digest.Digest) error {
			index := filepath.Join(folder, "index.json")
			b, err := os.ReadFile(index)
			if err != nil {
				return err
			}
			var i ocispec.Index
			if err := json.Unmarshal(b, &i); err != nil {
				return err
			}
			for n := range i.Manifests {
				if i.Manifests[n].Digest == image {
					i.Manifests[n].Size = 1 << 60
				}
			}
			if b, err = json.Marshal(i); err != nil {
				return err
			}
			return os.WriteFile(index, b, 0o600)
		}},
	} {
		t.Run(c.is, func(t *testing.T) {
			b := &bench{t: t, alice: somebody(t)}
			var folder string
			inLayout(t, b, func(f string) string { folder = f; return f })
			d := b.image("1", "a")
			b.sign(d, b.alice)
			keys := trust(t, map[string]string{"for": "*", "key": b.alice.pem})
			if v := b.check(keys, b.name+":1"); !v.Verified {
				t.Fatalf("before: %s", v.Summary)
			}
			file := filepath.Join(folder, "blobs", "sha256", d.Digest.Encoded())
			os.Chmod(file, 0o600)
			if err := c.edit(folder, file, d.Digest); err != nil {
				t.Fatal(err)
			}
			if v := b.check(keys, b.name+":1"); v.Verified || v.Reason == api.VerifyUnreachable {
				t.Errorf("Check = %s, %q; want a refusal", v.Reason, v.Summary)
			}
		})
	}
}

func TestWhatALayoutIs(t *testing.T) {
	alice := somebody(t)
	keys := trust(t, map[string]string{"for": "*", "key": alice.pem})
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	two := fmt.Sprintf(`{"manifests":[{"digest":%q,"annotations":{"io.containerd.image.name":"docker.io/library/a:1"}},{"digest":%q,"annotations":{"io.containerd.image.name":"docker.io/library/b:1"}}]}`, digest.FromString("a"), digest.FromString("b"))
	for _, c := range []struct{ is, path, reason, says string }{
		{"nothing", filepath.Join(folder, "nothing"), api.VerifyNotFound, "does not exist"},
		{"an empty folder", filepath.Dir(write("empty/x", "")), api.VerifyMalformed, "no index.json"},
		{"no archive", write("text", strings.Repeat("text", 1000)), api.VerifyMalformed, "no archive"},
		{"an empty file", write("none", ""), api.VerifyMalformed, "no index.json"},
		{"an index that is no JSON", filepath.Dir(write("bad/index.json", "{")), api.VerifyMalformed, "no JSON"},
		{"a digest that leads elsewhere", filepath.Dir(write("up/index.json", `{"manifests":[{"digest":"sha256:../../../x","annotations":{"io.containerd.image.name":"a:1"}}]}`)), api.VerifyMalformed, "cannot be checked"},
		{"an image without a name", filepath.Dir(write("unnamed/index.json", `{"manifests":[{"digest":"sha256:x"}]}`)), api.VerifyNotFound, "has no name"},
		{"two images", filepath.Dir(write("two/index.json", two)), api.VerifyNotFound, "2 images"},
		{"no images", filepath.Dir(write("zero/index.json", `{}`)), api.VerifyMalformed, "no image"},
	} {
		v, err := checking(keys, Reach{}).Check(t.Context(), api.VerifyRequest{Path: c.path})
		if err != nil || v.Reason != c.reason || !strings.Contains(v.Summary, c.says) || strings.Contains(v.Summary, "..,") {
			t.Errorf("Check of %s = %s, %q, %v; want %s, %q", c.is, v.Reason, v.Summary, err, c.reason, c.says)
		}
	}
}

// What docker and cosign write has the image's name in it.
func TestTheNameInALayout(t *testing.T) {
	b := &bench{t: t, alice: somebody(t)}
	var folder string
	inLayout(t, b, func(f string) string { folder = f; return f })
	b.name = "docker.io/library/app"
	b.sign(b.image("1", "a"), b.alice)
	b.check(nil, b.name)
	index := filepath.Join(folder, "index.json")
	text, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(`"org.opencontainers.image.ref.name":"1"`), []byte(`"org.opencontainers.image.ref.name":"1","io.containerd.image.name":"docker.io/library/app:1"`), 1)
	if err := os.WriteFile(index, text, 0o600); err != nil {
		t.Fatal(err)
	}
	keys := trust(t, map[string]string{"for": "app", "key": b.alice.pem})
	for ref, want := range map[string]string{"": api.VerifyVerified, "app:1": api.VerifyVerified, "app:2": api.VerifyNotFound, "other:1": api.VerifyNotFound} {
		v, err := checking(keys, Reach{}).Check(t.Context(), api.VerifyRequest{Path: folder, Reference: ref})
		if err != nil || v.Reason != want {
			t.Errorf("Check(--name %q) = %s, %q, %v; want %s", ref, v.Reason, v.Summary, err, want)
		}
	}
}

func TestKindsOfKeys(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for is, s := range map[string]signer{
		"P-384, hashed as cosign does": newSigner(t, p384, crypto.SHA256), "P-384, hashed as the standard has it": newSigner(t, p384, crypto.SHA384),
		"RSA": newSigner(t, r, crypto.SHA256), "Ed25519": newSigner(t, ed, crypto.SHA256),
	} {
		b := &bench{t: t, alice: s}
		inLayout(t, b, func(f string) string { return f })
		b.sign(b.image("1", "a"), s)
		if v := b.check(trust(t, map[string]string{"for": "*", "key": s.pem}), b.name+":1"); !v.Verified {
			t.Errorf("%s: %s", is, v.Summary)
		}
	}
}

// A certificate in the settings is a key with an end of its own.
func TestACertificate(t *testing.T) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, alice: newSigner(t, k, crypto.SHA256)}
	inLayout(t, b, func(f string) string { return f })
	b.sign(b.image("1", "a"), b.alice)
	for _, c := range []struct {
		from, until time.Time
		entry, want string
	}{
		{today.Add(-time.Hour), today.Add(time.Hour), "", api.VerifyVerified},
		{today.Add(-2 * time.Hour), today.Add(-time.Hour), "", api.VerifyExpired},
		{today.Add(-2 * time.Hour), today.Add(-time.Hour), "2030-01-01", api.VerifyExpired}, // the setting does not make it longer
		{today.Add(time.Hour), today.Add(2 * time.Hour), "", api.VerifyNotYet},
		{today.Add(-time.Hour), today.Add(time.Hour), "2027-01-14", api.VerifyExpired},
	} {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "alice"}, NotBefore: c.from, NotAfter: c.until}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
		if err != nil {
			t.Fatal(err)
		}
		entry := map[string]string{"for": "*", "key": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
		if c.entry != "" {
			entry["until"] = c.entry
		}
		if v := b.check(trust(t, entry), b.name+":1"); v.Reason != c.want {
			t.Errorf("from %s until %s, %q: %s, %q; want %s", c.from, c.until, c.entry, v.Reason, v.Summary, c.want)
		}
	}
}

func TestWhatAnIndexContains(t *testing.T) {
	b := &bench{t: t, alice: somebody(t)}
	inLayout(t, b, func(f string) string { return f })
	one, other := b.image("", "a"), b.image("2", "b")
	d := b.index("1", map[string]ocispec.Descriptor{"amd64": one})
	b.sign(d, b.alice)
	v := b.check(trust(t, map[string]string{"for": "*", "key": b.alice.pem}), b.name+":1")
	if len(v.Platforms) != 1 || v.Platforms[0] != (api.PlatformImage{Platform: "linux/amd64", Digest: one.Digest.String()}) {
		t.Errorf("Platforms = %v; want linux/amd64 %s", v.Platforms, one.Digest)
	}
	for of, want := range map[digest.Digest]bool{d.Digest: true, one.Digest: true, other.Digest: false} {
		if got := Contained(v, of); got != want {
			t.Errorf("Contained(%s) = %v; want %v", of, got, want)
		}
	}
	v.Verified = false
	if Contained(v, d.Digest) {
		t.Error("Contained = true where nothing was verified")
	}
}

func TestWhoIsAsked(t *testing.T) {
	for _, o := range []testregistry.Options{{Htpasswd: map[string]string{"alice": "wonder:land"}}, {Token: map[string]string{"alice": "wonder:land"}}} {
		r := testregistry.Start(t, o)
		creds := func(user, password string) auth.CredentialFunc {
			return func(_ context.Context, host string) (auth.Credential, error) {
				if host != r.Addr {
					t.Errorf("credentials for %s are asked for; want those for %s alone", host, r.Addr)
				}
				return auth.Credential{Username: user, Password: password}, nil
			}
		}
		b := &bench{t: t, alice: somebody(t), name: r.Addr + "/private"}
		repo, err := remote.NewRepository(b.name)
		if err != nil {
			t.Fatal(err)
		}
		repo.PlainHTTP, repo.Client, b.at = true, &auth.Client{Client: http.DefaultClient, Cache: auth.NewCache(), Credential: creds("alice", "wonder:land")}, repo
		b.signBundle(b.image("1", "a"), b.alice)
		keys := trust(t, map[string]string{"for": r.Addr + "/*", "key": b.alice.pem})
		for _, c := range []struct {
			is, want, says string
			keys           []Key
			reach          Reach
		}{
			{"the right password", api.VerifyVerified, "", keys, Reach{Transport: http.DefaultTransport, Credential: creds("alice", "wonder:land")}},
			{"a wrong password", api.VerifyDenied, "does not let you read", keys, Reach{Transport: http.DefaultTransport, Credential: creds("alice", "wrong")}},
			{"no password", api.VerifyDenied, "does not let you read", keys, Reach{Transport: http.DefaultTransport}},
			{"a helper that is not there", api.VerifyDenied, "your credentials cannot be read", keys, Reach{Transport: http.DefaultTransport, Credential: func(context.Context, string) (auth.Credential, error) {
				return auth.EmptyCredential, errors.New("docker-credential-gone is not in PATH")
			}}},
			{"no key", api.VerifyNoKey, "have no key", nil, Reach{Transport: http.DefaultTransport, Credential: func(context.Context, string) (auth.Credential, error) {
				t.Error("without a key the registry is asked all the same")
				return auth.EmptyCredential, nil
			}}},
		} {
			v, err := checking(c.keys, c.reach).Check(t.Context(), api.VerifyRequest{Reference: b.name + ":1"})
			if err != nil || v.Reason != c.want || !strings.Contains(v.Summary, c.says) || strings.Contains(v.Summary+v.Remedy, "wonder") {
				t.Errorf("Check with %s = %s, %q, %v; want %s, %q", c.is, v.Reason, v.Summary, err, c.want, c.says)
			}
		}
	}
}

// A registry that is not on loopback never hears plain http, whatever becomes of its TLS.
func TestPlainOnlyOnLoopback(t *testing.T) {
	r := testregistry.Start(t, testregistry.Options{})
	secure := testregistry.Start(t, testregistry.Options{TLS: true})
	for host, want := range map[string]bool{r.Addr: true, "localhost:" + r.Port: true, secure.Addr: false, "192.0.2.1:5000": false, "registry.example.com": false, "10.0.0.1:80": false, "localhost.example.com:80": false} {
		if got, err := plain.plain(t.Context(), host); err != nil || got != want {
			t.Errorf("plain(%s) = %v, %v; want %v", host, got, err, want)
		}
	}
	keys := trust(t, map[string]string{"for": "*", "key": somebody(t).pem})
	v, err := checking(keys, plain).Check(t.Context(), api.VerifyRequest{Reference: secure.Addr + "/app"})
	if err != nil || v.Reason != api.VerifyUnreachable || !strings.Contains(v.Remedy, "authority") {
		t.Errorf("Check with a certificate of nobody = %s, %q, %q, %v; want unreachable, and what to do", v.Reason, v.Summary, v.Remedy, err)
	}
	for _, q := range secure.Requests() {
		if q.Status != 0 {
			t.Errorf("the registry of nobody's certificate was asked %s %s", q.Method, q.Path)
		}
	}
}

func TestADeadRegistry(t *testing.T) {
	keys := trust(t, map[string]string{"for": "*", "key": somebody(t).pem})
	v, err := checking(keys, plain).Check(t.Context(), api.VerifyRequest{Reference: "127.0.0.1:1/app"})
	if err != nil || v.Reason != api.VerifyUnreachable || !strings.Contains(v.Summary, "refused") || strings.Contains(v.Summary, "http://") {
		t.Errorf("Check = %s, %q, %v; want unreachable, because it refused", v.Reason, v.Summary, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := checking(keys, plain).Check(ctx, api.VerifyRequest{Reference: "127.0.0.1:1/app"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Check after its end = %v; want %v", err, context.Canceled)
	}
	for _, ref := range []string{"", "UPPER", "a b", "./x", "http://a/b", "a@sha256:1"} {
		if _, err := checking(keys, plain).Check(t.Context(), api.VerifyRequest{Reference: ref}); !errors.Is(err, ErrReference) {
			t.Errorf("Check(%q) = %v; want %v", ref, err, ErrReference)
		}
	}
}

func TestKeyFile(t *testing.T) {
	b := &bench{t: t, alice: somebody(t)}
	inLayout(t, b, func(f string) string { return f })
	b.sign(b.image("1", "a"), b.alice)
	file := filepath.Join(t.TempDir(), "cosign.pub")
	keys := trust(t, map[string]string{"for": "*", "key": file})
	if err := CheckFiles(keys); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("CheckFiles = %v; want %v", err, fs.ErrNotExist)
	}
	if v := b.check(keys, b.name+":1"); v.Reason != api.VerifyBadKey {
		t.Errorf("without the file: %s, %q; want %s", v.Reason, v.Summary, api.VerifyBadKey)
	}
	if err := os.WriteFile(file, []byte(b.alice.pem), 0o600); err != nil {
		t.Fatal(err)
	}
	if v := b.check(keys, b.name+":1"); !v.Verified {
		t.Errorf("with the file: %s", v.Summary)
	}
}

// Docker Hub and others have a call for referrers; registries from before it answer in several ways.
func TestTheCallForReferrers(t *testing.T) {
	r := testregistry.Start(t, testregistry.Options{})
	to, err := url.Parse(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, alice: somebody(t)}
	repo, err := remote.NewRepository(r.Addr + "/app")
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP, b.at = true, repo
	d := b.image("1", "a")
	b.signBundle(d, b.alice)
	b.image("2", "b")
	fallback := "/v2/app/manifests/" + referrersTag(d.Digest)
	for _, c := range []struct {
		is     string
		call   int // what it answers to the call
		tag    bool
		reason string
	}{
		{"has the call", http.StatusOK, false, api.VerifyVerified},
		{"does not know it", http.StatusNotFound, true, api.VerifyVerified},
		{"refuses it", http.StatusMethodNotAllowed, false, api.VerifyUnsigned},
		{"fails at it", http.StatusInternalServerError, false, api.VerifyUnreachable},
	} {
		front := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(to) }}
		tagged := false
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			switch {
			case q.URL.Path == "/v2/app/referrers/"+d.Digest.String() && c.call == http.StatusOK:
				q.URL.Path = fallback // the same list
			case strings.HasPrefix(q.URL.Path, "/v2/app/referrers/"):
				http.Error(w, "{}", c.call)
				return
			case q.URL.Path == fallback:
				tagged = true
			}
			front.ServeHTTP(w, q)
		}))
		v, err := checking(trust(t, map[string]string{"for": "*", "key": b.alice.pem}), plain).Check(t.Context(), api.VerifyRequest{Reference: strings.TrimPrefix(s.URL, "http://") + "/app:1"})
		s.Close()
		if err != nil || v.Reason != c.reason || tagged != c.tag {
			t.Errorf("a registry that %s: %s, %q, %v, the tag is read: %v; want %s, %v", c.is, v.Reason, v.Summary, err, tagged, c.reason, c.tag)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		image, tag, signed string
		same               bool
	}{
		{"alpine", "3", "index.docker.io/library/alpine", true}, // as cosign writes Docker Hub's
		{"alpine", "3", "docker.io/library/alpine:3", true},
		{"alpine", "", "docker.io/library/alpine:3", true},
		{"alpine", "3", "docker.io/library/alpine:4", false},
		{"alpine", "3", "docker.io/library/alpine2", false},
		{"registry.example.com/a", "1", "registry.example.com/a", true},
		{"registry.example.com/a", "1", "registry.example.com:443/a", false},
		{"registry.example.com/a", "1", "registry.example.com/A", false},
		{"registry.example.com/a", "1", "https://registry.example.com/a", false},
		{"registry.example.com/a", "1", "registry.example.com/a@" + digest.FromString("a").String(), true},
	} {
		name, err := reference.ParseNormalizedNamed(c.image)
		if err != nil {
			t.Fatal(err)
		}
		if got := (checker{want: wanted{name: name, tag: c.tag}}).named(c.signed); got != c.same {
			t.Errorf("%s:%s is %s: %v; want %v", c.image, c.tag, c.signed, got, c.same)
		}
	}
}

// testdata/cosign is what cosign 3.1.1 pushed to a registry, by `cosign sign --key` with --new-bundle-format
// false and true, as a layout; beside the first is a signature by a key that nobody has any more.
func TestWhatCosignMakes(t *testing.T) {
	key, err := os.ReadFile("testdata/cosign/cosign.pub")
	if err != nil {
		t.Fatal(err)
	}
	keys := trust(t, map[string]string{"for": "*", "key": string(key)})
	for _, c := range []struct {
		name, want, form string
		keys             []Key
	}{
		{"localhost:43217/cs/classic:1", api.VerifyVerified, "tag", keys},
		{"localhost:43217/cs/bundle:1", api.VerifyVerified, "bundle", keys}, // the other form names another repository, this one none
		{"localhost:43217/cs/classic:1", api.VerifyWrongKey, "tag", trust(t, map[string]string{"for": "*", "key": somebody(t).pem})},
	} {
		v, err := checking(c.keys, Reach{}).Check(t.Context(), api.VerifyRequest{Path: "testdata/cosign", Reference: c.name})
		if err != nil || v.Reason != c.want || v.Signature == nil || v.Signature.Form != c.form {
			t.Errorf("Check(%s) = %s, %q, %+v, %v; want %s by a %s", c.name, v.Reason, v.Summary, v.Signature, err, c.want, c.form)
		}
	}
}
