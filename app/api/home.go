package api

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// HomeEnv moves everything of ours elsewhere.
const HomeEnv = "COVE_HOME"

// maxSocket is the longest path of a socket: 104 bytes with the final zero on macOS (sys/un.h), 108 on Linux.
const maxSocket = 103

// Home is the folder that holds everything of ours; docs/layout.md says what is where.
type Home string

// FindHome gives the user's home of Cove: COVE_HOME, or ~/.cove (%LOCALAPPDATA%\Cove on Windows).
// A path too long for the sockets in it is an error that says so.
func FindHome() (Home, error) {
	dir := os.Getenv(HomeEnv)
	if dir == "" {
		var err error
		if dir, err = defaultHome(); err != nil {
			return "", fmt.Errorf("find Cove's folder: %w", err)
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find Cove's folder: %w", err)
	}
	h := Home(dir)
	if longest := h.Docker(); runtime.GOOS != "windows" && len(longest) > maxSocket {
		return "", &Error{Failure{Cause: "path-too-long",
			Summary: fmt.Sprintf("The path %s has %d bytes, and a socket's path can have %d.", longest, len(longest), maxSocket),
			Remedy:  "Set " + HomeEnv + " to a shorter folder."}}
	}
	return h, nil
}

func defaultHome() (string, error) {
	if runtime.GOOS == "windows" {
		dir, err := os.UserCacheDir() // %LocalAppData%
		return filepath.Join(dir, "Cove"), err
	}
	dir, err := os.UserHomeDir()
	return filepath.Join(dir, ".cove"), err
}

// IsDefault says whether this is the home without COVE_HOME.
func (h Home) IsDefault() bool {
	dir, err := defaultHome()
	return err == nil && dir == string(h)
}

// Dir is a folder or file of the home.
func (h Home) Dir(parts ...string) string {
	return filepath.Join(append([]string{string(h)}, parts...)...)
}

// Docker and API are the sockets.
func (h Home) Docker() string { return h.socket("docker.sock", "docker") }
func (h Home) API() string    { return h.socket("cove.sock", "api") }

func (h Home) socket(file, pipe string) string {
	if runtime.GOOS == "windows" {
		return `\\.\pipe\cove-` + pipe
	}
	return h.Dir("run", file)
}

// DockerHost is the value of DOCKER_HOST that leads here.
func (h Home) DockerHost() string {
	if runtime.GOOS == "windows" {
		return "npipe:////./pipe/cove-docker"
	}
	return "unix://" + h.Docker()
}
