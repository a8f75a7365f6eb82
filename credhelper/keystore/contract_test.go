package keystore

import (
	"maps"
	"testing"

	"github.com/docker/docker-credential-helpers/credentials"
)

// contract is what every keystore promises. It begins and ends with an empty one.
func contract(t *testing.T, s Store) {
	t.Helper()
	const hub, local = "https://index.docker.io/v1/", "127.0.0.1:5000"
	if err := Probe(s); err != nil {
		t.Fatalf("Probe(%s) = %v", s.Name(), err)
	}
	holds(t, s, map[string]string{})
	missing(t, s, hub)
	if err := s.Delete(hub); err != nil {
		t.Errorf("Delete of what is not there = %v; want no error", err)
	}
	add(t, s, hub, "alice", "first")
	add(t, s, local, "<token>", "a token; with \"quotes\", a slash / and ümläuts")
	gives(t, s, hub, "alice", "first")
	gives(t, s, local, "<token>", "a token; with \"quotes\", a slash / and ümläuts")
	add(t, s, hub, "alice", "second")
	gives(t, s, hub, "alice", "second")
	add(t, s, hub, "bob", "third") // another user of the same server
	gives(t, s, hub, "bob", "third")
	holds(t, s, map[string]string{hub: "bob", local: "<token>"})
	if err := Probe(s); err != nil {
		t.Errorf("Probe of a keystore in use = %v", err)
	}
	holds(t, s, map[string]string{hub: "bob", local: "<token>"})
	for _, server := range []string{hub, local} {
		if err := s.Delete(server); err != nil {
			t.Errorf("Delete(%q) = %v", server, err)
		}
		missing(t, s, server)
	}
	holds(t, s, map[string]string{})
}

func add(t *testing.T, s Store, server, user, secret string) {
	t.Helper()
	if err := s.Add(&credentials.Credentials{ServerURL: server, Username: user, Secret: secret}); err != nil {
		t.Fatalf("Add(%q, %q) = %v", server, user, err)
	}
}

func gives(t *testing.T, s Store, server, user, secret string) {
	t.Helper()
	u, p, err := s.Get(server)
	if err != nil || u != user || p != secret {
		t.Errorf("Get(%q) = %q, %q, %v; want %q, %q", server, u, p, err, user, secret)
	}
}

func missing(t *testing.T, s Store, server string) {
	t.Helper()
	if u, _, err := s.Get(server); !credentials.IsErrCredentialsNotFound(err) {
		t.Errorf("Get(%q) = %q, _, %v; want not found", server, u, err)
	}
}

func holds(t *testing.T, s Store, want map[string]string) {
	t.Helper()
	if got, err := s.List(); err != nil || !maps.Equal(got, want) {
		t.Errorf("List() = %v, %v; want %v", got, err, want)
	}
}
