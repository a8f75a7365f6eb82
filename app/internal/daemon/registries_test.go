package daemon

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/covedesk/cove/app/internal/secret"
	"github.com/covedesk/cove/app/internal/settings"
	"github.com/covedesk/cove/app/internal/trust"
	"github.com/covedesk/cove/guestd/protocol"
)

func TestRegistriesReachTheEngine(t *testing.T) {
	hub := func(url string) settings.Mirror { return settings.Mirror{Registry: settings.DockerHub, URL: url} }
	for _, c := range []struct {
		is     string
		engine string
		set    settings.Registry
		want   string
		trust  []protocol.Registry
	}{
		{"nothing set is nothing said", `{"debug":true}`, settings.Registry{}, `{"debug":true}`, nil},
		{"both lists hold, the setting's first", `{"insecure-registries":["b:1","a:1"],"debug":true}`, settings.Registry{Insecure: []string{"a:1", "c:1"}},
			`{"debug":true,"insecure-registries":["a:1","c:1","b:1"]}`, nil},
		{"the engine's key in its own case is that key", `{"Insecure-Registries":["b:1"]}`, settings.Registry{Insecure: []string{"a:1"}}, `{"Insecure-Registries":["a:1","b:1"]}`, nil},
		{"what is no list is the engine's to refuse", `{"insecure-registries":"b:1"}`, settings.Registry{Insecure: []string{"a:1"}}, `{"insecure-registries":"b:1"}`, nil},
		{"mirrors of Docker Hub are in docker info, and each is a registry", `{"registry-mirrors":["https://b/","https://a"]}`, settings.Registry{Mirrors: []settings.Mirror{hub("https://a")}, Insecure: []string{"b"}},
			`{"insecure-registries":["b"],"registry-mirrors":["https://a","https://b/"]}`,
			[]protocol.Registry{{Host: "a"}, {Host: "b", Insecure: true}, {Host: "docker.io", Mirrors: []string{"https://a", "https://b"}}}},
		{"a mirror of another registry is for that one", ``, settings.Registry{Mirrors: []settings.Mirror{{Registry: "ghcr.io", URL: "http://10.1.1.1:5000/x"}}, Insecure: []string{"10.0.0.0/8"}},
			`{"insecure-registries":["10.0.0.0/8"]}`,
			[]protocol.Registry{{Host: "10.1.1.1:5000", Insecure: true}, {Host: "ghcr.io", Mirrors: []string{"http://10.1.1.1:5000/x"}}}},
	} {
		engine, tr := registryConfig(settings.Values{Engine: json.RawMessage(c.engine), Registry: c.set}, trust.Found{})
		if string(engine) != c.want {
			t.Errorf("%s: the engine gets %s; want %s", c.is, engine, c.want)
		}
		var got []protocol.Registry
		if tr != nil {
			got = tr.Registries
		}
		if !reflect.DeepEqual(got, c.trust) {
			t.Errorf("%s: the guest gets %+v; want %+v", c.is, got, c.trust)
		}
	}
}

func TestCertificatesGoToTheGuest(t *testing.T) {
	_, got := registryConfig(settings.Values{Registry: settings.Registry{Insecure: []string{"r:1"}}}, trust.Found{Registries: []trust.Registry{
		{Host: "r:1", Clients: []trust.Client{{Certificate: "CERT", Key: secret.New("KEY")}}},
	}})
	want := &protocol.Trust{Registries: []protocol.Registry{{Host: "r:1", Insecure: true, Clients: []protocol.ClientPair{{Certificate: "CERT", Key: protocol.NewSecret("KEY")}}}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the guest gets %+v; want %+v", got, want)
	}
}
