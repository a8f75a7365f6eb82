package hostproxy

import "github.com/lima-vm/lima/v2/pkg/osutil"

// system is what the network settings say. Proxies that want a login have their password in the keychain
// and are not among them, nor are the list of exceptions, whose form is another, and automatic
// configuration (PAC), which would have to be run.
func system() (Proxies, error) {
	found, err := osutil.ProxySettings()
	if err != nil {
		return Proxies{}, err
	}
	p, err := Environment(func(name string) string { return found[name] })
	p.From = "system settings"
	return p, err
}
