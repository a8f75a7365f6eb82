package desktop

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// patience is for a machine that does much else.
const patience = time.Minute

// Names of the Secret Service API.
const (
	name    = "org.freedesktop.secrets"
	path    = dbus.ObjectPath("/org/freedesktop/secrets")
	service = "org.freedesktop.Secret.Service"
	none    = dbus.ObjectPath("/")
)

// start runs a program until the test ends.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if _, err := exec.LookPath(cmd.Path); err != nil {
		t.Fatalf("%v: run make deps", err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// Bus starts a session bus of the test's own, and makes it the one that this process finds. It starts no
// service by itself, so there is nobody to show a window either.
func Bus(t *testing.T) *dbus.Conn {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv("XDG_DATA_HOME", filepath.Join(dir, "data"))
	t.Setenv("DISPLAY", "")
	t.Setenv("WAYLAND_DISPLAY", "")
	socket, err := os.MkdirTemp("", "cove-bus-") // a socket's path is short, and a test's folder long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(socket) })
	conf := filepath.Join(dir, "bus.conf")
	err = os.WriteFile(conf, fmt.Appendf(nil, `<busconfig><type>session</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`, socket), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command("dbus-daemon", "--config-file="+conf, "--nofork", "--nopidfile", "--nosyslog", "--print-address=1")
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, daemon)
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("dbus-daemon did not start: %v", err)
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", strings.TrimSpace(address))
	conn, err := dbus.Connect(strings.TrimSpace(address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Keyring starts GNOME's keyring on a bus, with an empty keyring that is open.
func Keyring(t *testing.T, conn *dbus.Conn) {
	t.Helper()
	daemon := exec.Command("gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets")
	daemon.Stdin = strings.NewReader("password of the keyring")
	start(t, daemon)
	Until(t, "the keyring is there", func() bool {
		keyring := none
		err := conn.Object(name, path).Call(service+".ReadAlias", dbus.FlagNoAutoStart, "default").Store(&keyring)
		return err == nil && keyring != none
	})
}

// Lock locks what Keyring made.
func Lock(t *testing.T, conn *dbus.Conn) {
	t.Helper()
	var done []dbus.ObjectPath
	prompt := none
	login := dbus.ObjectPath("/org/freedesktop/secrets/collection/login")
	if err := conn.Object(name, path).Call(service+".Lock", 0, []dbus.ObjectPath{login}).Store(&done, &prompt); err != nil || len(done) != 1 {
		t.Fatalf("lock the keyring: %v, %v", done, err)
	}
}

// Until waits for something to be so.
func Until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// SecretTool runs libsecret's own client.
func SecretTool(t *testing.T, in string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "secret-tool", args...)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) > 0 {
		t.Fatalf("secret-tool %v: %v\n%s", args, err, out)
	}
	return string(out)
}
