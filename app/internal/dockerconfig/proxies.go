package dockerconfig

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/moby/sys/atomicwriter"
)

// Proxies are the variables that docker, buildx and compose set in what they run and build, by the name of
// the engine that they speak to (docker CLI, cli/config/configfile/file.go, ParseProxyConfig). The URLs may
// hold passwords.
type Proxies struct {
	HTTP  string `json:"httpProxy,omitempty"`
	HTTPS string `json:"httpsProxy,omitempty"`
	No    string `json:"noProxy,omitempty"`
}

// ErrForeign says that somebody else set the engine's proxies.
var ErrForeign = errors.New("they were left alone")

// ErrReadable says that others can read docker's settings, so that no password is put there.
var ErrReadable = errors.New("other users can read it")

const proxiesKey = "proxies"

// SetProxies sets the proxies of the engine at host in docker's settings, or with nil takes away what it
// set. An entry that somebody else made or changed is left alone, which is ErrForeign when one was to be set.
// The memo tells ours by its digest, so that the password is not in a second file.
func (d Docker) SetProxies(host string, want *Proxies, memo string) error {
	known, err := os.ReadFile(memo)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read which proxies are ours: %w", err)
	}
	if want == nil {
		if known == nil {
			return nil // and config.json need not be readable for that
		}
		err := d.Change(func(c *Config) error {
			there, err := c.Entry(proxiesKey, host)
			if err != nil || there == nil || strings.TrimSpace(string(known)) != digest(there) {
				return err
			}
			return c.DeleteEntry(proxiesKey, host)
		})
		if err != nil {
			return err
		}
		return ignoreNone(os.Remove(memo))
	}
	raw, err := json.Marshal(want)
	if err != nil {
		return err
	}
	return d.Change(func(c *Config) error {
		there, err := c.Entry(proxiesKey, host)
		if err != nil || string(there) == string(raw) {
			return err
		}
		if there != nil && strings.TrimSpace(string(known)) != digest(there) {
			return fmt.Errorf("docker's settings have proxies of their own for %s: %w", host, ErrForeign)
		}
		if strings.Contains(want.HTTP+want.HTTPS, "@") {
			if open, err := d.OpenToOthers(); err == nil && open {
				return fmt.Errorf("put the proxy's password into docker's settings, %s: %w", d.Path(), ErrReadable)
			}
		}
		// The memo first: an entry without one would stay for ever.
		if err := atomicwriter.WriteFile(memo, []byte(digest(raw)+"\n"), 0o600); err != nil {
			return fmt.Errorf("keep which proxies are ours: %w", err)
		}
		known = []byte(digest(raw))
		return c.SetEntry(proxiesKey, host, raw)
	})
}

func digest(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}
