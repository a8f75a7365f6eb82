//go:build linux

package boot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/covedesk/cove/guestd/internal/reap"
	"golang.org/x/sys/unix"
)

// DataLabel is the label of a data disk of ours.
const DataLabel = "cove-data"

// Content is what a disk holds, as far as it matters to us.
type Content int

const (
	Blank Content = iota // nothing at all: it may be formatted
	Ours                 // an ext4 file system with our label
	Alien                // anything else: it is not touched
)

// AlienError says that the data disk holds something that is not ours.
type AlienError struct{ Found string }

func (e *AlienError) Error() string {
	return "the data disk holds " + e.Found + ", not data of Cove; it was left as it is"
}

// Places of the ext4 superblock: kernel, Documentation/filesystems/ext4/super.rst.
const (
	superblock = 1024
	superMagic = superblock + 0x38
	superState = superblock + 0x3a
	superLabel = superblock + 0x78
	ext4Magic  = 0xef53
	stateError = 2
)

// Look says what a disk of size bytes holds. Only zeros count as blank: the first and last MiB and a
// sample of what lies between.
func Look(disk io.ReaderAt, size int64) (content Content, found string, errors bool, err error) {
	const span = 1 << 20
	head := make([]byte, min(span, size))
	if _, err := disk.ReadAt(head, 0); err != nil && err != io.EOF {
		return Alien, "", false, err
	}
	if len(head) >= superLabel+16 && binary.LittleEndian.Uint16(head[superMagic:]) == ext4Magic {
		label, _, _ := bytes.Cut(head[superLabel:superLabel+16], []byte{0})
		if string(label) != DataLabel {
			return Alien, fmt.Sprintf("an ext file system with the label %q", label), false, nil
		}
		return Ours, "", binary.LittleEndian.Uint16(head[superState:])&stateError != 0, nil
	}
	if !zero(head) {
		return Alien, describe(head), false, nil
	}
	const samples = 64
	piece := make([]byte, 64<<10)
	for i := range int64(samples + 1) {
		at := (size - int64(len(piece))) / samples * i
		if at < 0 {
			break
		}
		if i == samples {
			at = size - int64(len(piece))
		}
		if _, err := disk.ReadAt(piece, at); err != nil && err != io.EOF {
			return Alien, "", false, err
		}
		if !zero(piece) {
			return Alien, fmt.Sprintf("data at byte %d and no file system that we know", at), false, nil
		}
	}
	return Blank, "", false, nil
}

func zero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// describe names what people are likely to put there by mistake.
func describe(head []byte) string {
	for _, s := range []struct {
		at    int
		magic string
		name  string
	}{
		{0, "LUKS\xba\xbe", "an encrypted (LUKS) volume"}, {0, "XFSB", "an XFS file system"}, {0x10040, "_BHRfS_M", "a btrfs file system"},
		{0, "QFI\xfb", "a qcow2 disk image"}, {512, "EFI PART", "a partition table (GPT)"}, {3, "NTFS", "an NTFS file system"}, {510, "\x55\xaa", "a boot sector or a partition table"},
		{1024, "\xe2\xe1\xf5\xe0", "an erofs file system"},
	} {
		if len(head) > s.at+len(s.magic) && string(head[s.at:s.at+len(s.magic)]) == s.magic {
			return s.name
		}
	}
	return "something that we do not know"
}

// DataDisk makes sure that dev is a file system of ours and mounts it at target. A blank one is
// formatted; one that holds anything else is an *AlienError and is never opened for writing.
func DataDisk(r *reap.Reaper, dev, target string) error {
	f, err := os.Open(dev)
	if err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return err
	}
	content, found, faulty, err := Look(f, size)
	f.Close()
	if err != nil {
		return fmt.Errorf("read the data disk: %w", err)
	}
	switch content {
	case Alien:
		return &AlienError{found}
	case Blank:
		// Tables are initialised later by the kernel; the host's file is sparse and stays so.
		format := exec.Command("mkfs.ext4", "-q", "-F", "-L", DataLabel, "-m", "1", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", dev)
		if _, err := r.Run(format); err != nil {
			return fmt.Errorf("format the data disk: %w", err)
		}
	}
	if faulty {
		if err := check(r, dev); err != nil {
			return err
		}
	}
	err = mountData(dev, target)
	if err != nil && content == Ours && !faulty {
		if cerr := check(r, dev); cerr != nil {
			return cerr
		}
		err = mountData(dev, target)
	}
	return err
}

// check repairs what can be repaired with nobody asked.
func check(r *reap.Reaper, dev string) error {
	// Status 1 and 2 say that errors were corrected: e2fsck(8).
	out, err := r.Run(exec.Command("sh", "-c", `e2fsck -p "$1"; [ $? -le 2 ]`, "check", dev))
	if err != nil {
		return fmt.Errorf("the data disk is damaged and cannot be repaired automatically: %s", out)
	}
	return nil
}

func mountData(dev, target string) error {
	if err := unix.Mount(dev, target, "ext4", unix.MS_NOATIME, "discard"); err != nil {
		return fmt.Errorf("mount the data disk: %w", err)
	}
	return nil
}

// DataFolders are what the engine and the links of the root expect on the data disk.
func DataFolders() error {
	for _, dir := range []string{"/var/lib/docker", "/var/lib/containerd", "/var/lib/cove/cni", "/var/log/cove", "/var/tmp", "/var/cache"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for link, to := range map[string]string{"/var/run": "/run", "/var/lock": "/run/lock"} {
		if err := os.Symlink(to, link); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return os.Chmod("/var/log/cove", 0o700)
}
