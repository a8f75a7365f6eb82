package daemon

import (
	"context"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/internal/credentials"
)

// keepLogins makes docker use Cove's credential helper once the engine runs, where it would keep passwords in
// plain text and where nothing is at stake: see credentials.Setup.Begin. The user is told the first time.
func (d *Daemon) keepLogins(ctx context.Context) {
	for {
		state, changed := d.life.State()
		if state.Phase == api.Running {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
	d.settingsLock.Lock()
	settings, err := d.store()
	d.settingsLock.Unlock()
	if err != nil || settings.Values().CredentialsOff {
		return
	}
	setup, err := credentials.New(d.home.Dir)
	if err != nil {
		d.log.Warn("docker's logins", "err", err)
		return
	}
	begun, err := setup.Begin(ctx)
	if err != nil {
		d.log.Warn("docker's logins", "err", err)
	}
	if !begun.Did {
		return
	}
	d.log.Info("docker keeps logins by docker-credential-cove")
	if begun.First {
		d.life.Notice("docker login keeps passwords in this system's keystore now, and not in plain text: docker-credential-cove is the credsStore in docker's settings. `cove credentials restore` takes that back.")
	}
}

// leaveLogins takes that back when coved ends, if nobody logged in.
func (d *Daemon) leaveLogins() {
	setup, err := credentials.New(d.home.Dir)
	if err == nil {
		err = setup.End(context.Background())
	}
	if err != nil {
		d.log.Warn("restore docker's credsStore", "err", err)
	}
}
