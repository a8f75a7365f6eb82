//go:build linux

package logs

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
)

// The engine writes URLs into its errors as they are: with the signature by which a registry's store gives a
// layer to whoever has it, and with a login. Logs are shown, kept on the data disk, and sent to others.

// hidden stands for what was there, as net/url has it.
const hidden = "xxxxx"

var (
	// A slash may be escaped, as in JSON.
	web = regexp.MustCompile(`(?i)\b[a-z][a-z0-9+.-]*:\\?/\\?/[^\s"'<>]+`)
	// The password goes up to the last at sign, as one in it need not be encoded. A user alone may be a token.
	login = regexp.MustCompile(`^([^:]*:\\?/\\?/)([^/?#:@]*)(:?)[^/?#]*@`)
	// In JSON the sign between two may be escaped. A colon and a space after a URL are the sentence's.
	parameter = regexp.MustCompile(`(\?|&|\\u0026)([^=&\\]+)=((?:[^&\\:]|:.)*)`)
)

// open are the names of parameters that tell what was asked for, by registries' and the engine's own protocols.
var open = []string{"account", "client_id", "digest", "from", "fromimage", "mount", "n", "ns", "offline_token", "scope", "service", "tag"}

// hide takes secrets of URLs out of whole lines.
func hide(lines []byte) []byte {
	if !bytes.Contains(lines, []byte(":/")) && !bytes.Contains(lines, []byte(`:\/`)) {
		return lines
	}
	return web.ReplaceAllFunc(lines, func(url []byte) []byte {
		url = login.ReplaceAllFunc(url, func(u []byte) []byte {
			m := login.FindSubmatch(u)
			if len(m[3]) == 0 {
				return slices.Concat(m[1], []byte(hidden), []byte("@"))
			}
			return slices.Concat(m[1], m[2], []byte(":"+hidden+"@"))
		})
		return parameter.ReplaceAllFunc(url, func(p []byte) []byte {
			m := parameter.FindSubmatch(p)
			if len(m[3]) == 0 || slices.Contains(open, strings.ToLower(string(m[2]))) {
				return p
			}
			return slices.Concat(m[1], m[2], []byte("="+hidden))
		})
	})
}
