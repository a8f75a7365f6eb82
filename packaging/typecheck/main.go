// Command typecheck type-checks packages for a platform whose C toolchain is not on this machine, files
// with cgo included: `go run ./packaging/typecheck darwin/arm64 ./...`. Each error is a line
// file:line:col: text on the standard error, and the exit status is then 1.
//
// Everything in Go is checked: the packages of the main module with their bodies, what they import
// without. C's own names are taken on faith (go/types FakeImportC), nothing is linked, and files of
// tests are not looked at. So what passes can still fail to build where the toolchain is.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	if len(os.Args) < 3 || !strings.Contains(os.Args[1], "/") {
		fmt.Fprintln(os.Stderr, "usage: typecheck GOOS/GOARCH PACKAGES…")
		os.Exit(2)
	}
	goos, goarch, _ := strings.Cut(os.Args[1], "/")
	n, errs := run(".", goos, goarch, os.Args[2:])
	for _, err := range errs {
		fmt.Fprintln(os.Stderr, err)
	}
	if len(errs) > 0 {
		os.Exit(1)
	}
	fmt.Printf("%s: %d packages, no errors\n", os.Args[1], n)
}

// listed is what `go list -json` says of a package: see `go help list`.
type listed struct {
	ImportPath, Dir   string
	GoFiles, CgoFiles []string
	ImportMap         map[string]string
	DepOnly           bool // no pattern named it
	Module            *struct {
		Main      bool
		GoVersion string
	}
	Error *struct{ Pos, Err string }
}

// ours says whether a package is checked with its bodies.
func (p *listed) ours() bool { return !p.DepOnly || p.Module != nil && p.Module.Main }

// checker checks each package once.
type checker struct {
	fset  *token.FileSet
	all   map[string]*listed
	done  map[string]*types.Package
	sizes types.Sizes
	errs  []error
}

// run checks the packages that the patterns name, from dir, with those of the same module that they
// reach, and says how many they are.
func run(dir, goos, goarch string, patterns []string) (int, []error) {
	c := &checker{fset: token.NewFileSet(), all: map[string]*listed{}, done: map[string]*types.Package{}, sizes: types.SizesFor("gc", goarch)}
	if err := known(goos, goarch); err != nil {
		return 0, []error{err}
	}
	packages, err := c.list(dir, goos, goarch, patterns)
	if err != nil {
		return 0, []error{err}
	}
	n := 0
	for _, p := range packages {
		switch {
		case p.Error != nil && p.Error.Pos != "":
			c.errs = append(c.errs, fmt.Errorf("%s: %s", p.Error.Pos, strings.TrimSpace(p.Error.Err)))
		case p.Error != nil:
			c.errs = append(c.errs, fmt.Errorf("%s: %s", p.ImportPath, strings.TrimSpace(p.Error.Err)))
		case p.ours():
			n++
			c.check(p.ImportPath)
		}
	}
	return n, c.errs
}

// known refuses a platform that Go does not have: go list -e would find next to nothing to check on it.
func known(goos, goarch string) error {
	out, err := exec.Command("go", "tool", "dist", "list").Output()
	if err != nil {
		return fmt.Errorf("ask go for its platforms: %w", err)
	}
	if !slices.Contains(strings.Fields(string(out)), goos+"/"+goarch) {
		return fmt.Errorf("there is no platform %s/%s", goos, goarch)
	}
	return nil
}

func (c *checker) list(dir, goos, goarch string, patterns []string) ([]*listed, error) {
	// With CGO_ENABLED=1 go list names the files with cgo; it runs no C compiler.
	cmd := exec.Command("go", append([]string{"list", "-e", "-deps", "-json=ImportPath,Dir,GoFiles,CgoFiles,ImportMap,DepOnly,Module,Error"}, patterns...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var packages []*listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		p := new(listed)
		err := d.Decode(p)
		if errors.Is(err, io.EOF) {
			return packages, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read what go list says: %w", err)
		}
		c.all[p.ImportPath] = p
		packages = append(packages, p)
	}
}

// check gives a package's types; a package that others need is checked before them.
func (c *checker) check(path string) (*types.Package, error) {
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	if t, is := c.done[path]; is {
		return t, nil
	}
	p := c.all[path]
	if p == nil {
		return nil, fmt.Errorf("package %s is not listed", path)
	}
	var files []*ast.File
	for _, name := range append(append([]string{}, p.GoFiles...), p.CgoFiles...) {
		f, err := parser.ParseFile(c.fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			c.report(p, err)
			continue
		}
		files = append(files, f)
	}
	conf := types.Config{
		Importer: importer{c, p}, FakeImportC: true, Sizes: c.sizes, IgnoreFuncBodies: !p.ours(),
		Error: func(err error) { c.report(p, err) },
	}
	if p.Module != nil && p.Module.GoVersion != "" {
		conf.GoVersion = "go" + p.Module.GoVersion
	}
	t, _ := conf.Check(path, c.fset, files, nil)
	c.done[path] = t
	return t, nil
}

// report keeps an error of a package of ours. Those of others show as errors where they are used.
func (c *checker) report(p *listed, err error) {
	if !p.ours() {
		return
	}
	var many scanner.ErrorList
	if !errors.As(err, &many) {
		c.errs = append(c.errs, err)
		return
	}
	for _, e := range many {
		c.errs = append(c.errs, e)
	}
}

// importer finds what a package imports.
type importer struct {
	c *checker
	p *listed
}

func (i importer) Import(path string) (*types.Package, error) {
	if real, is := i.p.ImportMap[path]; is {
		path = real
	}
	return i.c.check(path)
}
