//go:build linux

package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/covedesk/cove/guestd/protocol"
)

func merged(t *testing.T, user, address string) map[string]any {
	t.Helper()
	b, err := Merge(json.RawMessage(user), address, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPortsArePublishedOnTheAddressInEveryNewNetwork(t *testing.T) {
	all := merged(t, "", "127.0.0.1")
	bridge := all["default-network-opts"].(map[string]any)["bridge"].(map[string]any)
	if all["ip"] != "127.0.0.1" || bridge["com.docker.network.bridge.host_binding_ipv4"] != "127.0.0.1" {
		t.Errorf("Merge on 127.0.0.1 = ip %v, bridge %v", all["ip"], bridge)
	}
	if all := merged(t, "", ""); all["ip"] != nil {
		t.Errorf("Merge on all addresses sets ip to %v", all["ip"])
	}
	if all := merged(t, `{"ip":"192.168.1.2"}`, "127.0.0.1"); all["ip"] != "192.168.1.2" {
		t.Errorf("a user's ip becomes %v", all["ip"])
	}
}

func TestAUsersObjectIsMergedAndOursStay(t *testing.T) {
	all := merged(t, `{"features":{"x":true},"debug":true}`, "")
	features := all["features"].(map[string]any)
	if features["x"] != true || features["swarm-nftables"] != true || all["debug"] != true {
		t.Errorf("Merge = %v", all)
	}
	if _, err := Merge(json.RawMessage(`{"Hosts":["tcp://0.0.0.0"]}`), "", nil, nil); !errors.Is(err, ErrOwned) {
		t.Errorf("a user's hosts: %v; want that they are Cove's own", err)
	}
}

func TestTheEngineGetsTheProxies(t *testing.T) {
	proxy := &protocol.Proxy{HTTPS: protocol.NewSecret("http://u:p@host.docker.internal:3128"), No: "localhost"}
	for user, want := range map[string]string{
		`{}`: `{"https-proxy":"http://u:p@host.docker.internal:3128","no-proxy":"localhost"}`,
		`{"proxies":{"https-proxy":"http://mine:1"}}`: `{"https-proxy":"http://mine:1","no-proxy":"localhost"}`,
	} {
		b, err := Merge(json.RawMessage(user), "", proxy, nil)
		if err != nil {
			t.Fatal(err)
		}
		var all map[string]json.RawMessage
		if err := json.Unmarshal(b, &all); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		json.Compact(&got, all["proxies"])
		if got.String() != want {
			t.Errorf("Merge of %s has the proxies %s; want %s", user, got.String(), want)
		}
	}
}

func TestMergeSaysWhereTheHostIs(t *testing.T) {
	b, err := Merge(nil, "127.0.0.1", nil, &protocol.Network{MTU: 65520, HostAddress: "192.168.127.254"})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		MTU     int                          `json:"mtu"`
		Gateway []string                     `json:"host-gateway-ips"`
		Opts    map[string]map[string]string `json:"default-network-opts"`
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	bridge := got.Opts["bridge"]
	if got.MTU != 65520 || len(got.Gateway) != 1 || got.Gateway[0] != "192.168.127.254" || bridge["com.docker.network.driver.mtu"] != "65520" ||
		bridge["com.docker.network.bridge.host_binding_ipv4"] != "127.0.0.1" {
		t.Errorf("Merge = %s; want the packet size in both places, the host's address, and the address for ports kept", b)
	}
}
