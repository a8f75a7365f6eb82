package imagetrust

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxFiles = 1 << 16 // in an archive
	maxRead  = 1024    // manifests of a layout that are read to find those that refer to an image

	// What `docker save` (containerd) and `cosign save` write into index.json.
	annotationName  = "io.containerd.image.name"
	annotationKind  = "kind"
	kindOfSignature = "dev.cosignproject.cosign/sigs"
)

// layout is an OCI image layout: a folder, or an archive of one.
type layout struct {
	open  func(name string) (io.ReadCloser, int64, error)
	close func()
	index ocispec.Index
	kinds map[digest.Digest]kind // of the manifests in the index
}

// kind is what a manifest is, by itself.
type kind struct {
	subject  digest.Digest
	artifact string
}

var _ source = (*layout)(nil)

// openLayout opens a folder or an archive that is not compressed. Links do not lead out of it.
func openLayout(file string) (*layout, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	l := &layout{}
	if st.IsDir() {
		root, err := os.OpenRoot(file)
		if err != nil {
			return nil, err
		}
		l.open, l.close = inFolder(root), func() { root.Close() }
	} else if l.open, l.close, err = inArchive(file); err != nil {
		return nil, err
	}
	if err := l.read(); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func inFolder(root *os.Root) func(string) (io.ReadCloser, int64, error) {
	return func(name string) (io.ReadCloser, int64, error) {
		f, err := root.Open(name)
		if err != nil {
			return nil, 0, err
		}
		st, err := f.Stat()
		if err == nil && !st.Mode().IsRegular() {
			err = fmt.Errorf("%w: %s is no file", errMalformed, name)
		}
		if err != nil {
			f.Close()
			return nil, 0, err
		}
		return f, st.Size(), nil
	}
}

func inArchive(file string) (func(string) (io.ReadCloser, int64, error), func(), error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, err
	}
	type part struct{ at, size int64 }
	parts := map[string]part{}
	// tar reads no further than to the next file's first byte, so that the position is that file's.
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		var at int64
		if err == nil {
			at, err = f.Seek(0, io.SeekCurrent)
		}
		if err == nil && len(parts) == maxFiles {
			err = errors.New("too many files")
		}
		if err != nil {
			f.Close()
			return nil, nil, fmt.Errorf("%w: it is no archive (%v)", errMalformed, err)
		}
		name := path.Clean(h.Name)
		if _, twice := parts[name]; h.Typeflag == tar.TypeReg && !twice {
			parts[name] = part{at, h.Size}
		}
	}
	return func(name string) (io.ReadCloser, int64, error) {
		p, is := parts[name]
		if !is {
			return nil, 0, fs.ErrNotExist
		}
		return io.NopCloser(io.NewSectionReader(f, p.at, p.size)), p.size, nil
	}, func() { f.Close() }, nil
}

// read reads the index, and what the manifests in it refer to.
func (l *layout) read() error {
	r, size, err := l.open("index.json")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: it has no index.json, and so is no OCI layout", errMalformed)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	if size > maxManifest {
		return fmt.Errorf("%w: its index.json has %d bytes", errMalformed, size)
	}
	b, err := io.ReadAll(io.LimitReader(r, maxManifest))
	if err != nil {
		return err
	}
	if json.Unmarshal(b, &l.index) != nil {
		return fmt.Errorf("%w: its index.json is no JSON", errMalformed)
	}
	l.kinds = map[digest.Digest]kind{}
	for _, d := range l.index.Manifests {
		if len(l.kinds) == maxRead {
			break
		}
		b, err := l.fetch(context.Background(), d, maxManifest)
		var m ocispec.Manifest
		if err != nil || json.Unmarshal(b, &m) != nil {
			continue // whoever needs it finds out
		}
		k := kind{artifact: m.ArtifactType}
		if k.artifact == "" {
			k.artifact = m.Config.MediaType
		}
		if m.Subject != nil {
			k.subject = m.Subject.Digest
		}
		l.kinds[d.Digest] = k
	}
	return nil
}

// images are what there is beside signatures.
func (l *layout) images() []ocispec.Descriptor {
	var out []ocispec.Descriptor
	for _, d := range l.index.Manifests {
		_, tag := fromTag(d.Annotations[ocispec.AnnotationRefName])
		k := d.Annotations[annotationKind]
		if !tag && l.kinds[d.Digest].subject == "" && (k == "" || k == "dev.cosignproject.cosign/image" || k == "dev.cosignproject.cosign/imageIndex") {
			out = append(out, d)
		}
	}
	return out
}

// pick is the image of a name; without one it is the only image that there is, by the name that the layout
// has for it.
func (l *layout) pick(want reference.Named) (ocispec.Descriptor, reference.Named, error) {
	all := l.images()
	var names []string
	for _, d := range all {
		n, err := reference.ParseNormalizedNamed(d.Annotations[annotationName])
		if err != nil {
			continue
		}
		if n = reference.TagNameOnly(n); want == nil && len(all) == 1 || want != nil && n.String() == want.String() {
			return d, n, nil
		}
		names = append(names, n.String())
	}
	switch t, is := want.(reference.Tagged); {
	case want == nil && len(all) == 0:
		return ocispec.Descriptor{}, nil, fmt.Errorf("%w: there is no image in it", errMalformed)
	case want == nil && len(all) > 1:
		return ocispec.Descriptor{}, nil, &choice{fmt.Sprintf("it has %d images", len(all)), names}
	case want == nil:
		return ocispec.Descriptor{}, nil, &choice{"its image has no name", nil}
	case len(names) == 0 && len(all) == 1: // no names at all, as other tools write layouts: the user's word for it
		return all[0], want, nil
	case is:
		for _, d := range all {
			if d.Annotations[annotationName] == "" && d.Annotations[ocispec.AnnotationRefName] == t.Tag() {
				return d, want, nil
			}
		}
	}
	return ocispec.Descriptor{}, nil, errAbsent
}

// choice says that the user has to say which image is meant.
type choice struct {
	why   string
	names []string
}

func (c *choice) Error() string { return c.why }

func (l *layout) resolve(_ context.Context, ref string) (ocispec.Descriptor, error) {
	for _, d := range l.index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] == ref || d.Digest.String() == ref {
			return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, nil
		}
	}
	// One of an index's is in no list but that index's.
	d := ocispec.Descriptor{Digest: digest.Digest(ref)}
	if d.Digest.Validate() != nil {
		return ocispec.Descriptor{}, errAbsent
	}
	r, size, err := l.blob(d.Digest)
	if err != nil {
		return d, err
	}
	defer r.Close()
	d.Size = size
	b, err := bytesOf(r, d, maxManifest)
	if err != nil {
		return d, err
	}
	var m struct {
		MediaType string `json:"mediaType"`
	}
	json.Unmarshal(b, &m) // without one it is an image's, as docker and OCI have it
	d.MediaType = m.MediaType
	return d, nil
}

func (l *layout) fetch(_ context.Context, d ocispec.Descriptor, most int64) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("%w: a digest in it is none", errMalformed)
	}
	r, _, err := l.blob(d.Digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return bytesOf(r, d, most)
}

func (l *layout) blob(d digest.Digest) (io.ReadCloser, int64, error) {
	r, size, err := l.open(path.Join("blobs", d.Algorithm().String(), d.Encoded()))
	if errors.Is(err, fs.ErrNotExist) {
		err = errAbsent
	}
	return r, size, err
}

func (l *layout) tagged(_ context.Context, image digest.Digest) ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	for _, d := range l.index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] == signatureTag(image) || d.Annotations[annotationKind] == kindOfSignature {
			out = append(out, d)
		}
	}
	return out, nil
}

func (l *layout) referrers(_ context.Context, image ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	for _, d := range l.index.Manifests {
		if k := l.kinds[d.Digest]; k.subject == image.Digest && signatureManifest(k.artifact) {
			out = append(out, d)
		}
	}
	return out, nil
}

func (l *layout) signed(_ context.Context, most int) []digest.Digest {
	var out []digest.Digest
	for _, d := range l.index.Manifests {
		s, is := fromTag(d.Annotations[ocispec.AnnotationRefName])
		if !is {
			s = l.kinds[d.Digest].subject
		}
		if s != "" && len(out) < most && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
