// Package lifecycle moves the engine through its phases. One pure function says which phase follows;
// a Life feeds it with what people ask for and with what happens to the machine, one thing at a time,
// so that two starts are one and a stop during a start wins.
package lifecycle

import (
	"fmt"

	"github.com/covedesk/cove/app/api"
)

// Event is what moves the phase.
type Event string

// The events.
const (
	Start Event = "start" // somebody wants the engine
	Up    Event = "up"    // it serves
	Stop  Event = "stop"  // somebody wants it to end
	Down  Event = "down"  // the machine is gone
	Fail  Event = "fail"  // it cannot start, or ended too often
	Lost  Event = "lost"  // the machine ended unasked, and is started again

	Suspend Event = "suspend" // it is to be saved
	Saved   Event = "saved"   // it is, and its machine is gone
	Unsaved Event = "unsaved" // it could not be, and goes on
	Cold    Event = "cold"    // what was saved cannot be used: it boots
)

// follows are the moves there are.
var follows = map[api.Phase]map[Event]api.Phase{
	api.Stopped:  {Start: api.Starting},
	api.Starting: {Up: api.Running, Stop: api.Stopping, Fail: api.Failed},
	api.Running:  {Stop: api.Stopping, Fail: api.Failed, Lost: api.Starting, Suspend: api.Suspending},
	api.Stopping: {Down: api.Stopped},
	api.Failed:   {Start: api.Starting, Stop: api.Stopped},

	api.Suspending: {Saved: api.Suspended, Unsaved: api.Running, Fail: api.Failed, Lost: api.Starting},
	api.Suspended:  {Start: api.Resuming},
	api.Resuming:   {Up: api.Running, Stop: api.Stopping, Fail: api.Failed, Cold: api.Starting},
}

// Next is the phase after an event. An event that means nothing in a phase is an error.
func Next(p api.Phase, e Event) (api.Phase, error) {
	n, ok := follows[p][e]
	if !ok {
		return p, fmt.Errorf("%s means nothing while %s", e, p)
	}
	return n, nil
}
