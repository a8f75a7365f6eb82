package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/covedesk/cove/app/api"
)

func TestPortsAreListedWithTheirFaults(t *testing.T) {
	ok := api.Port{Protocol: "tcp", Address: "127.0.0.1:80", Also: "[::1]:80", Target: "172.17.0.2:80"}
	bad := api.Port{Protocol: "udp", Address: "127.0.0.1:53", Fault: "the host's 127.0.0.1:53/udp: address already in use"}
	for _, row := range []struct {
		says   string
		ports  []api.Port
		faulty bool
	}{
		{"no column without a fault", []api.Port{ok}, false},
		{"a column with one", []api.Port{ok, bad}, true},
	} {
		var out bytes.Buffer
		if err := listPorts(&out, row.ports); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if got := strings.HasSuffix(strings.TrimSpace(lines[0]), "FAULT"); got != row.faulty || len(lines) != 1+len(row.ports) {
			t.Errorf("%s: listPorts wrote\n%s", row.says, out.String())
		}
		if row.faulty && (!strings.HasSuffix(lines[2], bad.Fault) || !strings.HasSuffix(lines[1], "-")) {
			t.Errorf("%s: listPorts wrote\n%s", row.says, out.String())
		}
	}
}
