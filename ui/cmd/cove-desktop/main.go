//go:build desktop && cgo

// Command cove-desktop is Cove's window: a client of coved and of docker.sock, and nothing else. It can end at any
// time and no container notices.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/app"
	"github.com/covedesk/cove/app/api"
	coved "github.com/covedesk/cove/app/client"
	"github.com/covedesk/cove/ui/model"
	"github.com/covedesk/cove/ui/view"
	"github.com/docker/docker/client"
)

// tick is how often ages move on, and the attention of an unused window is looked at.
const tick = 10 * time.Second

func main() {
	// Fyne itself ends at SIGINT and SIGTERM.
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "cove-desktop:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	home, err := api.FindHome()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(home), 0o700); err != nil {
		return fmt.Errorf("make Cove's folder: %w", err)
	}
	docker, err := client.NewClientWithOpts(client.WithHost(home.DockerHost()), client.WithAPIVersionNegotiation())
	if err != nil {
		return fmt.Errorf("make the engine's client: %w", err)
	}
	defer docker.Close()

	ownNoBus()
	app.SetMetadata(fyne.AppMetadata{ID: "io.github.covedesk.cove", Name: "Cove", Migrations: map[string]bool{"fyneDo": true}})
	a := app.New()
	keep := view.Remember(home.Dir("window.json"))
	look := &view.Theme{Variant: keep.Variant()}
	a.Settings().SetTheme(look)
	a.SetIcon(view.Icon())
	win := a.NewWindow("Cove")
	win.Resize(keep.Size())

	var w *view.Window
	store := model.New(coved.New(home), docker, func() { w.Changed() })
	w = view.New(win, look, store)
	a.Lifecycle().SetOnEnteredForeground(func() { w.Focus(true) })
	a.Lifecycle().SetOnExitedForeground(func() { w.Focus(false) })
	a.Lifecycle().SetOnStopped(w.End)
	win.SetOnClosed(func() { keep.Save(look.Variant, win.Canvas().Size()) })

	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { store.Run(ctx); close(done) }()
	go func() {
		for t := time.NewTicker(tick); ; {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				w.Tick()
			}
		}
	}()
	err = show(win)
	cancel()
	<-done
	return err
}

// ownNoBus names the place of the user's session bus where nothing names one. With no name at all Fyne's library
// starts a bus (dbus-launch), which nobody ends.
func ownNoBus() {
	const name = "DBUS_SESSION_BUS_ADDRESS"
	if runtime.GOOS == "linux" && os.Getenv(name) == "" {
		os.Setenv(name, fmt.Sprintf("unix:path=/run/user/%d/bus", os.Getuid()))
	}
}

// show returns when the window was closed. Where there is no display, Fyne panics with GLFW's error.
func show(win fyne.Window) (err error) {
	defer func() {
		p := recover()
		if e, is := p.(error); is && strings.Contains(e.Error(), "GLFW") {
			err = errors.New("no window can be opened here. It needs X11 or Wayland (DISPLAY or WAYLAND_DISPLAY names it) and OpenGL; cove, the command, needs neither")
		} else if p != nil {
			panic(p)
		}
	}()
	win.ShowAndRun()
	return nil
}
