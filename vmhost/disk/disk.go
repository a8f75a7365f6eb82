// Package disk makes and grows the data disk: a sparse raw file, the one format that every hypervisor
// reads and none can be fooled about. A file of another format in its place is named and left alone.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/covedesk/cove/vmhost"
	"github.com/lima-vm/lima/v2/pkg/imgutil/nativeimgutil"
	"github.com/lima-vm/lima/v2/pkg/qemuimgutil"
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

func init() {
	logrus.SetOutput(io.Discard) // lima's packages log there; what matters comes back as errors
}

// Ensure makes sure that there is a raw disk of at least size bytes at path. A new one is sparse and the
// user's alone; a larger one is kept as it is, since shrinking would cut off data.
func Ensure(ctx context.Context, path string, size int64) (Change, error) {
	var native nativeimgutil.NativeImageUtil
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := create(ctx, &native, path, size); err != nil {
			return "", explain(path, err)
		}
		return Created, nil
	case err != nil:
		return "", fmt.Errorf("look at the data disk: %w", err)
	case !st.Mode().IsRegular():
		return "", &vmhost.Problem{ID: vmhost.ProblemDataDisk, Summary: fmt.Sprintf("The data disk %s is not a plain file.", path), Remedy: "Move it away; a new disk is then made."}
	}
	if err := checkRaw(ctx, path); err != nil {
		return "", err
	}
	if st.Size() >= size {
		return Kept, nil
	}
	if err := native.ResizeDisk(ctx, path, size); err != nil {
		return "", explain(path, err)
	}
	return Grown, nil
}

// create makes the file under another name first, so that there is never half of one.
func create(ctx context.Context, native *nativeimgutil.NativeImageUtil, path string, size int64) error {
	part := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".part")
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	defer os.Remove(part)
	if err := native.CreateDisk(ctx, part, size); err != nil {
		return err
	}
	if err := os.Chmod(part, 0o600); err != nil {
		return err
	}
	return os.Rename(part, path)
}

func explain(path string, err error) error {
	if full(err) {
		return &vmhost.Problem{ID: vmhost.ProblemNoDisk, Summary: fmt.Sprintf("There is no room for the data disk at %s.", path), Remedy: "Free about 2 GiB there, or set data-folder to a folder on another disk.", Err: err}
	}
	return fmt.Errorf("make the data disk: %w", err)
}

// foreign are the first bytes of other disk formats: QEMU block/qcow2.h, vmdk.c, vhdx.h, vdi.c (at 64), vpc.c.
var foreign = []struct {
	at   int
	text string
	name string
}{
	{0, "QFI\xfb", "qcow2"}, {0, "KDMV", "VMDK"}, {0, "# Disk Descriptor", "VMDK"}, {0, "vhdxfile", "VHDX"}, {0, "conectix", "VHD"}, {64, "\x7f\x10\xda\xbe", "VDI"}, {0, "shdw", "ASIF"},
}

// checkRaw refuses a file of another format, and says of it what qemu-img knows.
func checkRaw(ctx context.Context, path string) error {
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
		what := "an image in the format " + k.name
		if info, err := qemuimgutil.GetInfo(ctx, path); err == nil {
			what = fmt.Sprintf("an image in the format %s of %d MiB", info.Format, info.VSize>>20)
			if err := qemuimgutil.AcceptableAsBaseDisk(info); err != nil {
				what += ", which names other files"
			}
		}
		return &vmhost.Problem{ID: vmhost.ProblemDataDisk,
			Summary: fmt.Sprintf("The data disk %s is %s, not a disk of Cove's; it was left as it is.", path, what),
			Remedy:  "Move it away; a new disk is then made. Or set data-folder to another folder."}
	}
	return nil
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
