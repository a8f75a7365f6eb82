//go:build unix && !darwin

package netstack

// SystemResolver is the host's own: the hosts file and resolv.conf.
func SystemResolver() Resolver {
	return &FileResolver{Hosts: "/etc/hosts", Servers: "/etc/resolv.conf"}
}
