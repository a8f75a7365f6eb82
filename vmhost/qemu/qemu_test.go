package qemu

import (
	"errors"
	"strings"
	"testing"

	"github.com/covedesk/cove/vmhost"
)

func TestCheckVersion(t *testing.T) {
	for _, row := range []struct {
		says, printed, version, problem, text string
	}{
		{"Debian 12's own QEMU is refused, and the remedy names backports", "QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7+deb12u14)\nCopyright (c) 2003-2022 Fabrice Bellard", "", vmhost.ProblemOldHypervisor, "backports"},
		{"an ancient one is refused", "QEMU emulator version 2.11.1", "", vmhost.ProblemOldHypervisor, "backports"},
		{"the last of 7 is refused", "QEMU emulator version 7.99.0", "", vmhost.ProblemOldHypervisor, "backports"},
		{"the first of 8 passes", "QEMU emulator version 8.0\n", "8.0", "", ""},
		{"the one of backports passes", "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)", "10.0.2", "", ""},
		{"one from a working tree passes", "QEMU emulator version 9.2.50 (v9.2.0-1234-gabc-dirty)", "9.2.50", "", ""},
		{"a warning before the version is skipped", "warning: TSC\nQEMU emulator version 9.0.1\n", "9.0.1", "", ""},
		{"nothing is refused", "", "", vmhost.ProblemNoHypervisor, "Install"},
		{"garbage is refused", "hello", "", vmhost.ProblemNoHypervisor, "Install"},
		{"a version that is no number is refused", "QEMU emulator version ten", "", vmhost.ProblemNoHypervisor, "Install"},
		{"another program of QEMU's is refused", "qemu-img version 10.0.2", "", vmhost.ProblemNoHypervisor, "Install"},
	} {
		got, err := checkVersion("/usr/bin/qemu", row.printed)
		if row.problem == "" {
			if got != row.version || err != nil {
				t.Errorf("%s: checkVersion(%q) = %q, %v; want %q", row.says, row.printed, got, err, row.version)
			}
			continue
		}
		var p *vmhost.Problem
		if !errors.As(err, &p) || p.ID != row.problem || !strings.Contains(p.Remedy, row.text) || !strings.Contains(p.Summary, "/usr/bin/qemu") {
			t.Errorf("%s: checkVersion(%q) = %q, %+v; want %s with %q in its remedy and the path in its summary", row.says, row.printed, got, p, row.problem, row.text)
		}
	}
}

func TestTail(t *testing.T) {
	for _, row := range []struct {
		says   string
		max    int
		writes []string
		want   string
	}{
		{"a new one is empty", 4, nil, ""},
		{"what fits is kept", 4, []string{"ab", "cd"}, "abcd"},
		{"what does not fit pushes out the oldest", 4, []string{"ab", "cd", "e"}, "bcde"},
		{"one large write leaves its end", 4, []string{"abcdefghij"}, "ghij"},
		{"a write of nothing changes nothing", 4, []string{"abc", ""}, "abc"},
		{"many small writes leave the last", 3, strings.Split(strings.Repeat("x", 1000)+"end", ""), "end"},
	} {
		tail := newTail(row.max)
		for _, w := range row.writes {
			if n, err := tail.Write([]byte(w)); n != len(w) || err != nil {
				t.Errorf("%s: Write(%q) = %d, %v; want all of it", row.says, w, n, err)
			}
			if len(tail.b) > 2*row.max {
				t.Errorf("%s: %d bytes are held; want no more than %d", row.says, len(tail.b), 2*row.max)
			}
		}
		if got := tail.String(); got != row.want {
			t.Errorf("%s: String = %q; want %q", row.says, got, row.want)
		}
	}
}
