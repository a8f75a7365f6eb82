//go:build !linux

package daemon

const lowPorts = "Publish a port from 1024 on."
