package daemon

import (
	"os"

	"github.com/covedesk/cove/app/internal/dockerconfig"
	"github.com/covedesk/cove/app/internal/hostproxy"
	"github.com/covedesk/cove/app/internal/settings"
	"github.com/covedesk/cove/guestd/protocol"
)

// proxy is how the engine of the next start reaches the network; nil: directly. What of the host's own
// settings cannot be used is told, and the rest holds.
func (d *Daemon) proxy(s settings.Proxy) *protocol.Proxy {
	p, err := hostProxies(s, hostproxy.Host)
	if err != nil {
		d.log.Warn("host proxies", "err", err)
		d.life.Notice("A proxy of the host is not used: " + err.Error() + ". Set proxy.http and proxy.https, or proxy.mode to off.")
	}
	guest := p.ForGuest()
	d.containerProxies(guest, s.Containers)
	if p.IsZero() {
		return nil
	}
	d.log.Info("proxies", "from", p.From, "http", p.HTTP.String(), "https", p.HTTPS.String(), "direct", guest.No)
	return &protocol.Proxy{HTTP: protocol.NewSecret(guest.HTTP.RevealURL()), HTTPS: protocol.NewSecret(guest.HTTPS.RevealURL()), No: guest.No}
}

// hostProxies are those of the settings, and where they name none the host's.
func hostProxies(s settings.Proxy, host func(env func(string) string) (hostproxy.Proxies, error)) (hostproxy.Proxies, error) {
	if s.Off {
		return hostproxy.Proxies{}, nil
	}
	p := hostproxy.Proxies{HTTP: s.HTTP, HTTPS: s.HTTPS, No: s.No, From: "settings"}
	if !p.IsZero() {
		return p, nil
	}
	p, err := host(os.Getenv)
	if s.No != "" {
		p.No = s.No
	}
	return p, err
}

// containerProxies makes docker's clients give the proxies to what they run and build, or no longer.
func (d *Daemon) containerProxies(p hostproxy.Proxies, give bool) {
	var want *dockerconfig.Proxies
	if give && !p.IsZero() {
		want = &dockerconfig.Proxies{HTTP: p.HTTP.RevealURL(), HTTPS: p.HTTPS.RevealURL(), No: p.No}
	}
	docker, err := d.docker()
	if err == nil {
		err = docker.SetProxies(d.home.DockerHost(), want, d.home.Dir("proxies.sha256"))
	}
	if err != nil {
		d.log.Warn("proxies of containers", "err", err)
		d.life.Notice("Containers do not get the proxies as proxy.containers says: " + err.Error() + ".")
	}
}
