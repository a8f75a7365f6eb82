package daemon

import (
	"testing"
)

func TestWhereTheAgentIs(t *testing.T) {
	env := func(value string) func(string) string {
		return func(name string) string {
			if name != "SSH_AUTH_SOCK" {
				t.Errorf("it asks the environment for %s", name)
			}
			return value
		}
	}
	for _, c := range []struct {
		is, setting, env, at string
	}{
		{"the environment names it", "", "/tmp/agent", "/tmp/agent"},
		{"the setting goes before the environment", "/run/mine", "/tmp/agent", "/run/mine"},
		{"off is off, whatever the environment says", "off", "/tmp/agent", ""},
		{"without either it is where the system has one", "", "", usualAgent},
	} {
		at, err := agentAt(c.setting, env(c.env))
		if at != c.at || (err != nil) != (c.at == "") {
			t.Errorf("%s: agentAt(%q) with %q = %q, %v; want %q", c.is, c.setting, c.env, at, err, c.at)
		}
	}
}
