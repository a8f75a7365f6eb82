package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Free is the room for the user on the disk that holds path, in bytes: GetDiskFreeSpaceEx.
func Free(path string) (int64, error) {
	dir := path
	if st, err := os.Stat(path); err == nil && !st.IsDir() {
		dir = filepath.Dir(path) // it takes folders only
	}
	p, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, fmt.Errorf("ask for the room at %s: %w", path, err)
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(p, &free, nil, nil); err != nil {
		return 0, fmt.Errorf("ask for the room at %s: %w", path, err)
	}
	return int64(free), nil
}

func full(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

func tooLarge(err error) bool { return errors.Is(err, windows.ERROR_FILE_TOO_LARGE) }

// makeSparse lets NTFS leave holes; without it a file takes its whole size at once: FSCTL_SET_SPARSE. A
// file system that has no holes, such as exFAT, refuses, and the disk is then as large as it says.
func makeSparse(f *os.File) error {
	var n uint32
	err := windows.DeviceIoControl(windows.Handle(f.Fd()), windows.FSCTL_SET_SPARSE, nil, 0, nil, 0, &n, nil)
	if errors.Is(err, windows.ERROR_INVALID_FUNCTION) || errors.Is(err, windows.ERROR_NOT_SUPPORTED) {
		return nil
	}
	return err
}

var getCompressedFileSize = windows.NewLazySystemDLL("kernel32.dll").NewProc("GetCompressedFileSizeW")

// allocated is what a sparse file takes: GetCompressedFileSize. If that cannot be had it is the size.
func allocated(path string, st fs.FileInfo) int64 {
	p, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return st.Size()
	}
	var high uint32
	low, _, err := getCompressedFileSize.Call(uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&high)))
	// INVALID_FILE_SIZE is also the lower half of some sizes; then there is no error.
	if uint32(low) == 0xffffffff && !errors.Is(err, windows.ERROR_SUCCESS) {
		return st.Size()
	}
	return int64(high)<<32 | int64(uint32(low))
}
