package dockercontext

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/moby/sys/atomicwriter"
	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"
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

// SetProxies sets the proxies of the engine at host in docker's settings, or with nil takes away what it
// set. An entry that somebody else made or changed is left alone, which is ErrForeign when one was to be set.
// The memo tells ours by its digest, so that the password is not in a second file.
func SetProxies(dir, host string, want *Proxies, memo string) error {
	configLock.Lock()
	defer configLock.Unlock()
	config, err := readConfig(dir)
	if err != nil {
		return err
	}
	path := "proxies." + escape(host)
	there := gjson.GetBytes(config, path)
	known, err := os.ReadFile(memo)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read which proxies are ours: %w", err)
	}
	ours := there.Exists() && strings.TrimSpace(string(known)) == digest(there.Raw)
	switch {
	case want == nil && !ours:
		return forget(memo)
	case want == nil:
		if err := edit(dir, config, func(b []byte) ([]byte, error) { return withoutProxies(b, path) }); err != nil {
			return err
		}
		return forget(memo)
	case there.Exists() && !ours:
		return fmt.Errorf("docker's settings have proxies of their own for %s: %w", host, ErrForeign)
	}
	raw, err := json.Marshal(want)
	if err != nil || string(raw) == there.Raw {
		return err
	}
	if strings.Contains(want.HTTP+want.HTTPS, "@") {
		if st, err := os.Stat(filepath.Join(dir, "config.json")); err == nil && st.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
			return fmt.Errorf("put the proxy's password into docker's settings, %s: %w", filepath.Join(dir, "config.json"), ErrReadable)
		}
	}
	// The memo first: an entry without one would stay for ever.
	if err := atomicwriter.WriteFile(memo, []byte(digest(string(raw))+"\n"), 0o600); err != nil {
		return fmt.Errorf("keep which proxies are ours: %w", err)
	}
	return edit(dir, config, func(b []byte) ([]byte, error) { return sjson.SetRawBytes(b, path, raw) })
}

// withoutProxies takes an entry away, and the list with the last one.
func withoutProxies(config []byte, path string) ([]byte, error) {
	out, err := sjson.DeleteBytes(config, path)
	if err == nil && len(gjson.GetBytes(out, "proxies").Map()) == 0 {
		out, err = sjson.DeleteBytes(out, "proxies")
	}
	return out, err
}

// edit changes config.json and no byte behind its object, which sjson drops.
func edit(dir string, config []byte, change func([]byte) ([]byte, error)) error {
	object := bytes.TrimRight(config, " \t\r\n")
	tail := config[len(object):]
	out, err := change(object)
	if err != nil {
		return err
	}
	return replace(dir, append(bytes.Clone(out), tail...))
}

func forget(memo string) error {
	if err := os.Remove(memo); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func digest(raw string) string {
	sum := sha256.Sum256([]byte(raw))
	return hex.EncodeToString(sum[:])
}

// escape makes a key one part of gjson's and sjson's paths.
func escape(key string) string {
	var b strings.Builder
	for _, r := range key {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9') {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
