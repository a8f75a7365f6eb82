package settings

import (
	"errors"
	"regexp"

	"github.com/covedesk/cove/app/internal/hostproxy"
)

// hidden stands for a password in what is shown, as net/url has it.
const hidden = "xxxxx"

// login is the user and the password of a URL, wherever it stands, such as in the engine's settings, whose
// JSON may escape a slash.
var login = regexp.MustCompile(`(:\\?/\\?/[^:/?#\s"]*):[^\s"]*@`)

// privateKey is one in PEM, also where JSON has escaped its lines, or where its end is missing.
var privateKey = regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|$)`)

// show is a value for people, programs and logs: without the passwords that it holds, and
// without a private key, which people may give where a public one is asked for.
func (k key) show(value string) string {
	value = privateKey.ReplaceAllString(value, "[secret]")
	if k.kind != "url" {
		return login.ReplaceAllString(value, "$1:"+hidden+"@")
	}
	u, err := hostproxy.Parse(value)
	if err != nil {
		return "[secret]" // nobody knows where its password would be
	}
	return u.String()
}

// proxyURL checks a proxy's URL and gives its usual form.
func proxyURL(_ Host, s string) (string, error) {
	u, err := hostproxy.Parse(s)
	if err != nil {
		return "", err
	}
	if u.Password() == hidden {
		return "", errors.New(hidden + " stands for a password and is none; give the password itself")
	}
	return u.RevealURL(), nil
}
