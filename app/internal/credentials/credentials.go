// Package credentials keeps the docker CLI's logins where they belong. It says which credential helpers
// docker's settings name and whether they work, makes docker use Cove's with the user's consent, mends what is
// broken, and puts back what was there before. Helpers run as programs: no keystore is linked in here.
package credentials

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/covedesk/cove/app/internal/dockerconfig"
)

// The keys of docker's settings that this package changes (docker CLI, cli/config/configfile/file.go).
const (
	storeKey   = "credsStore"
	helpersKey = "credHelpers"
	authsKey   = "auths"
)

// cove is our helper's name in them.
const cove = "cove"

// Setup is where everything is.
type Setup struct {
	Docker dockerconfig.Docker
	Memo   string // a file of ours: what docker's settings said before we changed them
	Beside string // the folder of our own programs
	Home   string // the user's home folder; empty where there is none
}

// New is the user's setup. home is Cove's folder, a function of the parts of a path.
func New(home func(parts ...string) string) (Setup, error) {
	docker, err := dockerconfig.Find(home("docker-config"))
	if err != nil {
		return Setup{}, err
	}
	s := Setup{Docker: docker, Memo: home("docker-credentials.json")}
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		s.Beside = filepath.Dir(exe)
	}
	s.Home, _ = os.UserHomeDir()
	return s, nil
}

// clouds are helpers that make their credentials from an account of their own: nothing can stand in for them.
var clouds = []string{
	"ecr-login",                                        // Amazon
	"gcloud", "gcr", "gcr.exe", "gcloud.cmd", "google", // Google
	"acr-env", "acr-linux", "acr-darwin", "acr-windows", "acr-login", // Azure
	"ghcr-login", "gitlab-registry", "doctl", "oci", // GitHub, GitLab, DigitalOcean, Oracle
}

// IsCloud says whether a helper is one of those.
func IsCloud(name string) bool { return slices.Contains(clouds, name) }

// standard is the helper that docker takes by itself where its settings name none (docker CLI,
// cli/config/credentials/default_store*.go). Docker asks no other.
func standard() string {
	switch runtime.GOOS {
	case "darwin":
		return "osxkeychain"
	case "windows":
		return "wincred"
	}
	if _, err := lookPath("pass"); err == nil {
		return "pass"
	}
	return "secretservice"
}
