// Package trust finds whom the user trusts beyond the authorities that everybody knows: the certificates
// that were added to this machine's own, files that the settings name, and docker's folders of certificates
// for single registries. What cannot be used is named and left out; it never keeps the rest from holding.
package trust

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/covedesk/cove/app/internal/secret"
)

// Found is what was found.
type Found struct {
	Authorities []*x509.Certificate // for all registries, and whatever else the engine reaches by TLS
	Registries  []Registry          // by name
	Faults      []Fault
}

// Registry is what there is for one.
type Registry struct {
	Host        string // host or host:port
	Folder      string
	Authorities []*x509.Certificate
	Clients     []Client
}

// Client is a certificate that is shown to a registry.
type Client struct {
	Certificate string // PEM, the chain
	Key         secret.Text
	Leaf        *x509.Certificate
}

// Fault is something that cannot be used. Its text is a sentence without its full stop, and has nothing in it
// of what a file holds but the names in a certificate.
type Fault struct {
	Path string
	Err  error
}

func (f Fault) Error() string { return f.Path + ": " + f.Err.Error() }
func (f Fault) Unwrap() error { return f.Err }

var (
	ErrNoCertificate = errors.New("there is no certificate (PEM) in it")
	ErrDamaged       = errors.New("it is damaged: what follows a line -----BEGIN cannot be read")
	ErrExpired       = errors.New("expired")
	ErrNotYet        = errors.New("not valid yet; is this machine's clock right?")
	ErrNoKey         = errors.New("its key is missing: the same name with .key at its end")
	ErrTooMuch       = errors.New("there are more certificates than the VM takes; name those that are needed in registry.ca, and remove others")
)

// Places are where to look.
type Places struct {
	Anchors []string // folders of certificates that were added to the system's
	Certs   []string // docker's certs.d, the one that goes first first
	// System gives, in DER, what was added to a system that keeps it otherwise than in folders; nil: nothing.
	System func() ([][]byte, error)
}

// Here are this machine's places: see anchors for the folders. dockerFolder is docker's own, such as ~/.docker.
func Here(dockerFolder string) Places {
	p := Places{Anchors: anchors, System: system}
	if dockerFolder != "" {
		p.Certs = append(p.Certs, filepath.Join(dockerFolder, "certs.d"))
	}
	if runtime.GOOS != "windows" {
		p.Certs = append(p.Certs, "/etc/docker/certs.d")
	}
	return p
}

// anchors are where an administrator of Linux puts certificates of authorities: Debian, Fedora, Arch, openSUSE.
var anchors = []string{"/usr/local/share/ca-certificates", "/etc/pki/ca-trust/source/anchors", "/etc/ca-certificates/trust-source/anchors", "/etc/pki/trust/anchors"}

// maxFile bounds one file of certificates, in bytes: more than all authorities of the world take.
const maxFile = 1 << 20

// Find looks in the places, and into the files, for what is valid at a time. All of it takes at most so many
// bytes of PEM.
func Find(p Places, files []string, at time.Time, most int) Found {
	var f Found
	for _, path := range files {
		f.take(&f.Authorities, path, at)
	}
	for _, dir := range p.Anchors {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				f.fault(path, err)
			case !d.IsDir() && slices.Contains([]string{".crt", ".pem", ".cer", ".der"}, filepath.Ext(path)):
				f.take(&f.Authorities, path, at)
			}
			return nil
		})
	}
	if p.System != nil {
		all, err := p.System()
		if err != nil {
			f.fault("the system's certificates", err)
		}
		for _, der := range all {
			// Systems keep many that are over, or are not for people to mend.
			if c, err := x509.ParseCertificate(der); err == nil && valid(c, at) == nil {
				add(&f.Authorities, c)
			}
		}
	}
	for _, dir := range p.Certs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.fault(dir, err)
		}
		for _, e := range entries {
			folder := filepath.Join(dir, e.Name())
			host := hostOf(e.Name())
			if st, err := os.Stat(folder); err != nil || !st.IsDir() || slices.ContainsFunc(f.Registries, func(r Registry) bool { return r.Host == host }) {
				continue
			}
			f.registry(host, folder, at)
		}
	}
	slices.SortFunc(f.Registries, func(a, b Registry) int { return strings.Compare(a.Host, b.Host) })
	f.fit(most)
	return f
}

// hostOf is the registry that a folder of certs.d is for: containerd writes host_port_ where a name may have
// no colon.
func hostOf(name string) string {
	if host, is := strings.CutSuffix(name, "_"); is {
		if i := strings.LastIndexByte(host, '_'); i > 0 {
			return host[:i] + ":" + host[i+1:]
		}
	}
	return name
}

func (f *Found) fault(path string, err error) { f.Faults = append(f.Faults, Fault{path, plain(err)}) }

// plain is an error of the file system without the path, which is said beside it.
func plain(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// take adds the certificates of a file.
func (f *Found) take(to *[]*x509.Certificate, path string, at time.Time) {
	all, err := Read(path, at)
	if err != nil {
		f.fault(path, err)
	}
	for _, c := range all {
		add(to, c)
	}
}

func add(to *[]*x509.Certificate, c *x509.Certificate) {
	if !slices.ContainsFunc(*to, c.Equal) {
		*to = append(*to, c)
	}
}

// Read gives the certificates of a file, PEM or one DER, that are valid at a time, and says what of it cannot
// be used. With an error come those that can.
func Read(path string, at time.Time) ([]*x509.Certificate, error) {
	text, err := read(path)
	if err != nil {
		return nil, plain(err)
	}
	if c, err := x509.ParseCertificate(text); err == nil {
		return usable([]*x509.Certificate{c}, at)
	}
	var all []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		if block.Type != "CERTIFICATE" {
			continue // a key has no place here, and goes nowhere
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return all, fmt.Errorf("a certificate in it cannot be read: %w", err)
		}
		all = append(all, c)
	}
	all, err = usable(all, at)
	switch {
	case bytes.Contains(text, []byte("-----BEGIN")):
		err = errors.Join(err, ErrDamaged)
	case len(all) == 0 && err == nil:
		err = ErrNoCertificate
	}
	return all, err
}

func read(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if st, err := file.Stat(); err == nil && !st.Mode().IsRegular() {
		return nil, errors.New("it is not a file")
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if len(text) > maxFile {
		return nil, fmt.Errorf("it has more than %d MiB", maxFile>>20)
	}
	return text, err
}

// usable are those that are valid at a time; the others are named in the error.
func usable(all []*x509.Certificate, at time.Time) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	var errs []error
	for _, c := range all {
		if err := valid(c, at); err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, c)
	}
	return out, errors.Join(errs...)
}

func valid(c *x509.Certificate, at time.Time) error {
	switch {
	case at.After(c.NotAfter):
		return fmt.Errorf("the certificate %q has %w on %s", Name(c), ErrExpired, c.NotAfter.Format(time.DateOnly))
	case at.Before(c.NotBefore):
		return fmt.Errorf("the certificate %q is from %s on, and so %w", Name(c), c.NotBefore.Format(time.DateOnly), ErrNotYet)
	}
	return nil
}

// Name is what people call a certificate.
func Name(c *x509.Certificate) string {
	if c.Subject.CommonName != "" {
		return c.Subject.CommonName
	}
	return c.Subject.String()
}

// registry takes a folder of docker's layout: *.crt are authorities, *.cert with the *.key beside it are
// shown to the registry.
func (f *Found) registry(host, folder string, at time.Time) {
	r := Registry{Host: host, Folder: folder}
	entries, err := os.ReadDir(folder)
	if err != nil {
		f.fault(folder, err)
		return
	}
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		switch filepath.Ext(path) {
		case ".crt":
			f.take(&r.Authorities, path, at)
		case ".cert":
			c, err := readClient(path, at)
			if err != nil {
				f.Faults = append(f.Faults, *err)
				continue
			}
			r.Clients = append(r.Clients, c)
		}
	}
	if len(r.Authorities)+len(r.Clients) > 0 {
		f.Registries = append(f.Registries, r)
	}
}

func readClient(path string, at time.Time) (Client, *Fault) {
	certificate, err := read(path)
	if err != nil {
		return Client{}, &Fault{path, plain(err)}
	}
	keyPath := strings.TrimSuffix(path, ".cert") + ".key"
	key, err := read(keyPath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Client{}, &Fault{path, ErrNoKey}
	case err != nil:
		return Client{}, &Fault{keyPath, plain(err)}
	}
	if bytes.Contains(key, []byte("ENCRYPTED")) {
		return Client{}, &Fault{keyPath, errors.New("the key is encrypted, which the engine cannot read; write it without a passphrase, with mode 0600")}
	}
	both, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return Client{}, &Fault{path, errors.New("it and the key beside it do not make a pair: " + strings.TrimPrefix(err.Error(), "tls: "))}
	}
	if err := valid(both.Leaf, at); err != nil {
		return Client{}, &Fault{path, err}
	}
	var chain bytes.Buffer
	for _, der := range both.Certificate {
		pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return Client{Certificate: chain.String(), Key: secret.New(string(key)), Leaf: both.Leaf}, nil
}

// PEM is the certificates as files have them.
func PEM(all []*x509.Certificate) string {
	var b bytes.Buffer
	for _, c := range all {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return b.String()
}

// fit leaves out what is too much, first of what counts everywhere: the settings' files are the first there.
func (f *Found) fit(most int) {
	left := most
	for i, r := range f.Registries {
		size := len(PEM(r.Authorities))
		for _, c := range r.Clients {
			size += len(c.Certificate) + len(c.Key.RevealSecret())
		}
		if left -= size; left < 0 {
			f.fault(r.Folder, ErrTooMuch)
			f.Registries = f.Registries[:i]
			left = 0
			break
		}
	}
	for i, c := range f.Authorities {
		if left -= len(PEM([]*x509.Certificate{c})); left < 0 {
			f.fault(Name(c), ErrTooMuch)
			f.Authorities = f.Authorities[:i]
			return
		}
	}
}

// For is what a client of a host uses on this machine: the host's authorities and those of all beyond the
// system's, and what it shows. sender is the registry that sends there for a token, whose authorities count too,
// as they do for the engine; empty: none did.
func (f Found) For(host, sender string) (*tls.Config, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("the system's authorities: %w", err)
	}
	c := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	for _, a := range f.Authorities {
		pool.AddCert(a)
	}
	for _, r := range f.Registries {
		if r.Host != host && r.Host != sender {
			continue
		}
		for _, a := range r.Authorities {
			pool.AddCert(a)
		}
		if r.Host != host {
			continue
		}
		for _, k := range r.Clients {
			pair, err := tls.X509KeyPair([]byte(k.Certificate), []byte(k.Key.RevealSecret()))
			if err != nil {
				return nil, err
			}
			c.Certificates = append(c.Certificates, pair)
		}
	}
	return c, nil
}
