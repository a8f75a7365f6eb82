package qemu

import "testing"

func TestWriteFailed(t *testing.T) {
	for _, row := range []struct {
		says         string
		data         map[string]any
		full, paused bool
	}{
		{"a full disk pauses, to wait for room", map[string]any{"nospace": true, "reason": "No space left on device", "action": "stop", "operation": "write"}, true, true},
		{"a quota that is used up is a full disk", map[string]any{"nospace": false, "reason": "Disk quota exceeded", "action": "stop", "operation": "write"}, true, true},
		{"another error pauses too", map[string]any{"nospace": false, "reason": "Input/output error", "action": "stop", "operation": "write"}, false, true},
		{"one that was told to the guest does not", map[string]any{"nospace": false, "reason": "Input/output error", "action": "report", "operation": "read"}, false, false},
		{"nor does one that says nothing", nil, false, false},
	} {
		w, paused := writeFailed(row.data)
		if w.full != row.full || paused != row.paused {
			t.Errorf("%s: writeFailed(%v) = %+v, %t; want full %t, paused %t", row.says, row.data, w, paused, row.full, row.paused)
		}
	}
}
