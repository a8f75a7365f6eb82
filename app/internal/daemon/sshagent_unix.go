//go:build unix

package daemon

import (
	"context"
	"net"

	"github.com/covedesk/cove/proxy"
)

// usualAgent is where the agent is when nothing says so: nowhere.
const usualAgent = ""

func dialAgentSocket(ctx context.Context, path string) (proxy.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}
