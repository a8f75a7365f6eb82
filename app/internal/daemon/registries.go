package daemon

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/covedesk/cove/app/internal/dockerconfig"
	"github.com/covedesk/cove/app/internal/settings"
	"github.com/covedesk/cove/app/internal/trust"
	"github.com/covedesk/cove/guestd/protocol"
)

// registries are the engine's settings with those of registries among them, and whom it is to trust. What
// cannot be used is told, and the rest holds.
func (d *Daemon) registries(v settings.Values) (json.RawMessage, *protocol.Trust) {
	docker, err := dockerconfig.Find("")
	if err != nil {
		d.log.Warn("docker's folder", "err", err)
	}
	found := trust.Find(trust.Here(docker.Dir), v.Registry.CA, time.Now(), protocol.MaxTrust)
	for _, f := range found.Faults {
		d.log.Warn("certificates", "path", f.Path, "err", f.Err)
		d.life.Notice("A certificate is not used: " + f.Error() + ".")
	}
	engine, t := registryConfig(v, found)
	if t != nil {
		d.log.Info("registries", "authorities", len(found.Authorities), "certificates", len(found.Registries), "insecure", v.Registry.Insecure, "mirrors", len(v.Registry.Mirrors))
	}
	return engine, t
}

// registryConfig adds the settings of registries to the engine's, where both count, and says the guest what
// else there is. A mirror that the engine's own settings name comes after those of registry.mirrors.
func registryConfig(v settings.Values, found trust.Found) (json.RawMessage, *protocol.Trust) {
	engine, insecure := joined(v.Engine, "insecure-registries", v.Registry.Insecure)
	var hub []string
	mirrors := map[string][]string{}
	for _, m := range v.Registry.Mirrors {
		mirrors[m.Registry] = append(mirrors[m.Registry], m.URL)
	}
	engine, hub = joined(engine, "registry-mirrors", mirrors[settings.DockerHub])
	mirrors[settings.DockerHub] = nil
	for _, m := range hub {
		if m = strings.TrimRight(m, "/"); !slices.Contains(mirrors[settings.DockerHub], m) {
			mirrors[settings.DockerHub] = append(mirrors[settings.DockerHub], m)
		}
	}

	t := &protocol.Trust{Authorities: trust.PEM(found.Authorities)}
	at := func(host string) *protocol.Registry {
		i := slices.IndexFunc(t.Registries, func(r protocol.Registry) bool { return r.Host == host })
		if i < 0 {
			i = len(t.Registries)
			t.Registries = append(t.Registries, protocol.Registry{Host: host, Insecure: trust.Insecure(insecure).Has(host, nil)})
		}
		return &t.Registries[i]
	}
	for _, f := range found.Registries {
		r := at(f.Host)
		r.Authorities = trust.PEM(f.Authorities)
		for _, c := range f.Clients {
			r.Clients = append(r.Clients, protocol.ClientPair{Certificate: c.Certificate, Key: protocol.NewSecret(c.Key.RevealSecret())})
		}
	}
	for host, urls := range mirrors {
		if len(urls) == 0 {
			continue
		}
		at(host).Mirrors = urls
		for _, u := range urls {
			_, rest, _ := strings.Cut(u, "://")
			mirror, _, _ := strings.Cut(rest, "/")
			at(mirror)
		}
	}
	slices.SortFunc(t.Registries, func(a, b protocol.Registry) int { return strings.Compare(a.Host, b.Host) })
	if t.Authorities == "" && len(t.Registries) == 0 {
		t = nil
	}
	return engine, t
}

// joined puts more before the list that the engine's settings have under a key, and gives the whole list. What
// is no list there is left for the engine to refuse.
func joined(engine json.RawMessage, key string, more []string) (json.RawMessage, []string) {
	all := map[string]json.RawMessage{}
	if len(engine) > 0 && json.Unmarshal(engine, &all) != nil {
		return engine, more
	}
	for k, v := range all {
		if !strings.EqualFold(k, key) { // the engine takes any case
			continue
		}
		var theirs []string
		if json.Unmarshal(v, &theirs) != nil {
			return engine, more
		}
		for _, t := range theirs {
			if !slices.Contains(more, t) {
				more = append(slices.Clip(more), t)
			}
		}
		key = k
	}
	if len(more) == 0 {
		return engine, nil
	}
	all[key], _ = json.Marshal(more) // strings always can be
	out, _ := json.Marshal(all)
	return out, more
}
