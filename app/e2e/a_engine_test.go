//go:build e2e && linux

package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

func TestVersionTellsWhatRuns(t *testing.T) {
	var v struct {
		Client struct{ Version string }
		Server struct {
			Platform   struct{ Name string }
			Version    string
			APIVersion string `json:"ApiVersion"`
			Components []struct{ Name, Version string }
		}
	}
	if err := json.Unmarshal([]byte(output(t, docker("version", "--format", "json"))), &v); err != nil {
		t.Fatal(err)
	}
	t.Logf("client %s, server %q %s (API %s), components %v", v.Client.Version, v.Server.Platform.Name, v.Server.Version, v.Server.APIVersion, v.Server.Components)
	for _, s := range []string{v.Client.Version, v.Server.Version} {
		if s == "" || strings.Contains(s, "unknown") || strings.Contains(s, "dev") {
			t.Errorf("version %q says nothing", s)
		}
	}
	for _, c := range v.Server.Components {
		if c.Version == "" || strings.Contains(c.Version, "unknown") {
			t.Errorf("component %s has version %q", c.Name, c.Version)
		}
	}
}

func TestEngineIsSetUpAsDesigned(t *testing.T) {
	info := output(t, docker("info", "--format", "json"))
	contains(t, "docker info", info, `"Driver":"overlayfs"`, `nftables`, `"CgroupVersion":"2"`, `io.containerd.snapshotter.v1`)
	var i struct {
		Warnings []string
		Name     string
	}
	if err := json.Unmarshal([]byte(info), &i); err != nil {
		t.Fatal(err)
	}
	if len(i.Warnings) > 0 {
		t.Errorf("docker info warns: %q", i.Warnings)
	}
}

func TestRunPassesOutputAndStatus(t *testing.T) {
	cmd := docker("run", "--rm", image, "sh", "-c", "echo out; echo err >&2; exit 7")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Run()
	if got := fmt.Sprint(cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()); got != "7out\nerr\n" {
		t.Errorf("docker run gave %q; want status 7, out, err", got)
	}
}

func TestPipedInputEndsAndTheReplyComesWhole(t *testing.T) {
	data := make([]byte, 16<<20)
	rand.Read(data)
	want := sha256.Sum256(data)
	cmd := docker("run", "-i", "--rm", image, "sh", "-c", "cat")
	cmd.Stdin = bytes.NewReader(data)
	got := sha256.New()
	cmd.Stdout = got
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Sum(nil), want[:]) {
		t.Error("16 MiB through docker run -i cat came back different")
	}
}

// A container that stops reading early must not cost the output that it wrote before.
func TestInputThatNobodyReads(t *testing.T) {
	cmd := docker("run", "-i", "--rm", image, "head", "-c", "5")
	cmd.Stdin = io.LimitReader(rand.Reader, 32<<20)
	if got := output(t, cmd); len(got) != 5 {
		t.Errorf("got %d bytes; want 5", len(got))
	}
}

func TestTerminal(t *testing.T) {
	// Not an interactive shell: busybox's line editor loses keys when the size changes while it reads.
	script := `until stty size | grep -x "33 111"; do sleep 1; done; read line; echo "heard $line"
		until stty size | grep -x "44 222"; do sleep 1; done; exit 3`
	cmd := docker("run", "-it", "--rm", image, "sh", "-c", script)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 111})
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	var seen bytes.Buffer
	expect := func(what string) {
		t.Helper()
		buf := make([]byte, 4096)
		tty.SetReadDeadline(time.Now().Add(patience))
		for !strings.Contains(seen.String(), what) {
			n, err := tty.Read(buf)
			seen.Write(buf[:n])
			if err != nil {
				t.Fatalf("waiting for %q: %v\n%s", what, err, seen.String())
			}
		}
		seen.Reset()
	}
	expect("33 111\r\n")
	fmt.Fprint(tty, "words\n")
	expect("heard words\r\n")
	// docker listens for a change of size only some time after its container runs, so there are several.
	resized := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for cols := uint16(221); ; cols ^= 1 { // 221 and 220, which nobody waits for, in turn with 222
			pty.Setsize(tty, &pty.Winsize{Rows: 44, Cols: cols})
			pty.Setsize(tty, &pty.Winsize{Rows: 44, Cols: 222})
			select {
			case <-resized:
				return
			case <-time.After(time.Second):
			}
		}
	}()
	expect("44 222\r\n")
	close(resized)
	<-done
	io.Copy(io.Discard, tty)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit status %d; want 3", code)
	}
}

// background starts a container that stays, and removes it at the end of the test.
func background(t *testing.T, name string, args ...string) {
	t.Helper()
	output(t, docker(append([]string{"run", "-d", "--name", name}, args...)...))
	t.Cleanup(func() { docker("rm", "-f", "-v", name).Run() })
}

func TestExecAttachLogsTopWaitStats(t *testing.T) {
	background(t, "worker", "-i", image, "sh", "-c", "echo started; while read line; do echo got $line; [ $line = end ] && exit 9; done")

	if got := output(t, docker("exec", "-e", "A=b", "worker", "sh", "-c", "echo $A; id -u")); got != "b\n0\n" {
		t.Errorf("exec printed %q", got)
	}
	in := docker("exec", "-i", "worker", "wc", "-c")
	in.Stdin = strings.NewReader("12345")
	if got := strings.TrimSpace(output(t, in)); got != "5" {
		t.Errorf("exec -i wc -c printed %q; want 5", got)
	}
	contains(t, "docker top", output(t, docker("top", "worker")), "while read line")
	contains(t, "docker stats", output(t, docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", "worker")), "worker", "iB / ")

	follow := docker("logs", "-f", "worker")
	var logs bytes.Buffer
	follow.Stdout = &logs
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	wait := docker("wait", "worker")
	var status bytes.Buffer
	wait.Stdout = &status
	if err := wait.Start(); err != nil {
		t.Fatal(err)
	}
	// The engine ends an attachment whose input ends, so the input stays open: the container's end ends it.
	attach := docker("attach", "--sig-proxy=false", "worker")
	open, typed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer typed.Close()
	attach.Stdin = open
	fmt.Fprint(typed, "one\nend\n")
	attached, _ := attach.CombinedOutput()
	open.Close()
	contains(t, "docker attach", string(attached), "got one", "got end")
	if err := follow.Wait(); err != nil {
		t.Error("docker logs -f:", err)
	}
	contains(t, "docker logs -f", logs.String(), "started\n", "got one\n", "got end\n")
	wait.Wait()
	if got := strings.TrimSpace(status.String()); got != "9" {
		t.Errorf("docker wait printed %q; want 9", got)
	}
}

func TestCopyBothWays(t *testing.T) {
	background(t, "box", image, "sleep", "1d")
	dir := t.TempDir()
	data := make([]byte, 8<<20)
	rand.Read(data)
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	os.WriteFile(src, data, 0o640)
	output(t, docker("cp", src, "box:/data/file"))
	sum := sha256.Sum256(data)
	contains(t, "sha256sum in the container", output(t, docker("exec", "box", "sha256sum", "/data/file")), hex.EncodeToString(sum[:]))
	output(t, docker("cp", "box:/data/file", dst))
	back, err := os.ReadFile(dst)
	if err != nil || !bytes.Equal(back, data) {
		t.Errorf("what came back differs (%v)", err)
	}
}

func TestSaveLoadTagPrune(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image.tar")
	output(t, docker("tag", image, "cove/saved:1"))
	output(t, docker("save", "-o", file, "cove/saved:1"))
	output(t, docker("rmi", "cove/saved:1"))
	contains(t, "docker load", output(t, docker("load", "-i", file)), "cove/saved:1")
	output(t, docker("rmi", "cove/saved:1"))
	output(t, docker("create", "--name", "leftover", image, "true"))
	contains(t, "docker container prune", output(t, docker("container", "prune", "-f")), "Total reclaimed space")
	contains(t, "docker ps -a after the prune", "x"+output(t, docker("ps", "-aq", "--filter", "name=leftover")), "x")
	output(t, docker("volume", "prune", "-f"))
	output(t, docker("network", "prune", "-f"))
	output(t, docker("system", "df"))
}

func TestVolumesAndNetworks(t *testing.T) {
	output(t, docker("volume", "create", "v1"))
	output(t, docker("network", "create", "n1"))
	t.Cleanup(func() { docker("volume", "rm", "-f", "v1").Run(); docker("network", "rm", "n1").Run() })
	output(t, docker("run", "--rm", "-v", "v1:/data", image, "sh", "-c", "echo kept > /data/x"))
	if got := output(t, docker("run", "--rm", "--mount", "type=volume,src=v1,dst=/m", "--tmpfs", "/scratch", image, "cat", "/m/x")); got != "kept\n" {
		t.Errorf("the volume held %q", got)
	}
	background(t, "server", "--network", "n1", image, "probe", "echo", "7")
	client := docker("run", "--rm", "-i", "--network", "n1", image, "probe", "ask", "server:7", "ping")
	contains(t, "one container asking another by name", output(t, client), "ping")
}

func TestEvents(t *testing.T) {
	events := docker("events", "--filter", "container=evented", "--format", "{{.Action}}")
	out, err := events.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := events.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 64)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := out.Read(buf)
			if n > 0 {
				lines <- string(buf[:n])
			}
			if err != nil {
				close(lines)
				return
			}
		}
	}()
	var seen string
	// The subscription has no acknowledgement; containers are run until one is seen.
	eventually(t, "a die event", func() bool {
		docker("run", "--rm", "--name", "evented", image, "true").Run()
		for {
			select {
			case s := <-lines:
				seen += s
				continue
			case <-time.After(time.Second):
			}
			return strings.Contains(seen, "die")
		}
	})
	contains(t, "docker events", seen, "create", "start", "die")
	events.Process.Signal(os.Interrupt)
	events.Wait()
}

// Portainer, testcontainers and act mount the engine's socket by the path it has in the guest.
func TestTheGuestsOwnSocketMounts(t *testing.T) {
	got := output(t, docker("run", "--rm", "-v", "/var/run/docker.sock:/var/run/docker.sock", image, "probe", "engine", "/var/run/docker.sock", "/version"))
	contains(t, "the engine asked from a container", got, `"ApiVersion"`)
}

func TestBuildWithBuildKit(t *testing.T) {
	dir := t.TempDir()
	file := fmt.Sprintf("FROM %s\nCOPY hello /hello\nRUN --mount=type=secret,id=s wc -c < /run/secrets/s > /size && cat /hello\nFROM %s\nCOPY --from=0 /size /size\nCMD [\"cat\", \"/size\"]\n", image, image)
	os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(file), 0o600)
	os.WriteFile(filepath.Join(dir, "hello"), []byte("hello from the context\n"), 0o600)
	os.WriteFile(filepath.Join(dir, "secret"), []byte("sesame"), 0o600)
	out, err := docker("build", "--progress=plain", "-t", "cove/built", "--secret", "id=s,src="+filepath.Join(dir, "secret"), dir).CombinedOutput()
	if err != nil {
		t.Fatalf("docker build: %v\n%s", err, out)
	}
	contains(t, "docker build", string(out), "hello from the context")
	if got := strings.TrimSpace(output(t, docker("run", "--rm", "cove/built"))); got != "6" {
		t.Errorf("the built image printed %q; want 6", got)
	}
	contains(t, "docker buildx ls", output(t, docker("buildx", "ls")), "running")
	again, err := docker("build", "--progress=plain", "-t", "cove/built", "--secret", "id=s,src="+filepath.Join(dir, "secret"), dir).CombinedOutput()
	if err != nil {
		t.Fatalf("docker build again: %v\n%s", err, again)
	}
	contains(t, "the second docker build", string(again), "CACHED")
}

func TestBuildUsesTheSSHAgent(t *testing.T) {
	if _, err := exec.LookPath("ssh-agent"); err != nil {
		t.Skip("no ssh-agent on this machine")
	}
	dir := t.TempDir()
	agent := exec.Command("ssh-agent", "-D", "-a", filepath.Join(dir, "agent"))
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { agent.Process.Kill(); agent.Wait() }()
	eventually(t, "the agent's socket", func() bool { _, err := os.Stat(filepath.Join(dir, "agent")); return err == nil })
	os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+image+"\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo agent at $SSH_AUTH_SOCK\n"), 0o600)
	build := docker("build", "--progress=plain", "--ssh", "default="+filepath.Join(dir, "agent"), dir)
	out, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("docker build --ssh: %v\n%s", err, out)
	}
	contains(t, "docker build --ssh", string(out), "agent at /")
}

func TestCompose(t *testing.T) {
	dir := t.TempDir()
	file := fmt.Sprintf(`
services:
  db:
    image: %[1]s
    command: probe echo 7
    volumes: [data:/data]
    healthcheck: {test: ["CMD", "test", "-d", "/data"], interval: 1s, retries: 100}
  web:
    image: %[1]s
    command: sh -c "probe ask db:7 asked; sleep 1d"
    depends_on: {db: {condition: service_healthy}}
volumes: {data: {}}
`, image)
	os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(file), 0o600)
	compose := func(args ...string) *exec.Cmd {
		cmd := docker(append([]string{"compose", "-p", "proj"}, args...)...)
		cmd.Dir = dir
		return cmd
	}
	t.Cleanup(func() { compose("down", "-v", "-t", "1").Run() })
	output(t, compose("up", "-d"))
	contains(t, "docker compose ps", output(t, compose("ps", "--format", "{{.Service}} {{.State}}")), "db running", "web running")
	eventually(t, "web's answer from db", func() bool { return strings.Contains(output(t, compose("logs", "web")), "asked") })
	output(t, compose("down", "-v", "-t", "1"))
	if left := output(t, docker("ps", "-aq", "--filter", "label=com.docker.compose.project=proj")); left != "" {
		t.Errorf("compose down left %s", left)
	}
}

func TestSwarmOnOneNode(t *testing.T) {
	output(t, docker("swarm", "init", "--advertise-addr", "127.0.0.1"))
	t.Cleanup(func() { docker("swarm", "leave", "--force").Run() })
	output(t, docker("service", "create", "--detach", "--name", "svc", "--replicas", "2", "--no-resolve-image", image, "sleep", "1d"))
	eventually(t, "two tasks", func() bool {
		return strings.Count(output(t, docker("service", "ps", "svc", "--format", "{{.CurrentState}}")), "Running") == 2
	})
	output(t, docker("service", "rm", "svc"))
}

// The machine's own docker CLI, of another version, is a foreign client.
func TestAForeignCLI(t *testing.T) {
	foreign, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("no other docker CLI on this machine")
	}
	if got := output(t, command(foreign, "run", "--rm", image, "echo", "foreign")); got != "foreign\n" {
		t.Errorf("printed %q", got)
	}
}
