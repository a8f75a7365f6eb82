package share

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// hidden is a place of the host that the guest gets by no share: for it, the name is not there and cannot
// be made. The file is known by its number too, so that another name or a move on the host uncovers
// nothing.
type hidden struct {
	file   key
	parent key
	name   string
}

// hide finds a place that is to be hidden. One that does not exist yet is hidden by its name alone.
func (f *FS) hide(path string) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	h := hidden{name: filepath.Base(path)}
	if k, ok := keyAt(path); ok {
		h.file = k
	}
	if k, ok := keyAt(filepath.Dir(path)); ok {
		h.parent = k
	}
	f.hidden = append(f.hidden, h)
}

func keyAt(path string) (key, bool) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return key{}, false
	}
	defer unix.Close(fd)
	st, err := stat(fd)
	return keyOf(&st), err == nil
}

// hides says whether a name in a folder is hidden.
func (f *FS) hides(dir *node, name string) bool {
	for _, h := range f.hidden {
		if h.name == name && h.parent == dir.key {
			return true
		}
	}
	return false
}

// hidesFile says whether a file is hidden, whatever its name is.
func (f *FS) hidesFile(k key) bool {
	for _, h := range f.hidden {
		if h.file == k {
			return true
		}
	}
	return false
}
