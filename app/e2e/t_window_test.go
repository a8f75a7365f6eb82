//go:build e2e && linux

package e2e

import (
	"bytes"
	"fmt"
	"image/color"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The window that people get, on a display, over the suite's engine: it shows a container's state, follows its end
// without being asked, and ends when it is told to.
func TestT01TheWindowShowsAContainersState(t *testing.T) {
	const name = "0-window" // the first row
	t.Cleanup(func() { docker("rm", "-f", name).Run() })
	output(t, docker("run", "-d", "--stop-timeout", "1", "--name", name, image, "sleep", "100000"))
	if err := os.WriteFile(filepath.Join(world.home, "window.json"), []byte(`{"width":1280,"height":800,"look":"dark"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	env := append(environ(), "DISPLAY="+display(t), "LIBGL_ALWAYS_SOFTWARE=1", "FYNE_SCALE=1", "XDG_RUNTIME_DIR="+t.TempDir(), "FYNE_PLATFORM=x11")
	desktop := exec.Command(bin("cove-desktop"))
	desktop.Env = env
	said := new(bytes.Buffer)
	desktop.Stdout, desktop.Stderr = said, said
	if err := desktop.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var end error
	go func() { end = desktop.Wait(); close(ended) }()
	t.Cleanup(func() {
		desktop.Process.Kill()
		<-ended
		t.Logf("cove-desktop said: %s", said)
	})

	var window string
	eventually(t, "a window with the title Cove", func() bool {
		select {
		case <-ended:
			t.Fatalf("cove-desktop ended: %v", end)
		default:
		}
		find := command("xdotool", "search", "--onlyvisible", "--name", "^Cove$")
		find.Env = env
		out, _ := find.Output()
		window = strings.TrimSpace(string(out))
		return window != ""
	})
	// The dot of the first row (ui/view/table.go): filled with green while it runs, a ring when it has ended.
	dot := func() color.NRGBA {
		shoot := command("import", "-window", window, "png:-")
		shoot.Env = env
		out, err := shoot.Output()
		if err != nil {
			return color.NRGBA{}
		}
		img, err := png.Decode(bytes.NewReader(out))
		if err != nil {
			return color.NRGBA{}
		}
		return color.NRGBAModel.Convert(img.At(277, 169)).(color.NRGBA)
	}
	green, ground := color.NRGBA{0x2e, 0xc2, 0x7e, 255}, color.NRGBA{0x15, 0x1b, 0x26, 255}
	eventually(t, "the green dot of a container that runs", func() bool { return dot() == green })
	output(t, docker("stop", name))
	eventually(t, "the ring of one that has ended", func() bool { return dot() == ground })

	desktop.Process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
		if end != nil {
			t.Errorf("cove-desktop ended with %v", end)
		}
	case <-time.After(patience):
		t.Fatal("cove-desktop does not end")
	}
	// Where there is no session bus, a library would start one that nobody ends.
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, name := range names {
		if comm, _ := os.ReadFile(name); string(comm) == "dbus-daemon\n" {
			if env, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "environ")); bytes.Contains(env, []byte(world.home)) {
				t.Errorf("cove-desktop left a session bus behind: %s", name)
			}
		}
	}
	if s := said.String(); strings.Contains(s, "call thread") || strings.Contains(s, "panic:") {
		t.Errorf("cove-desktop complains:\n%s", s)
	}
}

// Where there is no display, the window says what it needs.
func TestT02AWindowWithoutADisplaySaysSo(t *testing.T) {
	desktop := exec.Command(bin("cove-desktop"))
	desktop.Env = append(environ(), "DISPLAY=", "WAYLAND_DISPLAY=", "XDG_RUNTIME_DIR="+t.TempDir())
	out, err := desktop.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no window can be opened here") || strings.Contains(string(out), "panic:") {
		t.Errorf("cove-desktop without a display = %v\n%s", err, out)
	}
}

// display starts an X server of its own and returns its name.
func display(t *testing.T) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// Without -noreset the server starts anew when its last client goes, and refuses whoever comes in that moment.
	x := exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", "1280x800x24", "-nolisten", "tcp", "-noreset")
	x.ExtraFiles = []*os.File{w}
	err = x.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Process.Kill(); x.Wait() })
	b := make([]byte, 16)
	n, err := r.Read(b)
	if err != nil && err != io.EOF || n == 0 {
		t.Fatalf("Xvfb gives no display: %v", err)
	}
	return fmt.Sprint(":", strings.TrimSpace(string(b[:n])))
}
