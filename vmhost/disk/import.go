package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/covedesk/cove/vmhost"
	"github.com/lima-vm/lima/v2/pkg/imgutil/nativeimgutil"
	"github.com/lima-vm/lima/v2/pkg/qemuimgutil"
)

// importable are the formats that Import reads, as qemu-img names them.
var importable = []string{"qcow2", "vmdk", "raw"}

// Import makes a raw disk at dst of the image at src, of at least size bytes: smaller ones grow, larger
// ones stay. It reads qcow2, vmdk and raw by qemu-img; an image that leads to other files is refused,
// because they could be any of the user's. The source is only read. dst must not exist (fs.ErrExist), and
// appears when it is whole.
func Import(ctx context.Context, src, dst string, size int64) error {
	// As absolute paths neither is taken for one of QEMU's protocols, such as nbd: or json:.
	src, err := filepath.Abs(src)
	if err == nil {
		dst, err = filepath.Abs(dst)
	}
	if err != nil {
		return fmt.Errorf("import a disk: %w", err)
	}
	if err := vacant(dst); err != nil {
		return err
	}
	if err := inspect(ctx, src); err != nil {
		return err
	}
	needed, err := dataIn(ctx, src)
	if err != nil {
		return fmt.Errorf("import the disk %s: %w", src, err)
	}
	if free, err := Free(filepath.Dir(dst)); err == nil && free < needed {
		return noSpace(dst, needed, nil)
	}
	return convert(ctx, src, dst, size, needed)
}

func vacant(dst string) error {
	_, err := os.Lstat(dst)
	switch {
	case err == nil:
		return fmt.Errorf("import a disk to %s: %w", dst, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("import a disk to %s: %w", dst, err)
	}
	return nil
}

// inspect refuses what is no image, and what leads to other files.
func inspect(ctx context.Context, src string) error {
	st, err := os.Stat(src)
	if err != nil {
		return fmt.Errorf("import the disk %s: %w", src, err)
	}
	refuse := func(why string, err error) error {
		return &vmhost.Problem{ID: vmhost.ProblemDataDisk, Summary: fmt.Sprintf("The disk %s cannot be imported: %s.", src, why),
			Remedy: "Give a qcow2, vmdk or raw image that is one file; `qemu-img convert` makes one.", Err: err}
	}
	if !st.Mode().IsRegular() {
		return refuse("it is not a plain file", nil)
	}
	info, err := qemuimgutil.GetInfo(ctx, src)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("import the disk %s: %w", src, ctx.Err())
	case errors.Is(err, exec.ErrNotFound):
		return &vmhost.Problem{ID: vmhost.ProblemNoHypervisor, Summary: "qemu-img, which reads foreign disks, is not installed.", Remedy: "Install QEMU's tools, then import again.", Err: err}
	case err != nil:
		return refuse("qemu-img cannot read it", err)
	case !slices.Contains(importable, info.Format):
		return refuse("its format is "+info.Format, nil)
	}
	if err := qemuimgutil.AcceptableAsBaseDisk(info); err != nil {
		return refuse("it leads to other files", err)
	}
	if name := dataFile(info); name != "" {
		return refuse("it leads to other files", fmt.Errorf("its data are in %q", name))
	}
	return nil
}

// dataFile is where a qcow2 keeps its data if not in itself. QEMU 10 does not list that file among the
// image's children, so AcceptableAsBaseDisk lets it pass.
func dataFile(info *qemuimgutil.Info) string {
	if info.FormatSpecific == nil {
		return ""
	}
	var q struct {
		DataFile string `json:"data-file"`
	}
	json.Unmarshal(info.FormatSpecific.Data, &q) // it has been read once already
	return q.DataFile
}

// dataIn is how many bytes of an image are data: what its sparse copy takes.
func dataIn(ctx context.Context, src string) (int64, error) {
	cmd := exec.CommandContext(ctx, "qemu-img", "map", "--output=json", src)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // not the passwords that are in ours
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err != nil {
		return 0, fmt.Errorf("measure it: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	var extents []struct {
		Length int64 `json:"length"`
		Data   bool  `json:"data"`
		Zero   bool  `json:"zero"`
	}
	if err := json.Unmarshal(out, &extents); err != nil {
		return 0, fmt.Errorf("measure it: %w", err)
	}
	total := int64(0)
	for _, e := range extents {
		if e.Data && !e.Zero {
			total += e.Length
		}
	}
	return total, nil
}

func convert(ctx context.Context, src, dst string, size, needed int64) error {
	wrap := func(err error) error {
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case full(err) || strings.Contains(err.Error(), "No space left on device"): // qemu-img's words
			return noSpace(dst, needed, err)
		case tooLarge(err):
			return explain(dst, size, err)
		}
		return fmt.Errorf("import the disk %s: %w", src, err)
	}
	// qemu-img keeps the mode of a file that is there.
	part, err := newPart(dst)
	if err != nil {
		return wrap(err)
	}
	defer os.Remove(part)
	var qemu qemuimgutil.QemuImageUtil
	if err := qemu.Convert(ctx, "raw", src, part, nil, false); err != nil {
		return wrap(err)
	}
	st, err := os.Stat(part)
	if err != nil {
		return wrap(err)
	}
	if st.Size() < size {
		var native nativeimgutil.NativeImageUtil
		if err := native.ResizeDisk(ctx, part, size); err != nil {
			return wrap(err)
		}
	}
	// An image can hold another one, which as a raw file would be taken for what it holds.
	if err := checkRaw(part); err != nil {
		return fmt.Errorf("import the disk %s: %w", src, err)
	}
	if err := flush(part); err != nil {
		return wrap(err)
	}
	if err := vacant(dst); err != nil { // it took a while
		return err
	}
	if err := os.Rename(part, dst); err != nil {
		return wrap(err)
	}
	return nil
}

// flush puts a file's data on the disk before its name promises them: fsync(2).
func flush(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = f.Sync()
	return errors.Join(err, f.Close())
}
