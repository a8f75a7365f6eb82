package dockerconfig

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// tryLock opens a file that nobody else may have open, and that goes when it is closed.
func tryLock(dir string) (unlock func(), taken bool, err error) {
	name, err := windows.UTF16PtrFromString(filepath.Join(dir, ".cove-lock"))
	if err != nil {
		return nil, false, err
	}
	h, err := windows.CreateFile(name, windows.GENERIC_WRITE|windows.DELETE, 0, nil, windows.OPEN_ALWAYS, windows.FILE_FLAG_DELETE_ON_CLOSE, 0)
	switch err {
	case nil:
		return func() { windows.CloseHandle(h) }, false, nil
	case windows.ERROR_SHARING_VIOLATION, windows.ERROR_ACCESS_DENIED, windows.ERROR_DELETE_PENDING:
		return nil, true, nil
	}
	return nil, false, err
}

// keepOwner has nothing to do on Windows: a new file has the folder's owner.
func keepOwner(string, os.FileInfo) error { return nil }

// OpenToOthers is not asked on Windows: the user's profile is the user's.
func (d Docker) OpenToOthers() (bool, error) { return false, nil }
