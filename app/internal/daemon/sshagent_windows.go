package daemon

import (
	"context"
	"net"

	"github.com/Microsoft/go-winio"
	"github.com/covedesk/cove/proxy"
)

// usualAgent is the pipe of the agent that comes with Windows.
const usualAgent = `\\.\pipe\openssh-ssh-agent`

func dialAgentSocket(ctx context.Context, path string) (proxy.Conn, error) {
	c, err := winio.DialPipeContext(ctx, path)
	if err != nil {
		return nil, err
	}
	return agentPipe{c}, nil
}

// agentPipe is a pipe of bytes, which has no half-close. The agent's clients end both directions at once,
// after the last answer, so either end is the end of both.
type agentPipe struct{ net.Conn }

func (p agentPipe) CloseWrite() error { return p.Close() }
func (p agentPipe) CloseRead() error  { return nil }
