package daemon

import (
	"fmt"
	"testing"
)

// A guest that wants every port must not fill the memory or the list of notices.
func TestPeopleAreToldOnceOfAPortAndNotWithoutEnd(t *testing.T) {
	v := new(vm)
	if !v.noteUnlistened("tcp 127.0.0.1:80") || v.noteUnlistened("tcp 127.0.0.1:80") {
		t.Error("a port is not told of exactly once")
	}
	told := 1
	for i := range 1000 {
		if v.noteUnlistened(fmt.Sprint(i)) {
			told++
		}
	}
	if told != maxUnlistened || len(v.missing) != maxUnlistened {
		t.Errorf("%d were told and %d are kept; want %d", told, len(v.missing), maxUnlistened)
	}
}
