package imagetrust

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/covedesk/cove/app/api"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// checkerOf checks for an image by the one key that it returns the signer of.
func checkerOf(t testing.TB) (checker, signer) {
	t.Helper()
	s := somebody(t)
	l, err := trust(t, map[string]string{"for": "*", "key": s.pem})[0].load()
	if err != nil {
		t.Fatal(err)
	}
	name, err := reference.ParseNormalizedNamed("registry.example.com/app")
	if err != nil {
		t.Fatal(err)
	}
	return checker{keys: []loaded{l}, now: today, want: wanted{name, "1", digest.FromString("image")}}, s
}

// What a registry sends comes to a finding, and what nobody has signed never to a good one.
func FuzzSimple(f *testing.F) {
	c, s := checkerOf(f)
	p := statement("registry.example.com/app", c.want.digest)
	sig, err := s.SignMessage(bytes.NewReader(p))
	if err != nil {
		f.Fatal(err)
	}
	good := base64.StdEncoding.EncodeToString(sig)
	f.Add(p, good, false)
	f.Add([]byte("{"), "!", true)
	f.Add([]byte(`{"critical":{"image":{"docker-manifest-digest":1}}}`), "AAAA", true)
	f.Fuzz(func(t *testing.T, payload []byte, text string, signIt bool) {
		got := c.simple(payload, text)
		if got.reason == "" || got.reason == api.VerifyVerified && !bytes.Equal(payload, p) {
			t.Errorf("simple(%q, %q) = %q", payload, text, got.reason)
		}
		if !signIt || len(payload) > maxPayload {
			return
		}
		// Also what the key did sign may be anything.
		sig, err := s.SignMessage(bytes.NewReader(payload))
		if err != nil {
			t.Fatal(err)
		}
		got = c.simple(payload, base64.StdEncoding.EncodeToString(sig))
		if got.reason == "" || got.reason == api.VerifyVerified && !bytes.Contains(payload, []byte(c.want.digest)) && !bytes.Contains(payload, []byte(`\u`)) {
			t.Errorf("simple of what is signed, %q, = %q", payload, got.reason)
		}
	})
}

func FuzzBundle(f *testing.F) {
	c, s := checkerOf(f)
	good := bundleOf(f, s, signingPredicate, "", c.want.digest)
	f.Add(good)
	f.Add(bundleOf(f, s, signingPredicate, "registry.example.com/other", c.want.digest))
	f.Add(bundleOf(f, s, "https://slsa.dev/provenance/v1", "", c.want.digest))
	f.Add([]byte(`{"dsseEnvelope":{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[{}]}}`))
	f.Add([]byte(strings.Repeat(`{"a":[`, 200)))
	var envelope []byte // of the good one: what is around it may differ
	if _, after, is := bytes.Cut(good, []byte(`"payload":"`)); is {
		envelope, _, _ = bytes.Cut(after, []byte(`"`))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, is := c.bundle(text)
		if is && (got.reason == "" || got.reason == api.VerifyVerified && !bytes.Contains(text, envelope[:32])) {
			t.Errorf("bundle(%q) = %q", text, got.reason)
		}
	})
}

func FuzzLayout(f *testing.F) {
	c := checking(trust(f, map[string]string{"for": "*", "key": somebody(f).pem}), Reach{})
	f.Add([]byte(`{"manifests":[{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"annotations":{"io.containerd.image.name":"a:1","org.opencontainers.image.ref.name":"1"}}]}`), []byte("x"))
	f.Add([]byte(`{"manifests":null}`), bytes.Repeat([]byte{0}, 1024))
	f.Fuzz(func(t *testing.T, index, archive []byte) {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, "index.json"), index, 0o600); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(folder, "image.tar")
		if err := os.WriteFile(file, archive, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{folder, file} {
			for _, name := range []string{"", "a:1", "a@" + digest.FromString("").String()} {
				v, err := c.Check(t.Context(), api.VerifyRequest{Path: path, Reference: name})
				if err != nil || v.Reason == "" || v.Verified {
					t.Errorf("Check of %q = %q, %v", index, v.Reason, err)
				}
			}
		}
	})
}
