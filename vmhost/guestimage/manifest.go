package guestimage

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// ManifestFile is the name of the manifest in an image's folder.
const ManifestFile = "image.json"

// Schema is the version of the manifest's form.
const Schema = "cove.image/1"

// Names of an image's files.
const (
	KernelFile = "vmlinuz"
	InitrdFile = "initrd"
	RootFile   = "root.erofs"
)

// Info is an image's manifest.
type Info struct {
	Schema     string      `json:"schema"`
	Digest     string      `json:"digest"` // "sha256:" and the digest of the files' digests: see DigestOf
	Arch       string      `json:"arch"`   // GOARCH
	Kernel     string      `json:"kernel"` // what uname -r says
	Files      []File      `json:"files"`
	Components []Component `json:"components"`
	Packages   int         `json:"packages"`   // of the distribution
	Compressed int64       `json:"compressed"` // bytes of the image as it is distributed
}

// File is one file of an image.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// Component is a program in the image that people ask the version of.
type Component struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Source  string `json:"source"`           // a module's or a package's name
	Stands  string `json:"stands,omitempty"` // the release that the version stands for, where it is not one itself
}

// Size is the sum of the files' sizes in bytes.
func (i Info) Size() int64 {
	var n int64
	for _, f := range i.Files {
		n += f.Size
	}
	return n
}

// DigestOf is the digest of an image by its files' names and digests, whatever their order.
func DigestOf(files []File) string {
	lines := make([]string, len(files))
	for i, f := range files {
		lines[i] = fmt.Sprintf("%s  %s\n", f.SHA256, f.Name)
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return "sha256:" + hex.EncodeToString(sum[:])
}
