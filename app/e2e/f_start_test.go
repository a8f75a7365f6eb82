//go:build e2e && linux

package e2e

import "testing"

// atStart is a test of settings that hold from the next start on. Starts take long, so these tests share them.
type atStart struct {
	says string
	keys []string           // that it sets; they are unset for the start after
	set  func(t *testing.T) // before the start
	seen func(t *testing.T) // after it
	gone func(t *testing.T) // after the start without them, where that is to be seen
}

func TestSettingsThatHoldFromTheNextStart(t *testing.T) {
	var held []atStart
	start := func(next ...atStart) {
		t.Helper()
		was := held
		for _, a := range was {
			for _, key := range a.keys {
				output(t, cove("config", "unset", key))
			}
		}
		held = next
		for _, a := range next {
			a.set(t)
		}
		output(t, cove("restart"))
		for _, a := range was {
			if a.gone != nil {
				t.Run(a.says+", no longer", a.gone)
			}
		}
		for _, a := range next {
			t.Run(a.says, a.seen)
		}
	}
	defer func() { start() }()
	own, lost := sharesOfOnesOwn(t)
	start(theHostsProxy(t), allAddresses(), own)
	start(containersProxies(t), lost)
}
