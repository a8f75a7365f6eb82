//go:build linux

package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/covedesk/cove/proxy"
	"github.com/covedesk/cove/proxy/transport"
)

// Version is what the engine says of itself.
type Version struct {
	Version    string `json:"Version"`
	APIVersion string `json:"ApiVersion"`
}

// poll is how often a socket that is not there yet is looked for; a start is told apart to this.
const poll = 20 * time.Millisecond

// AwaitContainerd waits until containerd's socket takes connections.
func AwaitContainerd(ctx context.Context) error { return awaitSocket(ctx, containerdSocket) }

func awaitSocket(ctx context.Context, path string) error {
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(poll):
		}
	}
}

// Await waits until the engine answers, and returns its version.
func Await(ctx context.Context) (Version, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", Socket)
		},
	}}
	for {
		v, err := ask(ctx, &client)
		if err == nil {
			return v, nil
		}
		select {
		case <-ctx.Done():
			return Version{}, ctx.Err()
		case <-time.After(poll):
		}
	}
}

func ask(ctx context.Context, client *http.Client) (Version, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://engine/version", nil)
	if err != nil {
		return Version{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return Version{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Version{}, fmt.Errorf("the engine answers %s", resp.Status)
	}
	var v Version
	return v, json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&v)
}

// forwardPatience is how long a connection waits for an engine that is being started again.
const forwardPatience = time.Minute

// Forward joins an authenticated connection to the engine's socket.
func Forward(conn proxy.Conn) {
	engine, err := net.Dial("unix", Socket)
	for end := time.Now().Add(forwardPatience); err != nil && time.Now().Before(end); {
		time.Sleep(poll)
		engine, err = net.Dial("unix", Socket)
	}
	if err != nil {
		transport.Refuse(conn, "the engine does not take connections: "+err.Error())
		return
	}
	proxy.Join(conn, engine.(*net.UnixConn), nil)
}

// RemoveStale takes away what a dockerd that was killed left behind, so that the next one starts.
func RemoveStale() { os.Remove("/run/docker.pid") }
