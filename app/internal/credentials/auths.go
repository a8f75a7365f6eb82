package credentials

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/covedesk/cove/app/internal/dockerconfig"
	"github.com/covedesk/cove/app/internal/secret"
)

// Auth is a login whose password stands in docker's settings, encoded but for everybody to read.
type Auth struct {
	Server string `json:"server"`
	User   string `json:"user,omitempty"`
	Wrong  string `json:"wrong,omitempty"` // why docker cannot read it; it then reads nothing of the file

	secret secret.Text
	raw    secret.Text // the entry as it was read
}

// tokenUser is docker's name for one that logs in by a token.
const tokenUser = "<token>"

// secretFields are what docker keeps of a login in its settings.
var secretFields = []string{"auth", "username", "password", "identitytoken"}

// plain are the logins in docker's settings.
func plain(c *dockerconfig.Config) ([]Auth, error) {
	entries, err := c.Entries(authsKey)
	if err != nil {
		return nil, err
	}
	var out []Auth
	for _, e := range entries {
		var f struct{ Auth, Username, Password, IdentityToken, RegistryToken string }
		a := Auth{Server: e.Name, raw: secret.New(string(e.Value))}
		if json.Unmarshal(e.Value, &f) != nil {
			a.Wrong = "it is not as docker writes it"
			out = append(out, a)
			continue
		}
		if f.Auth != "" {
			b, err := base64.StdEncoding.DecodeString(f.Auth)
			user, password, cut := strings.Cut(string(b), ":")
			if err != nil || !cut || user == "" {
				a.Wrong = "its password is not encoded as docker does it"
			}
			f.Username, f.Password = user, strings.Trim(password, "\x00")
		}
		a.User, a.secret = f.Username, secret.New(f.Password)
		if f.IdentityToken != "" {
			a.User, a.secret = tokenUser, secret.New(f.IdentityToken)
		}
		if a.Wrong == "" && a.secret.IsZero() && f.RegistryToken != "" {
			a.Wrong = "it is a registry's token, which no helper takes"
		}
		if a.Wrong != "" || !a.secret.IsZero() {
			out = append(out, a)
		}
	}
	return out, nil
}
