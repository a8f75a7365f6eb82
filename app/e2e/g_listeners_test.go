//go:build e2e && linux

package e2e

import (
	"net"
	"strings"
	"testing"
)

// onHostNetwork runs a probe on the host network and gives the container's id.
func onHostNetwork(t *testing.T, probe, port string) string {
	t.Helper()
	id := strings.TrimSpace(output(t, docker("run", "-d", "--network", "host", image, "/bin/probe", probe, port)))
	t.Cleanup(func() { docker("rm", "-f", "-v", id).Run() })
	return id
}

func TestAListenerOnTheHostNetworkIsOnTheHost(t *testing.T) {
	port := unused(t)
	id := onHostNetwork(t, "echo", port)
	for _, address := range []string{"127.0.0.1:" + port, "[::1]:" + port} {
		eventually(t, "an echo from "+address, func() bool { got, err := echoed("tcp", address, "hi"); return err == nil && got == "hi" })
	}
	contains(t, "cove ports", output(t, cove("ports")), "127.0.0.1:"+port)
	if got := output(t, cove("ports", "--json")); !strings.Contains(got, id) {
		t.Errorf("cove ports does not know the container %s: %s", id, got)
	}
	output(t, docker("rm", "-f", id))
	eventually(t, "the end of "+port, func() bool { return free("tcp", "127.0.0.1:"+port) == nil })
}

func TestDatagramsToTheHostNetwork(t *testing.T) {
	port := unused(t)
	id := onHostNetwork(t, "echo-udp", port)
	eventually(t, "an echo by UDP", func() bool { got, err := echoed("udp", "127.0.0.1:"+port, "hi"); return err == nil && got == "hi" })
	output(t, docker("rm", "-f", id))
	eventually(t, "the end of it", func() bool { return free("udp", "127.0.0.1:"+port) == nil })
}

func TestAListenerWhosePortTheHostHasNot(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	id := onHostNetwork(t, "echo", port)
	eventually(t, "a notice", func() bool {
		text := output(t, cove("status"))
		return strings.Contains(text, "on the host network is not reached") && strings.Contains(text, "127.0.0.1:"+port)
	})
	if got := strings.TrimSpace(output(t, docker("inspect", "--format", "{{.State.Running}}", id))); got != "true" {
		t.Errorf("the container runs: %s; a port that the host has not is no fault of its own", got)
	}
	l.Close() // and when the port is free it gets it
	eventually(t, "an echo", func() bool { got, err := echoed("tcp", "127.0.0.1:"+port, "hi"); return err == nil && got == "hi" })
}

// Swarm's routing mesh, and its ports on the node itself.
func TestPublishedPortsOfSwarm(t *testing.T) {
	output(t, docker("swarm", "init", "--advertise-addr", "127.0.0.1"))
	t.Cleanup(func() { docker("swarm", "leave", "--force").Run() })
	for name, publish := range map[string]string{"mesh": "mode=ingress", "node": "mode=host"} {
		port := unused(t)
		output(t, docker("service", "create", "--detach", "--name", name, "--no-resolve-image",
			"--publish", publish+",target=7,published="+port, image, "/bin/probe", "echo", "7"))
		eventually(t, "an echo from the service "+name, func() bool {
			got, err := echoed("tcp", "127.0.0.1:"+port, "hi")
			return err == nil && got == "hi"
		})
		text := output(t, cove("ports"))
		for _, own := range []string{":2377 ", ":7946 "} {
			if strings.Contains(text, own) {
				t.Errorf("a port of the engine's own, %s, is on the host:\n%s", own, text)
			}
		}
		contains(t, "cove ports with the service "+name, text, "127.0.0.1:"+port)
		if strings.Contains(text, "0.0.0.0:") || strings.Contains(text, "[::]:") {
			t.Errorf("the service %s is on all addresses of the host:\n%s", name, text)
		}
		output(t, docker("service", "rm", name))
		eventually(t, "the end of its port", func() bool { return free("tcp", "127.0.0.1:"+port) == nil })
	}
}
