package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy/ports"
)

// maxAsked bounds the asks that are worked on at once; the guest waits with more.
const maxAsked = 64

// asksSession answers what the guest asks, until the session ends.
func (v *vm) asksSession(ctx context.Context) error {
	conn, err := v.Dial(ctx, protocol.ServiceAsks)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	in, out := protocol.NewReader(conn), protocol.NewWriter(conn)
	v.held = nil
	room := make(chan struct{}, maxAsked)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		m, err := in.Read()
		if err != nil {
			return err
		}
		if m.Ask == nil {
			return errors.New("the guest said something else than an ask")
		}
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			out.Write(protocol.Message{Answer: &protocol.Answer{ID: m.Ask.ID, Error: asAskError(v.answer(*m.Ask))}})
		})
	}
}

// answer does what the guest asks.
func (v *vm) answer(a protocol.Ask) error {
	switch {
	case a.Held != nil:
		if len(v.held) > ports.MaxBinds {
			return &protocol.AskError{Kind: protocol.AskNotOffered, Text: "that are more ports than a host has"}
		}
		v.held = append(v.held, a.Held.Binds...) // the guest waits for each answer
		if a.Held.More {
			return nil
		}
		held := v.held
		v.held = nil
		return v.changePorts(func() error {
			select {
			case <-v.listed:
			default:
				close(v.listed)
			}
			return v.d.holdPorts(held)
		})
	case a.Bind != nil:
		err := v.changePorts(func() error { return v.d.ports.Bind(*a.Bind) })
		var refused *protocol.AskError
		if errors.As(err, &refused) && refused.Kind == protocol.AskDenied {
			v.d.life.Notice(fmt.Sprintf("A port was not published: %v. %s", err, lowPorts))
		} else if err != nil && a.Bind.HostNetwork {
			v.unlistened(*a.Bind, err)
		}
		return err
	case a.Release != nil:
		return v.changePorts(func() error { v.d.ports.Release(a.Release.Key); return nil })
	case a.Open != nil:
		return v.open(*a.Open)
	}
	return &protocol.AskError{Kind: protocol.AskNotOffered, Text: "this version of Cove does not do that"}
}

// changePorts changes the host's ports for this guest, while they are its own.
func (v *vm) changePorts(f func() error) error {
	v.asking.Lock()
	defer v.asking.Unlock()
	if v.left {
		return &protocol.AskError{Kind: protocol.AskFailed, Text: "the VM has ended"}
	}
	return f()
}

// settlePorts lets go of the ports of a guest before this one that its engine, which has started its
// containers, has not asked for.
func (v *vm) settlePorts() {
	select {
	case <-v.listed:
		v.changePorts(func() error { v.d.ports.Settle(); return nil })
	case <-v.done:
	}
}

// leavePorts lets go of the guest's ports, when it is gone. One that sleeps keeps them.
func (v *vm) leavePorts(asleep bool) {
	v.asking.Lock()
	defer v.asking.Unlock()
	v.left = true
	v.d.ports.Suspend()
	if !asleep {
		v.d.ports.Clear()
	}
}

// holdPorts makes these the ports of the host, and tells people which of them it has not.
func (d *Daemon) holdPorts(binds []protocol.Bind) error {
	err := d.ports.Hold(binds)
	if err != nil {
		d.life.Notice(fmt.Sprintf("Not every published port is on the host: %s. It is tried again; `cove ports` shows how it is.", strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	return err
}

func asAskError(err error) *protocol.AskError {
	var e *protocol.AskError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return e
	}
	return &protocol.AskError{Kind: protocol.AskFailed, Text: err.Error()}
}
