package daemon

import (
	"context"
	"errors"
	"fmt"
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
		err := v.ports.Hold(v.held)
		v.held = nil
		if err != nil {
			v.d.life.Notice(fmt.Sprintf("Not every published port is on the host: %v.", err))
		}
		return err
	case a.Bind != nil:
		err := v.ports.Bind(*a.Bind)
		var refused *protocol.AskError
		if errors.As(err, &refused) && refused.Kind == protocol.AskDenied {
			v.d.life.Notice(fmt.Sprintf("A port was not published: %v. %s", err, lowPorts))
		} else if err != nil && a.Bind.HostNetwork {
			v.unlistened(*a.Bind, err)
		}
		return err
	case a.Release != nil:
		v.ports.Release(a.Release.Key)
		return nil
	case a.Open != nil:
		return v.open(*a.Open)
	}
	return &protocol.AskError{Kind: protocol.AskNotOffered, Text: "this version of Cove does not do that"}
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
