// Package disk makes and grows the data disk: a sparse raw file, the one format that every hypervisor
// reads and none can be fooled about. A file of another format in its place is named and left alone.
package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/covedesk/cove/vmhost"
	"github.com/lima-vm/lima/v2/pkg/imgutil/nativeimgutil"
	"github.com/sirupsen/logrus"
)

// Change says what Ensure did.
type Change string

// What Ensure can do.
const (
	Created Change = "created"
	Grown   Change = "grown"
	Kept    Change = "kept"
)

// ErrNoSpace is wrapped in the *vmhost.Problem (ProblemNoDisk) for a file system without room.
var ErrNoSpace = errors.New("no space left for the disk")

// leastRoom is what a new data disk wants at the least: it is sparse, and the engine's first images and
// the file system's own tables come to about 2 GiB.
const leastRoom = 2 << 30

func init() {
	logrus.SetOutput(io.Discard) // lima's packages log there; what matters comes back as errors
}

// Ensure makes sure that there is a raw disk of at least size bytes at path, rounded up to whole sectors.
// A new one is sparse and the user's alone; a larger one is kept as it is, since shrinking would cut off
// data. What is no raw disk is a *vmhost.Problem and stays as it is.
func Ensure(ctx context.Context, path string, size int64) (Change, error) {
	var native nativeimgutil.NativeImageUtil
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := create(ctx, &native, path, size); err != nil {
			return "", explain(path, size, err)
		}
		return Created, nil
	case err != nil:
		return "", fmt.Errorf("look at the data disk: %w", err)
	case !st.Mode().IsRegular():
		return "", &vmhost.Problem{ID: vmhost.ProblemDataDisk, Summary: fmt.Sprintf("The data disk %s is not a plain file.", path), Remedy: "Move it away; a new disk is then made."}
	}
	if err := checkRaw(path); err != nil {
		return "", err
	}
	ours, err := isOurs(path)
	if err != nil {
		return "", err
	}
	if st.Size() >= size || !ours {
		return Kept, nil // an alien one the guest will name
	}
	if err := native.ResizeDisk(ctx, path, size); err != nil {
		return "", explain(path, size, err)
	}
	return Grown, nil
}

// create makes the file under another name first, so that there is never half of one.
func create(ctx context.Context, native *nativeimgutil.NativeImageUtil, path string, size int64) error {
	part, err := newPart(path)
	if err != nil {
		return err
	}
	defer os.Remove(part)
	if err := native.ResizeDisk(ctx, part, size); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// newPart makes an empty sparse file beside path, the user's alone from its first moment. What a crash
// left there before is removed.
func newPart(path string) (string, error) {
	part := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".part")
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return part, makeSparse(f)
}

// explain gives a failure to make or grow a disk the form that people need.
func explain(path string, size int64, err error) error {
	switch {
	case full(err):
		return noSpace(path, leastRoom, err)
	case tooLarge(err):
		return &vmhost.Problem{ID: vmhost.ProblemDataDisk,
			Summary: fmt.Sprintf("The file system of %s cannot hold one file of %d MiB.", filepath.Dir(path), mebibytes(size)),
			Remedy:  "Set disk to a smaller size, or data-folder to a folder on another file system.", Err: err}
	}
	return fmt.Errorf("make the data disk: %w", err)
}

// noSpace says what is free beside path, and that needed bytes are needed.
func noSpace(path string, needed int64, err error) error {
	dir := filepath.Dir(path)
	left := "too little is free"
	if free, err := Free(dir); err == nil {
		left = fmt.Sprintf("%d MiB are free", free>>20)
	}
	if err == nil {
		err = ErrNoSpace
	} else {
		err = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return &vmhost.Problem{ID: vmhost.ProblemNoDisk,
		Summary: fmt.Sprintf("There is no room for the data disk in %s: %s, and about %d MiB are needed.", dir, left, mebibytes(needed)),
		Remedy:  fmt.Sprintf("Free about %d MiB there, or set data-folder to a folder on another disk.", mebibytes(needed)), Err: err}
}

// mebibytes are rounded up: what is asked for has to be enough.
func mebibytes(n int64) int64 { return (n + 1<<20 - 1) >> 20 }

// foreign are the first bytes of other disk formats: QEMU block/qcow2.h, vmdk.c, vhdx.h, vdi.c (at 64), vpc.c.
var foreign = []struct {
	at   int
	text string
	name string
}{
	{0, "QFI\xfb", "qcow2"}, {0, "KDMV", "VMDK"}, {0, "COWD", "VMDK"}, {0, "# Disk Descriptor", "VMDK"}, {0, "vhdxfile", "VHDX"}, {0, "conectix", "VHD"}, {64, "\x7f\x10\xda\xbe", "VDI"}, {0, "shdw", "ASIF"},
}

// checkRaw refuses a file of another format. It looks at the first bytes alone: they may be the guest's
// work, and qemu-img would follow the names of other files in them.
func checkRaw(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("look at the data disk: %w", err)
	}
	defer f.Close()
	head := make([]byte, 128)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("look at the data disk: %w", err)
	}
	for _, k := range foreign {
		if n < k.at+len(k.text) || string(head[k.at:k.at+len(k.text)]) != k.text {
			continue
		}
		return &vmhost.Problem{ID: vmhost.ProblemDataDisk,
			Summary: fmt.Sprintf("The data disk %s is an image in the format %s, not a disk of Cove's; it was left as it is.", path, k.name),
			Remedy:  "Move it away; a new disk is then made. Or set data-folder to another folder."}
	}
	return nil
}

// label is the ext4 label of a data disk, which guestd gives it.
const label = "cove-data"

// isOurs says whether a disk is still blank or has our file system: kernel,
// Documentation/filesystems/ext4/super.rst.
func isOurs(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("look at the data disk: %w", err)
	}
	defer f.Close()
	head := make([]byte, 4096)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, fmt.Errorf("look at the data disk: %w", err)
	}
	if len(bytes.Trim(head[:n], "\x00")) == 0 {
		return true, nil
	}
	name, _, _ := bytes.Cut(head[0x478:0x488], []byte{0})
	return head[0x438] == 0x53 && head[0x439] == 0xef && string(name) == label, nil
}

// Usage is how large a disk is, in bytes.
type Usage struct {
	Size      int64 // what the guest sees
	Allocated int64 // what it takes on the host
}

// UsageOf looks at a disk.
func UsageOf(path string) (Usage, error) {
	st, err := os.Stat(path)
	if err != nil {
		return Usage{}, fmt.Errorf("look at the data disk: %w", err)
	}
	return Usage{Size: st.Size(), Allocated: allocated(path, st)}, nil
}
