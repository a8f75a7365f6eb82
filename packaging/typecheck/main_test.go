package main

import (
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	for _, row := range []struct{ says, dir, goos, want string }{
		{"a wrong method in a file with cgo is found", "testdata/wrong", "darwin", "Missing"},
		{"a file of another system is not looked at", "testdata/wrong", "linux", ""},
		{"what is right passes", "testdata/right", "darwin", ""},
	} {
		n, errs := run(row.dir, row.goos, "arm64", []string{"./..."})
		text := ""
		for _, err := range errs {
			text += err.Error() + "\n"
		}
		if n != 1 || (text == "") != (row.want == "") || !strings.Contains(text, row.want) {
			t.Errorf("%s: run(%q, %q) = %d packages, %q; want 1 and %q", row.says, row.dir, row.goos, n, text, row.want)
		}
	}
	if _, errs := run(".", "darwin", "none", []string{"."}); len(errs) == 0 {
		t.Error("an architecture that does not exist passes")
	}
	if _, errs := run(".", "darwin", "arm64", []string{"./none"}); len(errs) == 0 {
		t.Error("a package that does not exist passes")
	}
}
