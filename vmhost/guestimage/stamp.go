package guestimage

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// stampFile lies in an installed image's folder and spares a later start the reading of files that
// have not changed since they were verified. It saves time, not trust: whoever can write it can
// write the user's programs too.
const stampFile = ".verified"

// stamp is, per file name, the identity of the file that was verified and the digest that it had.
type stamp map[string]string

func readStamp(dir string) stamp {
	var s stamp
	b, err := os.ReadFile(filepath.Join(dir, stampFile))
	if err != nil || json.Unmarshal(b, &s) != nil {
		return nil
	}
	return s
}

func writeStamp(dir string, files []File) error {
	s := stamp{}
	for _, f := range files {
		st, err := os.Stat(filepath.Join(dir, f.Name))
		if err != nil {
			return fmt.Errorf("install image: %w", err)
		}
		s[f.Name] = identity(st) + f.SHA256
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, stampFile), b, 0o600)
}

// identity changes when a file is written, replaced or touched.
func identity(st os.FileInfo) string {
	return fmt.Sprintf("%d.%d.%s.", st.Size(), st.ModTime().UnixNano(), inode(st))
}
