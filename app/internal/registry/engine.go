package registry

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/docker/docker/api/types/image"
	engineregistry "github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/client"
)

// CheckEngine lets the engine at a host, such as unix:///run/docker.sock, pull an image that does not exist: it
// goes the whole way of a pull, and what it cannot find it does not keep.
func CheckEngine(ctx context.Context, engine string, n Name, credential *Credential) Step {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	err := pull(ctx, engine, n, credential)
	s := explainEngine(err, n.Host)
	s.From, s.Name = "engine", StepEngine
	return s
}

func pull(ctx context.Context, engine string, n Name, credential *Credential) error {
	c, err := client.NewClientWithOpts(client.WithHost(engine), client.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	defer c.Close()
	var o image.PullOptions
	if credential != nil {
		o.RegistryAuth, err = engineregistry.EncodeAuthConfig(engineregistry.AuthConfig{Username: credential.User, Password: credential.Password.RevealSecret(),
			IdentityToken: credential.Identity.RevealSecret(), ServerAddress: n.Server})
		if err != nil {
			return err
		}
	}
	stream, err := c.ImagePull(ctx, n.Host+"/cove/registry-test:"+strings.ToLower(rand.Text()), o)
	if err != nil {
		return err
	}
	defer stream.Close()
	for lines := json.NewDecoder(io.LimitReader(stream, 1<<20)); ; {
		var line struct {
			Error string `json:"error"`
		}
		if err := lines.Decode(&line); err == io.EOF {
			return errors.New("an image that nobody made was pulled")
		} else if err != nil {
			return err
		}
		if line.Error != "" {
			return errors.New(line.Error)
		}
	}
}

// explainEngine says what the engine's words mean. It has no codes for them.
func explainEngine(err error, host string) Step {
	text := err.Error()
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(text, p) {
				return true
			}
		}
		return false
	}
	text = strings.TrimPrefix(text, "Error response from daemon: ")
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return remedy(CauseTimeout, "it does not answer the engine", host)
	case has("server gave HTTP response to HTTPS client"):
		return remedy(CausePlain, "it speaks plain http to the engine, which wants https", host)
	case has("certificate signed by unknown authority"):
		return remedy(CauseAuthority, "the engine does not know who signed its certificate", host)
	case has("x509:", "certificate has expired"):
		return remedy(CauseCertificate, "its certificate does not hold for the engine: "+text, host)
	case has("remote error: tls"):
		return remedy(CauseClient, "it refuses the engine's connection: "+text, host)
	case has("no such host", "server misbehaving"):
		return remedy(CauseName, "the name has no address in the VM", host)
	case has("connection refused"):
		return remedy(CauseRefused, "nothing listens there for the engine", host)
	case has("Proxy Authentication Required", "proxyconnect"):
		return Step{Detail: "the engine's HTTP proxy does not let it through: " + text, Cause: CauseProxy, Remedy: "Look at `cove config get proxy.https`: docs/host.md."}
	case has("no basic auth credentials"):
		return remedy(CauseWantsLogin, "it lets nobody in without a login", host)
	case has("unauthorized", "401 Unauthorized", "incorrect username or password"):
		return remedy(CauseLogin, "it does not take this login of the engine: "+text, host)
	case has("not found", "manifest unknown", "denied", "does not exist", "403 Forbidden"):
		// It answered for the image: refused, or not there.
		return Step{OK: true, Detail: "the engine reaches it and gets its answers"}
	}
	return Step{Detail: fmt.Sprintf("the engine says: %s", text), Cause: CauseOther}
}
