package keystore

import (
	"context"
	"slices"
	"time"

	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/godbus/dbus/v5"
)

// secretService is the desktop's keyring behind the Secret Service API (GNOME Keyring, KWallet,
// KeePassXC), with the items of docker-credential-secretservice: the same schema and attributes, so each
// reads what the other has stored. https://specifications.freedesktop.org/secret-service/latest/
type secretService struct {
	ask                   bool
	callWithin, askWithin time.Duration
}

func newSecretService(ask bool) *secretService {
	return &secretService{ask: ask, callWithin: callPatience, askWithin: askPatience}
}

func (s *secretService) Name() string  { return SecretService }
func (s *secretService) Title() string { return "the Secret Service" }

// attributes of an item, by which it is found; more are added to these. The schema is one of them.
func attributes(more ...string) map[string]string {
	a := map[string]string{"xdg:schema": "io.docker.Credentials", "docker_cli": "1"}
	for i := 0; i < len(more); i += 2 {
		a[more[i]] = more[i+1]
	}
	return a
}

func (s *secretService) Add(c *credentials.Credentials) error {
	return s.with(func(ctx context.Context, k *keyring) error {
		collection, err := k.defaultCollection(ctx)
		if err != nil {
			return err
		}
		item, err := k.create(ctx, collection, "Registry credentials for "+c.ServerURL, c.Secret,
			attributes("label", credentials.CredsLabel, "server", c.ServerURL, "username", c.Username))
		if err != nil {
			return err
		}
		// An item of another user of this server is another item to the service.
		open, locked, err := k.search(ctx, attributes("server", c.ServerURL))
		if err != nil {
			return err
		}
		for _, other := range append(open, locked...) {
			if other != item {
				if err := k.delete(ctx, other); err != nil && !IsLocked(err) {
					return err // one that is locked: Get takes the newer
				}
			}
		}
		return nil
	})
}

func (s *secretService) Delete(server string) error {
	return s.with(func(ctx context.Context, k *keyring) error {
		items, err := k.find(ctx, attributes("server", server))
		if err != nil {
			return err
		}
		for _, item := range items {
			if err := k.delete(ctx, item); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *secretService) Get(server string) (username, secret string, err error) {
	err = s.with(func(ctx context.Context, k *keyring) error {
		items, err := k.find(ctx, attributes("server", server))
		if err != nil {
			return err
		}
		if len(items) == 0 {
			return credentials.NewErrCredentialsNotFound()
		}
		newest, err := k.newest(ctx, items)
		if err != nil {
			return err
		}
		username = newest.attributes["username"]
		secret, err = k.secret(ctx, newest.path)
		return err
	})
	if err == nil && secret == "" {
		err = credentials.NewErrCredentialsNotFound()
	}
	return username, secret, err
}

func (s *secretService) List() (map[string]string, error) {
	users := map[string]string{}
	err := s.with(func(ctx context.Context, k *keyring) error {
		paths, err := k.find(ctx, attributes("label", credentials.CredsLabel))
		if err != nil {
			return err
		}
		var items []item
		for _, path := range paths {
			i, err := k.look(ctx, path)
			if err != nil {
				return err
			}
			items = append(items, i)
		}
		slices.SortStableFunc(items, older)
		for _, i := range items {
			if server := i.attributes["server"]; server != "" {
				users[server] = i.attributes["username"]
			}
		}
		return nil
	})
	return users, err
}

// item is what the service says of one.
type item struct {
	path       dbus.ObjectPath
	attributes map[string]string
	modified   uint64 // seconds since 1970
	created    uint64
}

func older(a, b item) int {
	if a.modified != b.modified {
		return int(int64(a.modified) - int64(b.modified))
	}
	return int(int64(a.created) - int64(b.created))
}

func (k *keyring) newest(ctx context.Context, paths []dbus.ObjectPath) (item, error) {
	var newest item
	for _, path := range paths {
		i, err := k.look(ctx, path)
		if err != nil {
			return item{}, err
		}
		if newest.path == "" || older(newest, i) <= 0 {
			newest = i
		}
	}
	return newest, nil
}
