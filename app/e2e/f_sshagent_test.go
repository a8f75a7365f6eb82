//go:build e2e && linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// agentDoor is where the guest leads to the agent; agentMount mounts it as people do.
const (
	agentDoor  = "/run/host-services/ssh-auth.sock"
	agentMount = agentDoor + ":/agent"
)

// startAgent runs an ssh agent with one key, and gives its socket and the key in base64.
func startAgent(t *testing.T) (socket, key string) {
	t.Helper()
	dir := t.TempDir()
	socket = filepath.Join(dir, "agent")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Process.Kill(); agent.Wait() })
	eventually(t, "the agent's socket", func() bool { _, err := os.Stat(socket); return err == nil })
	output(t, command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "key")))
	add := command("ssh-add", "-q", filepath.Join(dir, "key"))
	add.Env = append(add.Env, "SSH_AUTH_SOCK="+socket)
	output(t, add)
	public, err := os.ReadFile(filepath.Join(dir, "key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	return socket, strings.Fields(string(public))[1]
}

// useAgent sets where the agent is, at once, and gives the default back after the test.
func useAgent(t *testing.T, value string) {
	t.Helper()
	if text := output(t, cove("config", "set", "ssh-agent", value)); strings.Contains(text, "cove restart") {
		t.Errorf("cove config set ssh-agent says %q; it holds from the next connection on", text)
	}
	t.Cleanup(func() { cove("config", "unset", "ssh-agent").Run() })
}

func TestAContainerReachesTheSSHAgent(t *testing.T) {
	socket, key := startAgent(t)
	useAgent(t, socket)
	for _, args := range [][]string{
		{"-v", agentMount},
		{"--mount", "type=bind,source=" + agentDoor + ",target=/agent"},
		{"-v", agentMount, "--user", "1000"},
		{"-v", agentMount, "--network", "none"},
	} {
		args = append(append([]string{"run", "--rm"}, args...), image, "probe", "ssh-agent", "/agent")
		if got := strings.TrimSpace(output(t, docker(args...))); got != key {
			t.Errorf("docker %s lists the keys %q; want %q", strings.Join(args, " "), got, key)
		}
	}
	// 40 at once, more than may wait for the host.
	script := "i=0; while [ $i -lt 40 ]; do probe ssh-agent /agent >/tmp/$i & i=$((i+1)); done; wait; cat /tmp/* | grep -c ."
	if got := strings.TrimSpace(output(t, docker("run", "--rm", "-v", agentMount, image, "sh", "-c", script))); got != "40" {
		t.Errorf("of 40 connections at once %s got the key", got)
	}
	if text, _ := failure(t, docker("run", "--rm", image, "ls", agentDoor)); !strings.Contains(text, "No such file") {
		t.Errorf("a container that mounts nothing has the agent: %s", text)
	}
}

func TestWithoutAnAgentTheConnectionEndsAndTheLogSaysWhy(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	for value, why := range map[string]string{"off": "ssh-agent is off", gone: gone} {
		useAgent(t, value)
		text, _ := failure(t, docker("run", "--rm", "-v", agentMount, image, "probe", "ssh-agent", "/agent"))
		contains(t, "the probe", text, "the agent does not answer")
		contains(t, "cove logs coved", output(t, cove("logs", "coved", "-n", "50")), "ssh agent is not reached", why)
	}
}
