package daemon

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/internal/lifecycle"
	"github.com/covedesk/cove/proxy/dockerapi"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
)

// namesPatience bounds the question which containers there are: without an answer ports are listed
// without names.
const namesPatience = 10 * time.Second

// Ports are the host's ports that lead to containers: see localapi.Core. An engine that sleeps is not woken
// for their names.
func (d *Daemon) Ports(ctx context.Context) ([]api.Port, error) {
	waiting, cancel := context.WithTimeout(ctx, enginePatience)
	defer cancel()
	var engine http.RoundTripper = recalled{d.front}
	v, err := d.life.Await(waiting, "")
	switch {
	case err == nil:
		engine = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return v.(*vm).Dial(ctx, dockerapi.Service) }}
	case !errors.Is(err, lifecycle.ErrSuspended):
		return nil, err
	}
	containers, err := containersOf(ctx, engine)
	if err != nil {
		d.log.Warn("list containers for their ports", "err", err)
	}
	out := []api.Port{}
	for _, p := range d.ports.List() {
		out = append(out, api.Port{
			Protocol: p.Bind.Protocol, Address: p.Bind.Address, Also: p.Also, Target: p.Bind.Target, Since: p.Since,
			Open: p.Open, Total: p.Total, BytesIn: p.Inward, BytesOut: p.Outward, Dropped: p.Dropped, Fault: p.Fault,
			Container: owner(containers, p.Bind.Container, p.Bind.Target),
		})
	}
	return out, nil
}

// recalled is an engine that sleeps, as far as its snapshot goes.
type recalled struct{ front *dockerapi.Front }

// RoundTrip asks without a version: the snapshot has the engine's own and those that clients spoke, and ours
// may be another.
func (r recalled) RoundTrip(q *http.Request) (*http.Response, error) {
	q = q.Clone(q.Context())
	if version, rest, is := strings.Cut(strings.TrimPrefix(q.URL.Path, "/"), "/"); is && strings.HasPrefix(version, "v1.") {
		q.URL.Path = "/" + rest
	}
	return r.front.Recall(q)
}

// containersOf are those that run.
func containersOf(ctx context.Context, engine http.RoundTripper) ([]container.Summary, error) {
	ctx, cancel := context.WithTimeout(ctx, namesPatience)
	defer cancel()
	// The transport comes last: WithHost sets up the one that it finds, for a proxy of the environment too.
	c, err := client.NewClientWithOpts(client.WithHost("http://engine"), client.WithHTTPClient(&http.Client{Transport: engine}), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.ContainerList(ctx, container.ListOptions{})
}

// owner is the container of this id, or else the one that has the target's address.
func owner(all []container.Summary, id, target string) *api.Container {
	to, _ := netip.ParseAddrPort(target)
	for _, c := range all {
		is := id != "" && c.ID == id
		if id == "" && c.NetworkSettings != nil {
			for _, n := range c.NetworkSettings.Networks {
				is = is || n != nil && to.IsValid() && (n.IPAddress == to.Addr().String() || n.GlobalIPv6Address == to.Addr().String())
			}
		}
		if is {
			name := ""
			if len(c.Names) > 0 {
				name = strings.TrimPrefix(c.Names[0], "/")
			}
			return &api.Container{ID: c.ID, Name: name}
		}
	}
	return nil
}
