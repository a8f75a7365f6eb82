package dockerapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/covedesk/cove/proxy"
	"github.com/moby/moby/api/types/network"
)

// gateway is the network on which a swarm's published ports are, as the engine makes it (moby,
// daemon/libnetwork/default_gateway_linux.go).
var gateway = network.CreateRequest{
	Name: "docker_gwbridge", Driver: "bridge",
	Options: map[string]string{
		"com.docker.network.bridge.name":                 "docker_gwbridge",
		"com.docker.network.bridge.enable_icc":           "false",
		"com.docker.network.bridge.enable_ip_masquerade": "true",
	},
}

// makeGateway makes that network before the engine does. The engine gives the defaults of its settings
// (default-network-opts) to a network that a client makes, and not to its own: a swarm's ports would be on
// all of the host's addresses where others are on loopback.
func (f *Front) makeGateway(ctx context.Context, l *life, engine proxy.Dialer) {
	body, err := json.Marshal(gateway)
	if err != nil {
		panic(err) // a constant
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine/networks/create", bytes.NewReader(body))
	if err != nil {
		panic(err) // a constant
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := l.roundTrip(req, engine)
	if err != nil {
		f.log.Warn("swarm's network was not made", "err", err)
		return // the call itself will say what is wrong with the engine
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)); resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusConflict {
		f.log.Warn("swarm's network was not made", "status", resp.Status, "answer", string(text))
	}
}
