package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	for _, row := range []struct{ says, dir, goos, want string }{
		{"a wrong method in a file with cgo is found, with its place", "testdata/wrong", "darwin", "cgo_darwin.go:6:18: T{}.Missing undefined"},
		{"a file of another system is not looked at", "testdata/wrong", "linux", ""},
		{"what is right passes", "testdata/right", "darwin", ""},
	} {
		n, text := checked(row.dir, row.goos, "arm64", "./...")
		if n != 1 || (text == "") != (row.want == "") || !strings.Contains(text, row.want) {
			t.Errorf("%s: run(%q, %q) = %d packages, %q; want 1 and %q", row.says, row.dir, row.goos, n, text, row.want)
		}
	}
}

func TestRunReportsWhatCannotBeListedOrRead(t *testing.T) {
	for _, row := range []struct{ says, main, part, want string }{
		{"an import that nobody provides", "package m\n\nimport _ \"example.org/none/at/all\"\n", "package part\n", "main.go:3:8: "},
		{"a syntax error in a package of ours that no pattern names", "package m\n\nimport _ \"example.org/m/part\"\n", "package part\n\nfunc f( {}\n", "part.go:3:9: "},
		{"a wrong body there", "package m\n\nimport _ \"example.org/m/part\"\n", "package part\n\nfunc f() { none() }\n", "part.go:3:12: undefined: none"},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"go.mod": "module example.org/m\n\ngo 1.26\n", "main.go": row.main, "part/part.go": row.part} {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, text := checked(dir, "darwin", "arm64", "."); !strings.Contains(text, row.want) {
			t.Errorf("%s: run gives %q; want %q in it", row.says, text, row.want)
		}
	}
	for _, row := range []struct{ says, goos, goarch, pattern string }{
		{"an architecture that does not exist", "darwin", "none", "."},
		{"a system that does not exist", "none", "arm64", "."},
		{"a package that does not exist", "darwin", "arm64", "./none"},
	} {
		if _, text := checked(".", row.goos, row.goarch, row.pattern); text == "" {
			t.Errorf("%s passes: run(%q, %q, %q)", row.says, row.goos, row.goarch, row.pattern)
		}
	}
}

// The driver for macOS can be built on a Mac only; this is what holds it everywhere else.
func TestTheDriverForMacOSPasses(t *testing.T) {
	for _, arch := range []string{"arm64", "amd64"} {
		if n, text := checked("../..", "darwin", arch, "./vmhost/vz"); n == 0 || text != "" {
			t.Errorf("run(darwin/%s, ./vmhost/vz) = %d packages,\n%s", arch, n, text)
		}
	}
}

// checked is run with its errors as lines.
func checked(dir, goos, goarch, pattern string) (int, string) {
	n, errs := run(dir, goos, goarch, []string{pattern})
	text := ""
	for _, err := range errs {
		text += err.Error() + "\n"
	}
	return n, text
}
