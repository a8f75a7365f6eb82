package dockerapi

import "time"

// Activity is how the engine is used through docker.sock. Active calls count, as [Classify] says, and passive
// ones never, not even one that had to wake the engine. A call that waits for the engine is open already.
// Every stream counts for as long as it is open: an attached `docker run`, `docker wait`, and also
// `docker logs -f` or `docker stats` of a container that does nothing, since somebody looks at it.
type Activity struct {
	Open int       // active calls in flight, streams among them
	Last time.Time // when the last one began or ended; zero before the first
}

// Activity is how it is now. To sleep because nobody uses the engine, look again after Engine began to say
// ErrAsleep: a call that came before is open, and one that comes later waits in Engine, open too.
func (f *Front) Activity() Activity {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.use
}

// used counts an active call, until the function that it gives is called.
func (f *Front) used() (end func()) {
	count := func(n int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.use.Open += n
		f.use.Last = f.now()
	}
	count(1)
	return func() { count(-1) }
}
