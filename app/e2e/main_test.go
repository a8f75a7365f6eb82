//go:build e2e && linux

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/covedesk/cove/app/internal/testregistry"
)

// patience bounds every single command. A boot takes 10 to 20 s on a quiet machine under software
// emulation; a busy one may take many times that.
const patience = 10 * time.Minute

// image is what the tests' containers are made from: busybox and the probe.
const image = "cove/test:latest"

var world struct {
	work string           // what packaging/e2e.sh laid out: bin/, busybox, probe
	home string           // COVE_HOME
	ca   *testregistry.CA // whom the engine believes
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		world.work = os.Getenv("COVE_E2E")
		if world.work == "" {
			fmt.Fprintln(os.Stderr, "COVE_E2E is not set: run these tests with `make test-e2e`")
			return 2
		}
		world.home = filepath.Join(world.work, "h")
		if err := setUp(); err != nil {
			fmt.Fprintln(os.Stderr, "set-up:", err)
			evidence()
			exec.Command(bin("cove"), "quit").Run()
			return 1
		}
		code := m.Run()
		if code != 0 {
			evidence()
		}
		if out, err := cove("quit").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "cove quit: %v\n%s", err, out)
			code = 1
		}
		if left := processes("qemu-system"); left != "" {
			fmt.Fprintln(os.Stderr, "left running:", left)
			code = 1
		}
		return code
	}())
}

func setUp() error {
	// Tests say themselves when the engine is to sleep.
	if out, err := cove("config", "set", "sleep.after", "off").CombinedOutput(); err != nil {
		return fmt.Errorf("cove config: %v\n%s", err, out)
	}
	if err := trust(); err != nil {
		return err
	}
	start := time.Now()
	if out, err := cove("start").CombinedOutput(); err != nil {
		return fmt.Errorf("cove start: %v\n%s", err, out)
	}
	fmt.Printf("the engine is up after %.1f s\n", time.Since(start).Seconds())
	plugins := filepath.Join(world.work, "docker", "cli-plugins")
	if err := os.MkdirAll(plugins, 0o700); err != nil {
		return err
	}
	for _, p := range []string{"docker-buildx", "docker-compose"} {
		if err := os.Symlink(bin(p), filepath.Join(plugins, p)); err != nil {
			return err
		}
	}
	root, err := testRoot()
	if err != nil {
		return err
	}
	load := docker("import", "--change", `CMD ["/bin/sh"]`, "-", image)
	load.Stdin = root
	if out, err := load.CombinedOutput(); err != nil {
		return fmt.Errorf("docker import: %v\n%s", err, out)
	}
	return nil
}

// trust has the engine, from its next start on, believe the tests' certificate authority.
func trust() (err error) {
	path := filepath.Join(world.work, "ca.pem")
	if world.ca == nil {
		if world.ca, err = testregistry.NewCA(); err != nil {
			return err
		}
		if err := os.WriteFile(path, world.ca.PEM, 0o600); err != nil {
			return err
		}
	}
	if out, err := cove("config", "set", "registry.ca", path).CombinedOutput(); err != nil {
		return fmt.Errorf("cove config: %v\n%s", err, out)
	}
	return nil
}

// testRoot is a container's root with busybox and the probe in it, as a tar.
func testRoot() (*bytes.Buffer, error) {
	buf := new(bytes.Buffer)
	w := tar.NewWriter(buf)
	for _, dir := range []string{"bin/", "etc/", "tmp/", "root/", "var/", "data/"} {
		w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o1777})
	}
	for src, dst := range map[string]string{"busybox": "bin/busybox", "probe": "bin/probe"} {
		b, err := os.ReadFile(filepath.Join(world.work, src))
		if err != nil {
			return nil, err
		}
		w.WriteHeader(&tar.Header{Name: dst, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(b))})
		w.Write(b)
	}
	for _, applet := range strings.Fields("sh cat echo ls sleep true false head tail wc dd sha256sum id hostname touch mkdir rm ps kill env date stty test nc wget grep tr trap seq yes mount ip") {
		w.WriteHeader(&tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777})
	}
	passwd := "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n"
	w.WriteHeader(&tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(passwd))})
	w.Write([]byte(passwd))
	return buf, w.Close()
}

func bin(name string) string { return filepath.Join(world.work, "bin", name) }

func socket() string { return filepath.Join(world.home, "run", "docker.sock") }

func environ() []string {
	return append(os.Environ(), "COVE_HOME="+world.home, "DOCKER_CONFIG="+filepath.Join(world.work, "docker"), "DOCKER_HOST=unix://"+socket())
}

// command is a program with the test's environment, ended when it is out of patience.
func command(path string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = environ()
	// What the command left in the background must not hold the test.
	cmd.WaitDelay = 10 * time.Second
	cmd.Cancel = func() error { cancel(); return cmd.Process.Kill() }
	return cmd
}

func cove(args ...string) *exec.Cmd   { return command(bin("cove"), args...) }
func docker(args ...string) *exec.Cmd { return command(bin("docker"), args...) }

// output runs a command that must work and returns its standard output.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// failure runs a command that must fail and returns all it printed and its exit status.
func failure(t *testing.T, cmd *exec.Cmd) (string, int) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("%s: worked; want a failure\n%s", strings.Join(cmd.Args, " "), out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// eventually waits for a condition. It is for what the system does in its own time, never a fixed sleep.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// contains fails the test unless every part is in the text.
func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s does not say %q:\n%s", what, p, text)
		}
	}
}

// processes lists processes of this user by a part of their command line.
func processes(part string) string {
	out, _ := exec.Command("pgrep", "-a", "-u", fmt.Sprint(os.Getuid()), "-f", part).Output()
	var mine []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, world.work) && !strings.Contains(line, "pgrep") {
			mine = append(mine, strings.TrimSpace(line))
		}
	}
	return strings.Join(mine, "\n")
}

// evidence prints what a person would look at after a failure.
func evidence() {
	for _, args := range [][]string{{"status"}, {"logs", "coved", "--tail", "60"}, {"logs", "console", "--tail", "60"}} {
		out, _ := cove(args...).CombinedOutput()
		fmt.Fprintf(os.Stderr, "--- cove %s\n%s\n", strings.Join(args, " "), out)
	}
}
