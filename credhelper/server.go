package credhelper

import (
	"slices"
	"strings"

	"github.com/covedesk/cove/credhelper/keystore"
)

// hub is the name that docker gives Docker Hub in credential stores.
const hub = "https://index.docker.io/v1/"

// hubHosts are the names under which clients ask for it: docker the second one, podman and others the
// first, oras and helm the last.
var hubHosts = []string{"docker.io", "index.docker.io", "registry-1.docker.io"}

// canonical gives the one name under which a server is kept. Docker Hub has many; every other server has
// the one that it is called by. A name with http:// is another server: what is stored for https must not
// go out in the clear. So is a longer path: docker keeps Hub's access and refresh tokens under
// https://index.docker.io/v1/access-token and …/refresh-token.
func canonical(server string) string {
	bare := strings.ToLower(server)
	bare = strings.TrimPrefix(bare, "https://")
	host, path, _ := strings.Cut(bare, "/")
	if slices.Contains(hubHosts, host) && slices.Contains([]string{"", "v1", "v2"}, strings.TrimSuffix(path, "/")) {
		return hub
	}
	return server
}

// spellings are the names under which a keystore may have a server: other helpers, who share all but the
// encrypted file with us, keep Docker Hub under the name that their client used.
func spellings(s keystore.Store, server string) []string {
	name := canonical(server)
	if name != hub || s.Name() == keystore.File {
		return []string{name}
	}
	return append([]string{hub}, hubHosts...)
}
