package daemon

import (
	"fmt"

	"github.com/covedesk/cove/guestd/protocol"
)

// maxUnlistened bounds what people are told of ports that a guest wanted and did not get.
const maxUnlistened = 64

// unlistened tells people, once an address, that a program on the host network is not reached there: its
// container runs all the same, and nobody else would say it.
func (v *vm) unlistened(b protocol.Bind, err error) {
	if v.noteUnlistened(b.Protocol + " " + b.Address) {
		v.d.life.Notice(fmt.Sprintf("A container on the host network is not reached from this machine: %v. It is tried again every 30 seconds.", err))
	}
}

// noteUnlistened says whether people are to be told.
func (v *vm) noteUnlistened(address string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, told := v.missing[address]; told || len(v.missing) >= maxUnlistened {
		return false
	}
	if v.missing == nil {
		v.missing = map[string]struct{}{}
	}
	v.missing[address] = struct{}{}
	return true
}
