package trust

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os/exec"
)

// system gives the certificates of the keychain of the machine, where administrators and profiles put
// authorities (Apple's own are in another), that the system says it trusts. Not run yet: docs/untested.md.
func system() ([][]byte, error) {
	text, err := exec.Command("/usr/bin/security", "find-certificate", "-a", "-p", "/Library/Keychains/System.keychain").Output()
	if err != nil {
		return nil, fmt.Errorf("ask the keychain: %w", err)
	}
	var all [][]byte
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return all, nil
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || !c.IsCA {
			continue
		}
		if _, err := c.Verify(x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
			all = append(all, c.Raw)
		}
	}
}
