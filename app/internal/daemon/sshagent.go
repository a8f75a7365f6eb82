package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
)

const (
	// maxOpened bounds the connections of the guest to services of the host: what a hostile guest can
	// take of our memory and of the user's agent. The guest itself opens as many.
	maxOpened = 256
	// openPatience bounds the way to the service and back to the guest, so that a hung agent does not
	// keep the room for asks.
	openPatience = 10 * time.Second
	// refusalEvery is how long it must be quiet for a refusal to be logged: a container that asks in a
	// loop must not push everything else out of the log.
	refusalEvery = time.Second
)

// agentVariable names the socket of the user's ssh agent (ssh-agent(1)).
const agentVariable = "SSH_AUTH_SOCK"

// open gives the guest a connection to a service of the host that it asked for. It returns once both
// sides are joined.
func (v *vm) open(o protocol.Open) error {
	if o.Service != protocol.HostServiceSSHAgent {
		return &protocol.AskError{Kind: protocol.AskNotOffered, Text: fmt.Sprintf("this version of Cove offers no service %.40q", o.Service)}
	}
	select {
	case v.opened <- struct{}{}:
	default:
		return fmt.Errorf("the guest has %d connections to services of the host open, which is all it may", maxOpened)
	}
	ctx, cancel := context.WithTimeout(context.Background(), openPatience)
	defer cancel()
	agent, err := v.d.dialAgent(ctx)
	if err != nil {
		<-v.opened
		if now := time.Now().UnixNano(); now-v.refused.Swap(now) > int64(refusalEvery) {
			v.d.log.Warn("the ssh agent is not reached for a container", "err", err)
		}
		return err
	}
	guest, err := v.Dial(ctx, protocol.CallbackService(o.Call))
	if err != nil {
		agent.Close()
		<-v.opened
		return err
	}
	// It ends with either side, at the latest with the machine, whose end closes the guest's.
	go func() {
		defer func() { <-v.opened }()
		if err := proxy.Join(guest, agent, nil); err != nil {
			v.d.log.Debug("ssh agent", "err", err)
		}
	}()
	return nil
}

// dialAgent connects to the user's ssh agent, as it is now: people log in anew and change the setting.
func (d *Daemon) dialAgent(ctx context.Context) (proxy.Conn, error) {
	d.settingsLock.Lock()
	s, err := d.store()
	d.settingsLock.Unlock()
	if err != nil {
		return nil, err
	}
	at, err := agentAt(s.Values().SSHAgent, os.Getenv)
	if err != nil {
		return nil, err
	}
	conn, err := dialAgentSocket(ctx, at)
	if err != nil {
		return nil, fmt.Errorf("reach the ssh agent at %s (the setting ssh-agent names another): %w", at, err)
	}
	return conn, nil
}

// agentAt is where the setting says that the agent is.
func agentAt(setting string, env func(string) string) (string, error) {
	switch setting {
	case "off":
		return "", &protocol.AskError{Kind: protocol.AskNotOffered, Text: "the setting ssh-agent is off"}
	case "":
		at := env(agentVariable)
		if at == "" {
			at = usualAgent
		}
		if at == "" {
			return "", errors.New("there is no ssh agent: " + agentVariable + " was not set where coved was started. Start an agent, then `cove quit` and `cove start` from there; or set ssh-agent to the path of its socket")
		}
		return at, nil
	}
	return setting, nil
}
