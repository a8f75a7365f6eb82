package credhelper

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
)

// Folder is where the helper keeps its files: credentials/ in Cove's folder, which is what COVE_HOME
// names, ~/.cove, or %LOCALAPPDATA%\Cove on Windows. The helper stands alone, so it finds it by itself.
func Folder() (string, error) {
	home := os.Getenv("COVE_HOME")
	if home == "" {
		var err error
		if home, err = defaultHome(); err != nil {
			return "", err
		}
	}
	home, err := filepath.Abs(home)
	return filepath.Join(home, "credentials"), err
}

func defaultHome() (string, error) {
	if runtime.GOOS == "windows" {
		dir, err := os.UserCacheDir() // %LocalAppData%
		return filepath.Join(dir, "Cove"), err
	}
	dir, err := os.UserHomeDir()
	if err != nil { // a service without HOME still has a user
		u, e := user.Current()
		if e != nil || u.HomeDir == "" {
			return "", errors.Join(err, e)
		}
		dir = u.HomeDir
	}
	return filepath.Join(dir, ".cove"), nil
}
