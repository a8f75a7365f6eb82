package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

// issue makes a certificate that is valid from a year before now to a time, with its key.
func issue(t *testing.T, name string, until time.Time) (certificate, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: now.AddDate(-1, 0, 0), NotAfter: until, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

func write(t *testing.T, path string, text []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func names(all []*x509.Certificate) (out []string) {
	for _, c := range all {
		out = append(out, c.Subject.CommonName)
	}
	return out
}

func TestWhatCannotBeReadIsNamed(t *testing.T) {
	dir := t.TempDir()
	good, key := issue(t, "good", now.AddDate(1, 0, 0))
	old, _ := issue(t, "old", now.AddDate(0, -1, 0))
	block, _ := pem.Decode(good)
	for _, c := range []struct {
		is   string
		text []byte
		take []string
		err  error
		says string
	}{
		{"a PEM file is read", good, []string{"good"}, nil, ""},
		{"a DER file is read", block.Bytes, []string{"good"}, nil, ""},
		{"text around the certificates does not matter", slices.Concat([]byte("# ours\r\n"), good, []byte("\n# end\n")), []string{"good"}, nil, ""},
		{"a key among them goes nowhere", slices.Concat(key, good), []string{"good"}, nil, ""},
		{"an empty file has no certificate", nil, nil, ErrNoCertificate, ""},
		{"a key alone is no certificate", key, nil, ErrNoCertificate, ""},
		{"one that is cut off is damaged", good[:len(good)-40], nil, ErrDamaged, ""},
		{"one that is cut off after a good one is named, and the good one holds", slices.Concat(good, good[:len(good)-40]), []string{"good"}, ErrDamaged, ""},
		{"one whose time is over is named, and the other holds", slices.Concat(old, good), []string{"good"}, ErrExpired, `"old" has expired on 2026-05-01`},
		{"nonsense in the right form is named", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), nil, nil, "cannot be read"},
		{"a huge file is refused", make([]byte, maxFile+1), nil, nil, "MiB"},
	} {
		all, err := Read(write(t, filepath.Join(dir, "ca.pem"), c.text), now)
		wrong := (err != nil) != (c.err != nil || c.says != "") || c.err != nil && !errors.Is(err, c.err) || err != nil && !strings.Contains(err.Error(), c.says)
		if wrong || !slices.Equal(names(all), c.take) {
			t.Errorf("%s: Read = %q, %v; want %q, %v %q", c.is, names(all), err, c.take, c.err, c.says)
		}
	}
	if _, err := Read(filepath.Join(dir, "none"), now); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of no file = %v", err)
	}
	if _, err := Read(dir, now); err == nil {
		t.Error("Read of a folder = nil")
	}
	young, _ := issue(t, "young", now.AddDate(1, 0, 0))
	if _, err := Read(write(t, filepath.Join(dir, "young"), young), now.AddDate(-2, 0, 0)); !errors.Is(err, ErrNotYet) {
		t.Errorf("Read of one from tomorrow = %v", err)
	}
}

func TestEachFaultIsNamedAndTheRestHolds(t *testing.T) {
	dir := t.TempDir()
	in := func(path string) string { return filepath.Join(dir, filepath.FromSlash(path)) }
	ca, _ := issue(t, "ca", now.AddDate(1, 0, 0))
	anchor, _ := issue(t, "anchor", now.AddDate(1, 0, 0))
	system, _ := issue(t, "system", now.AddDate(1, 0, 0))
	gone, _ := issue(t, "gone", now.AddDate(0, -1, 0))
	user, userKey := issue(t, "user", now.AddDate(1, 0, 0))
	_, otherKey := issue(t, "other", now.AddDate(1, 0, 0))
	late, lateKey := issue(t, "late", now.AddDate(0, -1, 0))
	write(t, in("anchors/sub/a.crt"), anchor)
	write(t, in("anchors/same.pem"), anchor)
	write(t, in("anchors/README"), []byte("-----BEGIN"))
	write(t, in("certs.d/r.example_5000_/ca.crt"), ca)
	write(t, in("certs.d/r.example_5000_/client.cert"), user)
	write(t, in("certs.d/r.example_5000_/client.key"), userKey)
	write(t, in("certs.d/bad/mixed.cert"), user)
	write(t, in("certs.d/bad/mixed.key"), otherKey)
	write(t, in("certs.d/bad/alone.cert"), user)
	write(t, in("certs.d/bad/late.cert"), late)
	write(t, in("certs.d/bad/late.key"), lateKey)
	write(t, in("certs.d/bad/locked.cert"), user)
	write(t, in("certs.d/bad/locked.key"), []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"))
	write(t, in("certs.d/empty/notes.txt"), nil)
	write(t, in("etc/r.example_5000_/ca.crt"), anchor)
	write(t, in("etc/second/ca.crt"), ca)
	sys, _ := pem.Decode(system)
	over, _ := pem.Decode(gone)
	f := Find(Places{Anchors: []string{in("anchors"), in("nowhere")}, Certs: []string{in("certs.d"), in("etc"), in("nowhere")},
		System: func() ([][]byte, error) {
			return [][]byte{sys.Bytes, over.Bytes, []byte("x")}, errors.New("half of it is locked")
		},
	}, []string{write(t, in("set.pem"), ca), in("missing.pem")}, now, 1<<20)

	if got := names(f.Authorities); !slices.Equal(got, []string{"ca", "anchor", "system"}) {
		t.Errorf("authorities are %q", got)
	}
	if len(f.Registries) != 2 || f.Registries[0].Host != "r.example:5000" || f.Registries[1].Host != "second" {
		t.Fatalf("registries are %+v", f.Registries)
	}
	r := f.Registries[0]
	if got := names(r.Authorities); !slices.Equal(got, []string{"ca"}) || len(r.Clients) != 1 || r.Clients[0].Key.RevealSecret() != string(userKey) || r.Clients[0].Certificate != string(user) {
		t.Errorf("r.example:5000 has %q and %+v", got, r.Clients)
	}
	var said []string
	for _, fault := range f.Faults {
		said = append(said, strings.TrimPrefix(fault.Error(), dir+string(filepath.Separator)))
	}
	for _, want := range []string{
		"missing.pem: no such file or directory", "the system's certificates: half of it is locked",
		"certs.d/bad/alone.cert: its key is missing", "certs.d/bad/late.cert: the certificate \"late\" has expired",
		"certs.d/bad/locked.key: the key is encrypted", "certs.d/bad/mixed.cert: it and the key beside it do not make a pair",
	} {
		if !slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(filepath.ToSlash(s), want) }) {
			t.Errorf("no fault begins with %q; they are %q", want, said)
		}
	}
	if len(said) != 6 {
		t.Errorf("there are %d faults: %q", len(said), said)
	}
	if out := fmt.Sprintf("%+v %#v", f, f); strings.Contains(out, "PRIVATE KEY") {
		t.Error("a key shows")
	}
	for host, want := range map[string]int{"r.example:5000": 1, "token.example": 0} {
		c, err := f.For(host, "r.example:5000")
		if err != nil || len(c.Certificates) != want {
			t.Errorf("For %s sent by r.example:5000 = %v, %v; want %d certificates of clients", host, c, err, want)
		}
	}
}

func TestWhatIsTooMuchIsLeftOutAndSaid(t *testing.T) {
	dir := t.TempDir()
	var files []string
	var one int
	for i := range 3 {
		c, _ := issue(t, fmt.Sprint("ca", i), now.AddDate(1, 0, 0))
		files = append(files, write(t, filepath.Join(dir, fmt.Sprint(i)), c))
		one = max(one, len(c))
	}
	f := Find(Places{}, files, now, 2*one+one/2)
	if got := names(f.Authorities); !slices.Equal(got, []string{"ca0", "ca1"}) || len(f.Faults) != 1 || !errors.Is(f.Faults[0], ErrTooMuch) || f.Faults[0].Path != "ca2" {
		t.Errorf("Find with room for two = %q, %v", got, f.Faults)
	}
}

func TestPEMComesBack(t *testing.T) {
	a, _ := issue(t, "a", now.AddDate(1, 0, 0))
	b, _ := issue(t, "b", now.AddDate(1, 0, 0))
	all, err := Read(write(t, filepath.Join(t.TempDir(), "x"), slices.Concat(a, b)), now)
	if err != nil || !bytes.Equal([]byte(PEM(all)), slices.Concat(a, b)) {
		t.Errorf("PEM = %q, %v", PEM(all), err)
	}
}
