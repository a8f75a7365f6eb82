package imagetrust

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// Bounds of what the settings can say.
const (
	maxKeys    = 256
	maxKeyFile = 64 << 10 // a certificate with its chain is 10 KB
)

// leastRSA is the shortest RSA key that is trusted: sigstore's own bound.
const leastRSA = 2048

// Key is one of the settings' trust.keys: what it signs for, and how long.
type Key struct {
	For   string `json:"for"`             // a repository; a name with /* behind it: all repositories below; * alone: all there are
	Key   string `json:"key"`             // a public key or a certificate as PEM, or the absolute path of a file with one
	From  string `json:"from,omitempty"`  // the key holds from here: RFC 3339, or a day in UTC
	Until string `json:"until,omitempty"` // the key holds until here; a day still belongs to it

	scope       string // For in its whole form: docker.io/library/*
	from, until time.Time
}

// moment reads a date; empty is the zero time.
func moment(s string) (t time.Time, day bool, err error) {
	if s == "" {
		return time.Time{}, false, nil
	}
	if t, err = time.Parse(time.DateOnly, s); err == nil {
		return t, true, nil
	}
	if t, err = time.Parse(time.RFC3339, s); err == nil {
		return t.UTC(), false, nil
	}
	return time.Time{}, false, fmt.Errorf("%q is no date: write 2027-01-31 or 2027-01-31T12:00:00Z", s)
}

// ParseKeys reads the setting: a JSON array of keys. A file that a key names is read when the key is used.
func ParseKeys(s string) ([]Key, error) {
	d := json.NewDecoder(strings.NewReader(s))
	d.DisallowUnknownFields()
	var all []Key
	if err := d.Decode(&all); err != nil {
		return nil, fmt.Errorf("it is not a list of keys (%s)", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the list")
	}
	if len(all) > maxKeys {
		return nil, fmt.Errorf("it has more than %d keys", maxKeys)
	}
	for i := range all {
		k := &all[i]
		var err error
		if k.scope, err = scope(k.For); err != nil {
			return nil, err
		}
		k.Key = strings.TrimSpace(k.Key)
		switch {
		case isPEM(k.Key):
			if _, err := parseKey([]byte(k.Key)); err != nil {
				return nil, fmt.Errorf("the key for %s cannot be used: %w", k.For, err)
			}
		case !filepath.IsAbs(k.Key):
			return nil, fmt.Errorf("the key for %s is neither PEM nor the absolute path of a file", k.For)
		}
		if k.from, _, err = moment(k.From); err != nil {
			return nil, err
		}
		var day bool
		if k.until, day, err = moment(k.Until); err != nil {
			return nil, err
		}
		if day {
			k.until = k.until.AddDate(0, 0, 1).Add(-time.Second)
		}
		if !k.until.IsZero() && k.until.Before(k.from) {
			return nil, fmt.Errorf("the key for %s ends before it begins", k.For)
		}
	}
	return all, nil
}

// FormatKeys is the setting's usual form.
func FormatKeys(all []Key) string {
	if len(all) == 0 {
		return "[]"
	}
	b, err := json.Marshal(all)
	if err != nil {
		return "[]" // there is nothing in it that JSON cannot hold
	}
	return string(b)
}

// CheckFiles reads the files that the keys name.
func CheckFiles(all []Key) error {
	for _, k := range all {
		if _, err := k.load(); err != nil {
			return fmt.Errorf("the key for %s cannot be used: %w", k.For, err)
		}
	}
	return nil
}

func isPEM(s string) bool { return strings.HasPrefix(s, "-----BEGIN ") }

// scope is a pattern in its whole form.
func scope(pattern string) (string, error) {
	if pattern == "*" {
		return pattern, nil
	}
	base, below := strings.CutSuffix(pattern, "/*")
	name := base
	if below {
		name += "/x"
	} else if !strings.Contains(name, "/") && (strings.Contains(name, ".") || name == "localhost") {
		return "", fmt.Errorf("%s is a registry: for all that is in it, write %s/*", name, name)
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil || !reference.IsNameOnly(named) {
		return "", fmt.Errorf("%q names no repositories: write registry.example.com/team/app (without a tag), registry.example.com/team/* for all below, or * for all there are", pattern)
	}
	if below {
		return strings.TrimSuffix(named.Name(), "x") + "*", nil
	}
	return named.Name(), nil
}

// covers says whether a scope has a repository, given by its whole name.
func covers(scope, name string) bool {
	if prefix, below := strings.CutSuffix(scope, "*"); below {
		return strings.HasPrefix(name, prefix)
	}
	return scope == name
}

// matching are the keys of the scope that says most about a repository: one for it alone goes before one
// for its registry, and both before one for everything.
func matching(all []Key, name string) []Key {
	var best string
	for _, k := range all {
		if covers(k.scope, name) && len(k.scope) > len(best) {
			best = k.scope
		}
	}
	var out []Key
	for _, k := range all {
		if best != "" && k.scope == best {
			out = append(out, k)
		}
	}
	return out
}

// loaded is a key that can be used.
type loaded struct {
	verifiers   []signature.Verifier
	fingerprint string // of the public key: SHA-256 of its DER form, in hex
	from, until time.Time
	of          Key
}

// load reads a key, from its file where it is in one.
func (k Key) load() (loaded, error) {
	text := []byte(k.Key)
	if !isPEM(k.Key) {
		f, err := os.Open(k.Key)
		if err != nil {
			return loaded{}, err
		}
		defer f.Close()
		if text, err = io.ReadAll(io.LimitReader(f, maxKeyFile)); err != nil {
			return loaded{}, err
		}
	}
	l, err := parseKey(bytes.TrimSpace(text))
	if err != nil {
		return loaded{}, err
	}
	l.of = k
	// A certificate has an end of its own; what ends first holds.
	if k.from.After(l.from) {
		l.from = k.from
	}
	if !k.until.IsZero() && (l.until.IsZero() || k.until.Before(l.until)) {
		l.until = k.until
	}
	return l, nil
}

// parseKey reads a public key or a certificate.
func parseKey(text []byte) (loaded, error) {
	block, _ := pem.Decode(text)
	switch {
	case block == nil:
		return loaded{}, errors.New("it is not PEM")
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return loaded{}, errors.New("it is a private key; give the public one, such as cosign.pub")
	}
	var l loaded
	var public crypto.PublicKey
	if block.Type == "CERTIFICATE" {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return loaded{}, fmt.Errorf("its certificate cannot be read: %w", err)
		}
		public, l.from, l.until = c.PublicKey, c.NotBefore, c.NotAfter
	} else {
		var err error
		if public, err = cryptoutils.UnmarshalPEMToPublicKey(text); err != nil {
			return loaded{}, err
		}
	}
	if r, is := public.(*rsa.PublicKey); is && r.N.BitLen() < leastRSA {
		return loaded{}, fmt.Errorf("its %d bits are too few, RSA needs %d", r.N.BitLen(), leastRSA)
	}
	// cosign signs with SHA-256 whatever the key; the newer form with the hash that belongs to the key.
	for _, load := range []func() (signature.Verifier, error){
		func() (signature.Verifier, error) { return signature.LoadVerifier(public, crypto.SHA256) },
		func() (signature.Verifier, error) { return signature.LoadDefaultVerifier(public) },
	} {
		if v, err := load(); err == nil {
			l.verifiers = append(l.verifiers, v)
		}
	}
	der, err := cryptoutils.MarshalPublicKeyToDER(public)
	if err != nil || len(l.verifiers) == 0 {
		return loaded{}, fmt.Errorf("keys of this kind (%T) are not supported: give an ECDSA, RSA or Ed25519 key", public)
	}
	sum := sha256.Sum256(der)
	l.fingerprint = hex.EncodeToString(sum[:])
	return l, nil
}

// signed says whether the key made a signature.
func (l loaded) signed(sig, message []byte) bool {
	for _, v := range l.verifiers {
		if v.VerifySignature(bytes.NewReader(sig), bytes.NewReader(message)) == nil {
			return true
		}
	}
	return false
}
