package lifecycle

import (
	"testing"

	"github.com/covedesk/cove/app/api"
)

func TestNext(t *testing.T) {
	all := map[api.Phase]map[Event]api.Phase{
		api.Stopped:  {Start: api.Starting},
		api.Starting: {Up: api.Running, Stop: api.Stopping, Fail: api.Failed},
		api.Running:  {Stop: api.Stopping, Fail: api.Failed, Lost: api.Starting, Suspend: api.Suspending},
		api.Stopping: {Down: api.Stopped},
		api.Failed:   {Start: api.Starting, Stop: api.Stopped},

		api.Suspending: {Saved: api.Suspended, Unsaved: api.Running, Fail: api.Failed, Lost: api.Starting},
		api.Suspended:  {Start: api.Resuming},
		api.Resuming:   {Up: api.Running, Stop: api.Stopping, Fail: api.Failed, Cold: api.Starting},
	}
	for _, p := range []api.Phase{api.Stopped, api.Starting, api.Running, api.Stopping, api.Failed, api.Suspending, api.Suspended, api.Resuming} {
		for _, e := range []Event{Start, Up, Stop, Down, Fail, Lost, Suspend, Saved, Unsaved, Cold} {
			got, err := Next(p, e)
			want, ok := all[p][e]
			if !ok {
				want = p
			}
			if got != want || (err == nil) != ok {
				t.Errorf("Next(%s, %s) = %s, %v; want %s, moved %v", p, e, got, err, want, ok)
			}
		}
	}
}
