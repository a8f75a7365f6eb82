package credhelper

import (
	"github.com/covedesk/cove/credhelper/keystore"
)

// Status is what `status --json` prints.
type Status struct {
	Choice    Choice     `json:"choice"`
	Keystores []Keystore `json:"keystores"` // of this system, in order of preference
	Problem   string     `json:"problem,omitempty"`
}

// Keystore is what the test of one came to.
type Keystore struct {
	Name   string `json:"name"`
	Title  string `json:"title"`
	Chosen bool   `json:"chosen"`
	Usable bool   `json:"usable"` // a probe was stored, read and erased, without asking the user
	Locked bool   `json:"locked"` // it would have asked
	Why    string `json:"why"`
	Remedy string `json:"remedy,omitempty"`
}

// Status tests every keystore of the system. It asks the user nothing and changes nothing.
func (h *Helper) Status() Status {
	st := Status{}
	var err error
	if st.Choice, err = h.choice(); err != nil {
		st.Problem = err.Error()
	}
	if unlock, err := h.locked(); err == nil {
		defer unlock()
	}
	for _, s := range h.stores(false) {
		k := Keystore{Name: s.Name(), Title: s.Title(), Chosen: s.Name() == st.Choice.Keystore}
		if err := keystore.Probe(s); err != nil {
			p := problem(err)
			k.Why, k.Remedy, k.Locked = p.Why, p.Remedy, p.Locked
		} else {
			k.Usable, k.Why = true, "A test entry was stored, read and erased."
		}
		st.Keystores = append(st.Keystores, k)
	}
	return st
}
