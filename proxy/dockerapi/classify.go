package dockerapi

import (
	"net/http"
	"regexp"
	"strings"
)

// Call is what the front knows of a request from its method and path.
type Call struct {
	// Active calls count as use of the engine and wake it; passive ones (ping, version, info, lists,
	// inspections, events) are what clients ask all day.
	Active bool
	// Stream calls turn the connection into a byte stream, with or without an HTTP upgrade.
	Stream bool
	// Mounts says where in the body mounts may be named.
	Mounts MountsIn
	// Swarm calls make the engine a node of a swarm.
	Swarm bool
}

// MountsIn is a kind of request body that can name files of the host.
type MountsIn int

const (
	NoMounts MountsIn = iota
	ContainerMounts
	VolumeMounts
	ServiceMounts
)

// version is what the engine's router takes for one: more than the versions there are, such as 1.47.0.
var version = regexp.MustCompile(`^/v[0-9.]+/`)

// Classify says what kind of call a request is: engine API 1.56.
func Classify(method, path string) Call {
	path = version.ReplaceAllString(path, "/")
	parts := strings.Split(strings.Trim(path, "/"), "/")
	last := parts[len(parts)-1]
	var c Call
	switch method {
	case http.MethodGet, http.MethodHead:
		// Reading bulk content is work; so is following a container's output or its numbers, asking a
		// registry, and profiling the engine. A volume or network may be named like a verb.
		switch last {
		case "logs", "stats", "archive", "export", "get", "ws", "top", "changes":
			c.Active = len(parts) > 2 || parts[0] == "images"
		case "search":
			c.Active = len(parts) == 2 && parts[0] == "images"
		}
		c.Active = c.Active || parts[0] == "distribution" || parts[0] == "debug"
	default:
		c.Active = true
	}
	switch {
	case method == http.MethodPost && len(parts) == 3 && parts[0] == "containers" && last == "attach",
		method == http.MethodPost && len(parts) == 3 && parts[0] == "exec" && last == "start",
		method == http.MethodPost && len(parts) == 1 && (last == "session" || last == "grpc"),
		method == http.MethodGet && len(parts) == 4 && parts[0] == "containers" && last == "ws":
		c.Stream = true
	}
	if method == http.MethodPost {
		switch {
		case len(parts) == 2 && parts[0] == "containers" && last == "create":
			c.Mounts = ContainerMounts
		case len(parts) == 2 && parts[0] == "volumes" && last == "create":
			c.Mounts = VolumeMounts
		case parts[0] == "services" && (last == "create" || last == "update"):
			c.Mounts = ServiceMounts
		case len(parts) == 2 && parts[0] == "swarm" && (last == "init" || last == "join"):
			c.Swarm = true
		}
	}
	return c
}
