package trust

import (
	"bytes"
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

// system gives the certificates of the store ROOT, as this user sees it: those of administrators and
// policies, and Microsoft's. Not run yet: docs/untested.md.
func system() ([][]byte, error) {
	name, err := windows.UTF16PtrFromString("ROOT")
	if err != nil {
		return nil, err
	}
	store, err := windows.CertOpenSystemStore(0, name)
	if err != nil {
		return nil, fmt.Errorf("open the store ROOT: %w", err)
	}
	defer windows.CertCloseStore(store, 0)
	var all [][]byte
	var c *windows.CertContext
	for {
		if c, err = windows.CertEnumCertificatesInStore(store, c); err != nil {
			return all, nil // there are no more: CRYPT_E_NOT_FOUND
		}
		all = append(all, bytes.Clone(unsafe.Slice(c.EncodedCert, c.Length)))
	}
}
