// Command distribution is the registry of github.com/distribution/distribution, with its files in a folder
// and nothing but a unix socket to reach it by. Package testregistry starts it for tests and stands before it.
//
// It is a module of its own: in the common one, version selection would move what ships with Cove to the
// versions that a registry needs.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"os"
	"path/filepath"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"golang.org/x/crypto/bcrypt"
)

// order is what standard input begins with. The registry ends when standard input does, so none outlives
// the test that started it.
type order struct {
	Folder string            // its files; the socket is "socket" in it
	Users  map[string]string // passwords by user, for Basic authentication
	Token  map[string]any    // the options of token authentication
}

func main() {
	log.SetFlags(0)
	var o order
	in := json.NewDecoder(os.Stdin)
	if err := in.Decode(&o); err != nil {
		log.Fatalln("the order:", err)
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	os.Setenv("OTEL_TRACES_EXPORTER", "none")

	c := &configuration.Configuration{Storage: configuration.Storage{
		"filesystem": {"rootdirectory": o.Folder},
		"delete":     {"enabled": true},
	}}
	c.Log.Level = "fatal" // what it answers is in the test's record
	c.Log.AccessLog.Disabled = true
	c.HTTP.Net, c.HTTP.Addr = "unix", filepath.Join(o.Folder, "socket")
	c.HTTP.RelativeURLs = true // it does not know what it is reached by
	c.HTTP.Secret = "the same in all of one"
	switch {
	case o.Token != nil:
		c.Auth = configuration.Auth{"token": o.Token}
	case o.Users != nil:
		path := filepath.Join(o.Folder, "htpasswd")
		if err := htpasswd(path, o.Users); err != nil {
			log.Fatalln(err)
		}
		c.Auth = configuration.Auth{"htpasswd": {"realm": "test", "path": path}}
	}
	r, err := registry.NewRegistry(context.Background(), c)
	if err != nil {
		log.Fatalln(err)
	}
	log.Fatalln(r.ListenAndServe())
}

func htpasswd(path string, users map[string]string) error {
	var text []byte
	for user, password := range users {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			return err
		}
		text = append(append(append(append(text, user...), ':'), hash...), '\n')
	}
	return os.WriteFile(path, text, 0o600)
}
