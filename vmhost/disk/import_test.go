package disk

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/covedesk/cove/vmhost"
)

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("no qemu-img")
	}
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %v: %v: %s", args, err, out)
	}
}

// content is 8 MiB with 3 MiB of data in the middle.
func content() []byte {
	b := make([]byte, 8*mib)
	for i := range 3 * mib {
		b[2*mib+i] = byte(i*7 + i>>8 + 1)
	}
	return b
}

// source makes an image of the content in a format.
func source(t *testing.T, format string, options ...string) string {
	t.Helper()
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, content(), 0o644); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "image")
	qemuImg(t, append(append([]string{"convert", "-f", "raw", "-O", format}, options...), plain, path)...)
	return path
}

func TestImport(t *testing.T) {
	for _, c := range []struct {
		says    string
		format  string
		options []string
		asked   int64
		size    int64
	}{
		{"a qcow2 becomes raw", "qcow2", nil, 8 * mib, 8 * mib},
		{"a compressed qcow2 becomes raw", "qcow2", []string{"-c"}, 8 * mib, 8 * mib},
		{"a vmdk becomes raw", "vmdk", nil, 8 * mib, 8 * mib},
		{"a raw image is copied", "raw", nil, 8 * mib, 8 * mib},
		{"a smaller image grows", "qcow2", nil, 32 * mib, 32 * mib},
		{"a larger image stays", "qcow2", nil, 1 * mib, 8 * mib},
	} {
		src := source(t, c.format, c.options...)
		before, _ := os.ReadFile(src)
		dir := t.TempDir()
		dst := filepath.Join(dir, "data.raw")
		if err := Import(t.Context(), src, dst, c.asked); err != nil {
			t.Errorf("%s: Import = %v", c.says, err)
			continue
		}
		got, err := os.ReadFile(dst)
		if err != nil || int64(len(got)) != c.size || !bytes.HasPrefix(got, content()) {
			t.Errorf("%s: the disk has %d bytes, %v; want %d that begin with the image's", c.says, len(got), err, c.size)
		}
		if u, _ := UsageOf(dst); u.Allocated > 5*mib {
			t.Errorf("%s: the disk takes %d bytes and has 3 MiB of data", c.says, u.Allocated)
		}
		if st, _ := os.Stat(dst); runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
			t.Errorf("%s: its mode is %s", c.says, st.Mode())
		}
		if after, _ := os.ReadFile(src); !bytes.Equal(before, after) {
			t.Errorf("%s: the source changed", c.says)
		}
		alone(t, dir, "data.raw")
		if change, err := Ensure(t.Context(), dst, c.size); change != Kept || err != nil {
			t.Errorf("%s: Ensure of the import = %s, %v", c.says, change, err)
		}
	}
}

// Somebody hands the user an image that names another file of the user's, hoping that its bytes land in
// the VM.
func TestImportRefusesWhatLeadsElsewhere(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	write(t, secret, "the user's key", 8*mib)
	for _, c := range []struct {
		says string
		make func(path string)
	}{
		{"a qcow2 with a backing file", func(p string) { qemuImg(t, "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", p) }},
		{"a qcow2 with a backing file by a relative name", func(p string) { qemuImg(t, "create", "-q", "-f", "qcow2", "-b", "secret", "-F", "raw", p) }},
		{"a qcow2 whose data are in another file", func(p string) {
			qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "data_file="+secret+".data,data_file_raw=on", p, "8M")
			os.Remove(secret + ".data")
			os.Link(secret, secret+".data")
		}},
		{"a vmdk of several files", func(p string) { qemuImg(t, "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", p, "8M") }},
		{"a vmdk with a backing file", func(p string) {
			qemuImg(t, "create", "-q", "-f", "vmdk", filepath.Join(dir, "base.vmdk"), "8M")
			qemuImg(t, "create", "-q", "-f", "vmdk", "-b", filepath.Join(dir, "base.vmdk"), "-F", "vmdk", p)
		}},
		{"a vhdx, which is none of the formats", func(p string) { qemuImg(t, "create", "-q", "-f", "vhdx", p, "8M") }},
		{"a folder", func(p string) { os.Mkdir(p, 0o700) }},
		{"a qcow2 cut off after its first bytes", func(p string) { write(t, p, "QFI\xfb\x00\x00\x00\x03", 0) }},
		{"a raw image of another image, which would be taken for that", func(p string) {
			inner := filepath.Join(dir, "inner")
			qemuImg(t, "create", "-q", "-f", "qcow2", inner, "8M")
			qemuImg(t, "convert", "-f", "raw", "-O", "qcow2", inner, p)
		}},
	} {
		src := filepath.Join(dir, strings.ReplaceAll(c.says, " ", "-")+".img")
		c.make(src)
		to := t.TempDir()
		err := Import(t.Context(), src, filepath.Join(to, "data.raw"), 8*mib)
		if problem(t, err) != vmhost.ProblemDataDisk {
			t.Errorf("Import of %s = %v; want ProblemDataDisk", c.says, err)
		}
		alone(t, to)
	}
}

func TestImportNeverReplacesADisk(t *testing.T) {
	src := source(t, "qcow2")
	dst := filepath.Join(t.TempDir(), "data.raw")
	write(t, dst, "the user's data", 0)
	if err := Import(t.Context(), src, dst, 8*mib); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Import = %v; want fs.ErrExist", err)
	}
	if b, _ := os.ReadFile(dst); string(b) != "the user's data" {
		t.Errorf("the disk became %.20q", b)
	}
}

func TestImportOfNothing(t *testing.T) {
	dst := filepath.Join(t.TempDir(), "data.raw")
	if err := Import(t.Context(), dst+".none", dst, mib); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Import = %v; want fs.ErrNotExist", err)
	}
}

func TestImportEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	if err := Import(ended(), source(t, "qcow2"), filepath.Join(dir, "data.raw"), 8*mib); !errors.Is(err, context.Canceled) {
		t.Errorf("Import = %v; want context.Canceled", err)
	}
	alone(t, dir)
}

func TestImportWithoutQEMU(t *testing.T) {
	src := filepath.Join(t.TempDir(), "image")
	write(t, src, "", mib)
	t.Setenv("PATH", t.TempDir())
	if err := Import(t.Context(), src, src+".raw", mib); problem(t, err) != vmhost.ProblemNoHypervisor {
		t.Errorf("Import = %v; want ProblemNoHypervisor", err)
	}
}

// Whoever runs coved sees nothing of lima's own words.
func TestNothingIsPrinted(t *testing.T) {
	src := source(t, "vmdk") // lima warns of every format but its own
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, errOut := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = w, w
	err = Import(t.Context(), src, src+".raw", 8*mib)
	os.Stdout, os.Stderr = out, errOut
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	said.ReadFrom(r)
	if said.Len() > 0 {
		t.Errorf("Import prints %q", &said)
	}
}
