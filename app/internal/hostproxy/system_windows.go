package hostproxy

import (
	"errors"

	"golang.org/x/sys/windows/registry"
)

// internetSettings is where WinINET keeps the user's proxy. One that a script finds (PAC) is not there.
const internetSettings = `Software\Microsoft\Windows\CurrentVersion\Internet Settings`

func system() (Proxies, error) {
	k, err := registry.OpenKey(registry.CURRENT_USER, internetSettings, registry.QUERY_VALUE)
	if errors.Is(err, registry.ErrNotExist) {
		return Proxies{}, nil
	}
	if err != nil {
		return Proxies{}, err
	}
	defer k.Close()
	if on, _, err := k.GetIntegerValue("ProxyEnable"); err != nil || on == 0 {
		return Proxies{}, nil
	}
	server, _, err := k.GetStringValue("ProxyServer")
	if err != nil {
		return Proxies{}, nil
	}
	override, _, _ := k.GetStringValue("ProxyOverride")
	return winINET(server, override)
}
